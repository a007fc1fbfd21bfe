//! A picture of a series of growth, as SVG written by hand: three lines over some sizes need no drawing library. The sizes
//! stand at equal distances, for each is a multiple of the one before (and none may be the first).

use std::fmt::Write as _;

use crate::{growth::Measured, report::shown};

const WIDTH: f64 = 720.0;
const HEIGHT: f64 = 340.0;
/// Of the plot within the picture.
const LEFT: f64 = 64.0;
const RIGHT: f64 = 700.0;
const TOP: f64 = 56.0;
const BOTTOM: f64 = 290.0;

type Points = Vec<(u64, f64)>;

/// The cost of a message, of which PostgreSQL's part and tamtam's, and twice the first as the limit that was set.
pub fn svg(measured: &Measured<'_>) -> String {
    let all = measured.cost();
    let postgres = measured.figures("cpu_us_per_message_postgres");
    let kafka = measured.figures("cpu_us_per_message_kafka");
    let others = |index: usize| {
        [&postgres, &kafka]
            .iter()
            .filter_map(|part| part.get(index))
            .map(|(_, cost)| cost)
            .sum::<f64>()
    };
    let tamtam: Points = all
        .iter()
        .enumerate()
        .map(|(index, (size, cost))| (*size, cost - others(index)))
        .collect();
    let limit = all.first().map_or(0.0, |(_, cost)| cost * 2.0);
    let most = all.iter().map(|(_, cost)| *cost).fold(limit, f64::max);
    let step = step(most);
    let top = (most / step).ceil().max(1.0) * step;
    let x = |index: usize| LEFT + (RIGHT - LEFT) * (index as f64 + 0.5) / all.len().max(1) as f64;
    let y = |cost: f64| BOTTOM - (BOTTOM - TOP) * cost / top;

    let mut text = format!(
        "<svg xmlns=\"http://www.w3.org/2000/svg\" viewBox=\"0 0 {WIDTH} {HEIGHT}\" font-family=\"sans-serif\" font-size=\"12\" fill=\"#222\">\n\
         <rect width=\"{WIDTH}\" height=\"{HEIGHT}\" fill=\"#fff\"/>\n"
    );
    // Writing to a String does not fail.
    let mut add = |line: String| {
        let _ = writeln!(text, "{line}");
    };
    add(label(LEFT, 20.0, "start", "µs of processor time a message"));
    add(label((LEFT + RIGHT) / 2.0, HEIGHT - 14.0, "middle", measured.axis));
    for number in 0..=(top / step).round() as u32 {
        let cost = f64::from(number) * step;
        add(format!("<path d=\"M{LEFT} {:.1}H{RIGHT}\" stroke=\"#ddd\"/>", y(cost)));
        add(label(LEFT - 8.0, y(cost) + 4.0, "end", &shown(cost)));
    }
    for (index, (size, _)) in all.iter().enumerate() {
        add(label(x(index), BOTTOM + 18.0, "middle", &shown(*size as f64)));
    }
    add(format!(
        "<path d=\"M{LEFT} {0:.1}H{RIGHT}\" stroke=\"#999\" stroke-dasharray=\"6 4\"/>",
        y(limit)
    ));
    let mut lines = vec![
        ("all", "#222", &all),
        ("tamtam", "#0a6ebd", &tamtam),
        ("PostgreSQL", "#c2571a", &postgres),
    ];
    if !kafka.is_empty() {
        lines.push(("Kafka", "#3a7d34", &kafka));
    }
    let mut at = LEFT;
    for (name, colour, points) in lines {
        let places: Vec<String> = points
            .iter()
            .enumerate()
            .map(|(index, (_, cost))| format!("{:.1},{:.1}", x(index), y(*cost)))
            .collect();
        add(format!(
            "<polyline points=\"{}\" fill=\"none\" stroke=\"{colour}\" stroke-width=\"2\"/>",
            places.join(" ")
        ));
        for place in &places {
            let (x, y) = place.split_once(',').unwrap_or_default();
            add(format!("<circle cx=\"{x}\" cy=\"{y}\" r=\"3\" fill=\"{colour}\"/>"));
        }
        add(format!(
            "<rect x=\"{at}\" y=\"32\" width=\"12\" height=\"12\" fill=\"{colour}\"/>"
        ));
        add(label(at + 17.0, 42.0, "start", name));
        at += 105.0;
    }
    add(format!(
        "<path d=\"M{at} 38h24\" stroke=\"#999\" stroke-dasharray=\"6 4\"/>"
    ));
    add(label(at + 30.0, 42.0, "start", "twice the first"));
    text.push_str("</svg>\n");
    text
}

fn label(x: f64, y: f64, anchor: &str, text: &str) -> String {
    format!("<text x=\"{x:.1}\" y=\"{y:.1}\" text-anchor=\"{anchor}\">{text}</text>")
}

/// A round distance between lines of the grid, of which about five go up to `most`.
fn step(most: f64) -> f64 {
    let rough = (most / 5.0).max(1.0);
    let power = 10_f64.powf(rough.log10().floor());
    let multiple = [1.0, 2.0, 5.0].into_iter().find(|multiple| multiple * power >= rough);
    multiple.unwrap_or(10.0) * power
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn the_grid_is_round() {
        assert_eq!(
            [3.0, 240.0, 250.0, 700.0, 1_100.0].map(step),
            [1.0, 50.0, 50.0, 200.0, 500.0]
        );
    }

    #[test]
    fn each_size_has_its_place_in_every_line() {
        let point = |size: u64, all: f64| json!({ "size": size, "medians": { "cpu_us_per_message": all, "cpu_us_per_message_postgres": all / 2.0 } });
        let report = json!({ "growth": "backlog", "points": [point(0, 100.0), point(10_000, 150.0)] });
        let made = svg(&Measured::of(&report).unwrap());
        // Both lines of the halves lie on each other: 100 of 200 is in the middle, 50 a quarter from below.
        assert!(made.contains("points=\"223.0,173.0 541.0,114.5\""), "{made}");
        assert_eq!(made.matches("points=\"223.0,231.5 541.0,202.2\"").count(), 2, "{made}");
        assert!(made.contains(">10,000</text>") && made.contains(">backlog</text>"));
        assert!(made.ends_with("</svg>\n"));
    }
}
