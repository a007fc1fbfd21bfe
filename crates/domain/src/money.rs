//! Amounts of money in a language.

use crate::template::Language;

/// Writes an amount in millionths of `currency` (ISO 4217), rounded to what the currency is counted in:
/// `1 234,50 €` in French, `1.234,50 €` in German, Portuguese, Spanish and Turkish, `€1,234.50` in English. Spaces are plain
/// ones, and Turkish has `TL` for the lira, so that the text stays GSM-7.
pub fn format_micros(micros: i64, currency: &str, language: Language) -> String {
    let decimals = decimals(currency);
    let unit = 10_u64.pow(6 - decimals);
    // Half away from zero, as on an invoice.
    let rounded = (micros.unsigned_abs() + unit / 2) / unit;
    let scale = 10_u64.pow(decimals);
    let (whole, rest) = (rounded / scale, rounded % scale);
    let comma = language.has_decimal_comma();
    let separator = match language {
        Language::French => ' ',
        _ if comma => '.',
        _ => ',',
    };
    let mut number = grouped(whole, separator);
    if decimals > 0 {
        number.push(if comma { ',' } else { '.' });
        number.push_str(&format!("{rest:0width$}", width = decimals as usize));
    }
    let sign = if micros < 0 && rounded > 0 { "-" } else { "" };
    match (language, symbol(currency)) {
        (Language::Portuguese, _) if currency == "BRL" => format!("{sign}R$ {number}"),
        (Language::Turkish, _) if currency == "TRY" => format!("{sign}{number} TL"),
        (_, symbol) if comma => format!("{sign}{number} {}", symbol.unwrap_or(currency)),
        (_, Some(symbol)) => format!("{sign}{symbol}{number}"),
        (_, None) => format!("{sign}{currency} {number}"),
    }
}

/// An amount as data has it, in millionths: `12.5`, or the text `"12.50"`. `None` where it is no amount or beyond reach.
pub fn parse_micros(text: &str) -> Option<i64> {
    let text = text.trim();
    let (negative, digits) = match text.strip_prefix('-') {
        Some(rest) => (true, rest),
        None => (false, text),
    };
    let (whole, rest) = digits.split_once('.').unwrap_or((digits, ""));
    let numeric = |text: &str| text.bytes().all(|byte| byte.is_ascii_digit());
    if whole.is_empty() || !numeric(whole) || !numeric(rest) {
        return None;
    }
    let mut micros = whole.parse::<i64>().ok()?.checked_mul(1_000_000)?;
    let six: String = rest.chars().chain("000000".chars()).take(6).collect();
    micros = micros.checked_add(six.parse().ok()?)?;
    // The seventh decimal rounds.
    if rest.as_bytes().get(6).is_some_and(|digit| *digit >= b'5') {
        micros = micros.checked_add(1)?;
    }
    Some(if negative { -micros } else { micros })
}

fn grouped(number: u64, separator: char) -> String {
    let digits = number.to_string();
    let mut text = String::with_capacity(digits.len() + digits.len() / 3);
    for (index, digit) in digits.chars().enumerate() {
        if index > 0 && (digits.len() - index).is_multiple_of(3) {
            text.push(separator);
        }
        text.push(digit);
    }
    text
}

fn symbol(currency: &str) -> Option<&'static str> {
    Some(match currency {
        "EUR" => "€",
        "USD" => "$",
        "GBP" => "£",
        "JPY" => "¥",
        _ => return None,
    })
}

/// ISO 4217's minor units.
fn decimals(currency: &str) -> u32 {
    match currency {
        "JPY" | "KRW" | "VND" | "CLP" | "ISK" | "PYG" | "RWF" | "UGX" | "XAF" | "XOF" | "XPF" | "KMF" | "DJF"
        | "GNF" | "BIF" | "VUV" => 0,
        "TND" | "BHD" | "KWD" | "OMR" | "JOD" | "IQD" | "LYD" => 3,
        _ => 2,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use Language::{AmericanEnglish, English, French, German, Portuguese, Spanish, Turkish};

    #[test]
    fn amounts_are_written_in_the_language() {
        for (micros, currency, language, text) in [
            (1_234_500_000, "EUR", French, "1 234,50 €"),
            (1_234_500_000, "EUR", English, "€1,234.50"),
            (12_005_000, "USD", AmericanEnglish, "$12.01"),
            (-5_000_000, "EUR", French, "-5,00 €"),
            (-1_000, "EUR", French, "0,00 €"),
            (1_500_000_000_000, "XPF", French, "1 500 000 XPF"),
            (7_125_000, "TND", English, "TND 7.125"),
            (35_000, "EUR", French, "0,04 €"),
            (1_234_500_000, "EUR", German, "1.234,50 €"),
            (-1_234_500_000, "EUR", Spanish, "-1.234,50 €"),
            (1_234_500_000, "EUR", Portuguese, "1.234,50 €"),
            (1_234_500_000, "BRL", Portuguese, "R$ 1.234,50"),
            (1_234_567_500_000, "TRY", Turkish, "1.234.567,50 TL"),
            (7_125_000, "TND", German, "7,125 TND"),
            (5_000_000, "TRY", English, "TRY 5.00"),
        ] {
            assert_eq!(format_micros(micros, currency, language), text);
        }
    }

    #[test]
    fn amounts_are_read() {
        assert_eq!(parse_micros("12.5"), Some(12_500_000));
        assert_eq!(parse_micros("-0.0000005"), Some(-1));
        assert_eq!(parse_micros("1000000"), Some(1_000_000_000_000));
        for wrong in ["", "-", ".5", "1,5", "12 €", "1e3", "99999999999999999999", "NaN"] {
            assert_eq!(parse_micros(wrong), None, "{wrong}");
        }
    }
}
