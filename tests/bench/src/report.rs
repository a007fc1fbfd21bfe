//! Figures: gathered over several runs, reduced to medians, written as JSON and into `docs/benchmarks.md`.

use std::{collections::BTreeMap, fs, io::Write as _, path::PathBuf};

use anyhow::{Context as _, Result};
use serde_json::{Map, Value, json};

use crate::{Common, chart, growth::Measured, machine};

/// One run's figures in the order in which they are shown. Names end with their unit.
pub type Figures = Vec<(String, f64)>;

/// Puts a figure.
pub fn put(figures: &mut Figures, name: impl Into<String>, value: f64) {
    figures.push((name.into(), value));
}

pub fn get(figures: &Figures, name: &str) -> Option<f64> {
    figures.iter().find(|(has, _)| has == name).map(|(_, value)| *value)
}

pub fn median(values: &mut [f64]) -> f64 {
    percentile(values, 0.5)
}

/// Of the values as they lie, the one below which that share lies. 0 of nothing.
pub fn percentile(values: &mut [f64], share: f64) -> f64 {
    values.sort_by(f64::total_cmp);
    let last = values.len().saturating_sub(1);
    values
        .get((last as f64 * share).round() as usize)
        .copied()
        .unwrap_or(0.0)
}

/// The medians of several runs, figure by figure.
pub fn medians(runs: &[Figures]) -> Figures {
    let Some(first) = runs.first() else { return Vec::new() };
    let of = |name: &str| {
        let mut values: Vec<f64> = runs.iter().filter_map(|run| get(run, name)).collect();
        median(&mut values)
    };
    first.iter().map(|(name, _)| (name.clone(), of(name))).collect()
}

/// The figures as JSON.
pub fn object(figures: &Figures) -> Map<String, Value> {
    figures
        .iter()
        .map(|(name, value)| (name.clone(), json!(value)))
        .collect()
}

/// Says something to whoever watches.
pub fn say(line: &str) {
    let _ = writeln!(std::io::stdout(), "{line}");
}

fn directory() -> PathBuf {
    PathBuf::from("target/bench")
}

/// Writes `target/bench/NAME.json` and prints the figures.
pub fn write(common: &Common, name: &str, settings: Value, runs: &[Figures]) -> Result<()> {
    let medians = medians(runs);
    for (figure, value) in &medians {
        say(&format!("  {figure:<44} {}", shown(*value)));
    }
    let report = json!({
        "bench": name,
        "short": common.short,
        "conditions": machine::conditions(),
        "settings": settings,
        "order": medians.iter().map(|(name, _)| name).collect::<Vec<_>>(),
        "medians": object(&medians),
        "runs": runs.iter().map(object).collect::<Vec<_>>(),
    });
    file(&format!("{name}.json"), serde_json::to_string_pretty(&report)?)
}

/// Writes a file of `target/bench`.
pub fn file(name: &str, text: String) -> Result<()> {
    fs::create_dir_all(directory())?;
    let path = directory().join(name);
    fs::write(&path, text).with_context(|| path.display().to_string())?;
    say(&format!("wrote {}", path.display()));
    Ok(())
}

/// What an earlier bench of this directory measured.
pub fn read(name: &str) -> Option<Value> {
    let text = fs::read_to_string(directory().join(format!("{name}.json"))).ok()?;
    serde_json::from_str(&text).ok()
}

/// Thousands apart; three figures that mean something.
pub fn shown(value: f64) -> String {
    if value.abs() >= 100.0 {
        let digits = format!("{:.0}", value.abs());
        let mut text = String::new();
        for (index, digit) in digits.chars().enumerate() {
            if index > 0 && (digits.len() - index) % 3 == 0 {
                text.push(',');
            }
            text.push(digit);
        }
        return if value < 0.0 { format!("-{text}") } else { text };
    }
    match value.abs() {
        whole if whole.fract() == 0.0 => format!("{value:.0}"),
        small if small < 1.0 => format!("{value:.3}"),
        _ => format!("{value:.1}"),
    }
}

