//! The forms in which an id may have been given when the message was submitted.

use resources::gateway::ReceiptIds;

/// From so many characters on, without leading zeros, an id that is the same number as another's in the other base is no
/// accident.
const LONG: usize = 8;

/// The forms of a receipt's id to look for, the likeliest first.
///
/// Some gateways answer a submission with a decimal number and report with the same number in hexadecimal, or the other
/// way about. The store compares without case and leading zeros. Without being told so (`auto`), the other base is only
/// looked for where an id is long: of a gateway that counts from 1, every short id is another part's in the other base.
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
            if id.trim_start_matches('0').len() >= LONG {
                forms.extend(as_decimal());
                forms.extend(as_hex());
                forms.dedup();
            }
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
        assert_eq!(forms("12345678", ReceiptIds::Auto), ["12345678", "bc614e", "305419896"]);
        assert_eq!(forms("00BC614E00", ReceiptIds::Auto), ["00bc614e00", "3160493568"]);
        assert_eq!(forms("SM12345678", ReceiptIds::Auto), ["sm12345678"]);
        // Of a gateway that counts from 1, 38 is another part.
        assert_eq!(forms("26", ReceiptIds::Auto), ["26"]);
        assert_eq!(forms("000000026", ReceiptIds::Auto), ["000000026"]);
        assert_eq!(forms("001A", ReceiptIds::Hex), ["26"]);
        assert_eq!(forms("26", ReceiptIds::Decimal), ["1a"]);
        assert_eq!(forms("26", ReceiptIds::Same), ["26"]);
        assert_eq!(forms("x-1", ReceiptIds::Hex), ["x-1"]);
        assert_eq!(forms("5", ReceiptIds::Auto), ["5"]);
        assert_eq!(forms("+5", ReceiptIds::Auto), ["+5"]);
        assert_eq!(forms(&"9".repeat(60), ReceiptIds::Auto).len(), 1);
    }
}
