//! The forms in which an id may have been given when the message was submitted.

use resources::gateway::ReceiptIds;

/// The forms of a receipt's id to look for, the likeliest first.
///
/// Some gateways answer a submission with a decimal number and report with the same number in hexadecimal, or the other
/// way about. The store compares without case and leading zeros.
pub fn forms(remote_id: &str, ids: ReceiptIds) -> Vec<String> {
    let id = remote_id.trim();
    let as_hex = || number(id, 16).map(|number| number.to_string());
    let as_decimal = || number(id, 10).map(|number| format!("{number:x}"));
    let same = || id.to_ascii_lowercase();
    match ids {
        ReceiptIds::Same => vec![same()],
        ReceiptIds::Hex => vec![as_hex().unwrap_or_else(same)],
        ReceiptIds::Decimal => vec![as_decimal().unwrap_or_else(same)],
        ReceiptIds::Auto => {
            let mut forms = vec![same()];
            forms.extend(as_decimal());
            forms.extend(as_hex());
            forms.dedup();
            forms
        }
    }
}

/// Digits alone: no sign and no separators.
fn number(text: &str, radix: u32) -> Option<u128> {
    if text.is_empty() || !text.chars().all(|digit| digit.is_digit(radix)) {
        return None;
    }
    u128::from_str_radix(text, radix).ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_id_is_looked_for_as_it_came_and_in_the_other_base() {
        assert_eq!(forms("26", ReceiptIds::Auto), ["26", "1a", "38"]);
        assert_eq!(forms("001A", ReceiptIds::Auto), ["001a", "26"]);
        assert_eq!(forms("SM12", ReceiptIds::Auto), ["sm12"]);
        assert_eq!(forms("001A", ReceiptIds::Hex), ["26"]);
        assert_eq!(forms("26", ReceiptIds::Decimal), ["1a"]);
        assert_eq!(forms("26", ReceiptIds::Same), ["26"]);
        assert_eq!(forms("x-1", ReceiptIds::Hex), ["x-1"]);
        assert_eq!(forms("5", ReceiptIds::Auto), ["5"]);
        assert_eq!(forms("+5", ReceiptIds::Auto), ["+5"]);
        assert_eq!(forms(&"9".repeat(60), ReceiptIds::Auto).len(), 1);
    }
}