const DOCUMENT: &str = "docs/benchmarks.md";

const IMAGES: &str = "docs/images";

/// Puts what `target/bench` holds between the markers `<!-- bench:NAME -->` and `<!-- /bench:NAME -->` of the document,
/// and a picture of each series of growth beside it. A bench that has not run, or only in its short form, leaves its
/// section as it is.
pub fn document() -> Result<()> {
    let mut text = fs::read_to_string(DOCUMENT).context(DOCUMENT)?;
    let names: Vec<String> = text
        .split("<!-- bench:")
        .skip(1)
        .filter_map(|rest| rest.split_once(" -->").map(|(name, _)| name.to_owned()))
        .collect();
    for name in names {
        let (open, close) = (format!("<!-- bench:{name} -->"), format!("<!-- /bench:{name} -->"));
        let measured = read(&name).filter(|report| report["short"] != true);
        let (Some(report), Some(from), Some(to)) = (measured, text.find(&open), text.find(&close)) else {
            say(&format!("{name}: not measured here, its section stays"));
            continue;
        };
        text.replace_range(from + open.len()..to, &format!("\n{}", section(&name, &report)?));
    }
    fs::write(DOCUMENT, text).context(DOCUMENT)
}

/// A section's text; its picture is written.
fn section(name: &str, report: &Value) -> Result<String> {
    let Some(measured) = Measured::of(report) else {
        return Ok(table(report));
    };
    let path = format!("{IMAGES}/{name}.svg");
    fs::write(&path, chart::svg(&measured)).with_context(|| path.clone())?;
    Ok(format!(
        "{}\n\n![What a message costs against {}](images/{name}.svg)\n\n{}",
        conditions(report),
        measured.axis,
        measured.table()
    ))
}

/// Where, when and how a report was measured.
fn conditions(report: &Value) -> String {
    let conditions = &report["conditions"];
    format!(
        "{} cores, {}, {} GiB, Linux {}, {}; {}",
        conditions["cores"],
        plain(&conditions["processor"]),
        conditions["memory_gib"],
        plain(&conditions["kernel"]),
        plain(&conditions["date"]),
        settings(&report["settings"]),
    )
}

fn table(report: &Value) -> String {
    let runs = report["runs"].as_array().map_or(1, Vec::len);
    let mut text = format!(
        "{}; median of {runs}\n\n| figure | value |\n|---|---:|\n",
        conditions(report)
    );
    for name in report["order"]
        .as_array()
        .into_iter()
        .flatten()
        .filter_map(Value::as_str)
    {
        let value = report["medians"][name].as_f64().unwrap_or(0.0);
        text.push_str(&format!("| {} | {} |\n", name.replace('_', " "), shown(value)));
    }
    text
}

fn settings(settings: &Value) -> String {
    let all: BTreeMap<String, Value> = serde_json::from_value(settings.clone()).unwrap_or_default();
    let pairs: Vec<String> = all
        .iter()
        .map(|(name, value)| format!("{name} {}", plain(value)))
        .collect();
    pairs.join(", ")
}

fn plain(value: &Value) -> String {
    value.as_str().map_or_else(|| value.to_string(), str::to_owned)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn medians_are_taken_figure_by_figure() {
        let run = |rate: f64, p99: f64| vec![("rate".to_owned(), rate), ("p99".to_owned(), p99)];
        let runs = [run(1.0, 30.0), run(3.0, 10.0), run(2.0, 20.0)];
        assert_eq!(medians(&runs), run(2.0, 20.0));
        assert_eq!(percentile(&mut [4.0, 1.0, 3.0, 2.0, 5.0], 0.99), 5.0);
        assert_eq!(percentile(&mut [], 0.5), 0.0);
    }

    #[test]
    fn figures_are_shown_with_what_they_mean() {
        assert_eq!(
            [1_234_567.8, 999.6, 12.34, 10.0, 0.1234, 0.0].map(shown),
            ["1,234,568", "1,000", "12.3", "10", "0.123", "0"]
        );
    }
}
