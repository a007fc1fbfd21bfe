//! `tamtam sms`: what a text costs, without a server.

use clap::Args;
use domain::sms::{Encoding, National, Shift, measure, measure_in, smart};
use serde_json::{Value, json};

use super::output;
use crate::exit::Failure;

#[derive(Debug, Args)]
pub struct SmsArgs {
    /// The text; `-` reads standard input
    text: String,
    /// What one part costs, in millionths of the currency
    #[arg(long, value_name = "MICROS", default_value_t = 45_000)]
    price_micros: u64,
    /// Replace what has a faithful GSM-7 form first, as a template's `smart = true` does
    #[arg(long)]
    smart: bool,
    /// The language whose national tables may be used (3GPP TS 23.038, annex A): tr, es or pt
    #[arg(long, value_name = "TAG", value_parser = national)]
    language: Option<National>,
    /// Print JSON
    #[arg(long)]
    json: bool,
}

fn national(tag: &str) -> Result<National, String> {
    National::of_tag(tag).ok_or_else(|| {
        let known: Vec<&str> = National::ALL.into_iter().map(National::tag).collect();
        format!("expected a language with national tables: {}", known.join(", "))
    })
}

pub fn run(arguments: &SmsArgs) -> Result<(), Failure> {
    let text = match arguments.text.as_str() {
        "-" => {
            let read = std::io::read_to_string(std::io::stdin());
            read.map_err(|error| Failure::usage(format!("standard input: {error}")))?
        }
        text => text.to_owned(),
    };
    let text = match arguments.smart {
        true => smart(&text),
        false => text,
    };
    let report = report(&text, arguments.language, arguments.price_micros);
    if arguments.json {
        return output::json(&report);
    }
    let mut rows = vec![
        vec!["encoding".to_owned(), output::cell(&report["encoding"])],
        vec![
            "units".to_owned(),
            format!(
                "{} ({} to a part, {} left in the last)",
                report["units"], report["per_part"], report["remaining"]
            ),
        ],
        vec!["parts".to_owned(), report["parts"].to_string()],
        vec!["cost".to_owned(), output::cell(&report["cost"])],
    ];
    if arguments.smart {
        rows.push(vec!["text".to_owned(), text]);
    }
    if let Some(tables) = report.get("national") {
        rows.push(vec![
            "national tables".to_owned(),
            format!(
                "locking {}, single {}",
                output::cell(&tables["locking"]),
                output::cell(&tables["single"])
            ),
        ]);
    }
    if let Some(characters) = report["non_gsm"].as_array().filter(|list| !list.is_empty()) {
        let list: Vec<String> = characters.iter().map(output::cell).collect();
        rows.push(vec!["not in GSM-7".to_owned(), list.join(" ")]);
    }
    if let Some(smart) = report.get("smart") {
        rows.push(vec![
            "with `smart`".to_owned(),
            format!(
                "{}, {} parts: {}",
                output::cell(&smart["encoding"]),
                smart["parts"],
                output::cell(&smart["text"])
            ),
        ]);
    }
    output::text(&output::aligned(&rows))
}

fn report(text: &str, language: Option<National>, price_micros: u64) -> Value {
    let (measured, shift) = match language {
        Some(national) => measure_in(text, national),
        None => (measure(text), Shift::default()),
    };
    let cost = u64::from(measured.parts) * price_micros;
    let mut report = json!({
        "encoding": measured.encoding.as_str(),
        "units": measured.units,
        "parts": measured.parts,
        "per_part": measured.per_part,
        "remaining": measured.remaining,
        "non_gsm": measured.non_gsm.iter().map(char::to_string).collect::<Vec<_>>(),
        "cost_micros": cost,
        "cost": money(cost as i64),
    });
    if shift != Shift::default() {
        report["national"] = json!({
            "locking": shift.locking.map(National::tag),
            "single": shift.single.map(National::tag),
        });
    }
    if measured.encoding == Encoding::Ucs2 {
        let replaced = smart(text);
        let better = measure(&replaced);
        if replaced != text {
            report["smart"] = json!({
                "text": replaced,
                "encoding": better.encoding.as_str(),
                "parts": better.parts,
                "cost_micros": u64::from(better.parts) * price_micros,
            });
        }
    }
    report
}

/// Millionths as a decimal number with at least two places.
pub fn money(micros: i64) -> String {
    let text = format!("{}.{:06}", micros / 1_000_000, micros.unsigned_abs() % 1_000_000);
    let cut = text.trim_end_matches('0');
    let places = cut.split('.').nth(1).map_or(0, str::len);
    format!("{cut}{}", "0".repeat(2_usize.saturating_sub(places)))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_text_is_measured_and_priced() {
        let report = report("Bonjour Élodie, à bientôt", None, 50_000);
        assert_eq!(report["encoding"], "UCS-2");
        assert_eq!((&report["parts"], &report["cost_micros"]), (&json!(1), &json!(50_000)));
        assert_eq!(report["non_gsm"], json!(["ô"]));
        let turkish = super::report("Işık", Some(National::Turkish), 50_000);
        assert_eq!(turkish["encoding"], "GSM-7");
        assert_eq!(turkish["national"], json!({"locking": null, "single": "tr"}));
        assert_eq!(super::report("Işık", None, 50_000)["encoding"], "UCS-2");
        assert!(national("fr").is_err());
        assert_eq!(money(45_000), "0.045");
        assert_eq!(money(1_500_000), "1.50");
        assert_eq!(money(0), "0.00");
    }
}
