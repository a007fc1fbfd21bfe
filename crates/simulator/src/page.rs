//! The page at `/`: what came, as it comes.

use std::sync::Arc;

use axum::extract::State;
use maud::{DOCTYPE, Markup, html};

use crate::core::Core;

const STYLE: &str = "body{font:16px/1.5 system-ui,sans-serif;margin:2rem auto;max-width:60rem;padding:0 1rem;color:#1b1f23}\
dl{display:grid;grid-template-columns:repeat(auto-fill,minmax(9rem,1fr));gap:.75rem}dl div{background:#f3f5f7;\
border-radius:.5rem;padding:.5rem .75rem}dt{font-size:.8rem;color:#57606a}dd{margin:0;font-size:1.4rem;\
font-variant-numeric:tabular-nums}table{border-collapse:collapse;width:100%}th,td{text-align:left;padding:.4rem .6rem;\
border-bottom:1px solid #d8dee4;vertical-align:top}td.text{white-space:pre-wrap;word-break:break-word}";

pub(crate) async fn show(State(core): State<Arc<Core>>) -> Markup {
    let stats = core.stats();
    let latest = core.latest(30);
    let numbers = [
        ("messages", stats.distinct),
        ("parts", stats.accepted),
        ("repeated parts", stats.duplicates),
        ("refused", stats.refused),
        ("throttled", stats.throttled + stats.busy),
        ("receipts", stats.receipts),
        ("receipts lost", stats.receipts_lost),
        ("waiting", stats.waiting),
        ("replies", stats.inbound),
        ("binds", stats.binds),
        (
            "parts a second",
            u64::from(stats.per_second.last().copied().unwrap_or(0)),
        ),
        ("busiest second", u64::from(stats.busiest_second)),
    ];
    html! {
        (DOCTYPE)
        html lang="en" {
            head {
                meta charset="utf-8";
                meta name="viewport" content="width=device-width, initial-scale=1";
                meta http-equiv="refresh" content="2";
                title { "SMS gateway simulator" }
                style { (STYLE) }
            }
            body {
                h1 { "SMS gateway simulator" }
                dl { @for (name, number) in numbers { div { dt { (name) } dd { (number) } } } }
                h2 { "On the phones" }
                @if latest.is_empty() {
                    p { "No text yet." }
                } @else {
                    table {
                        thead { tr { th { "at" } th { "from" } th { "to" } th { "text" } th { "parts" } th { "ends as" } } }
                        tbody {
                            @for shown in latest {
                                tr {
                                    td { (shown.at.strftime("%H:%M:%S").to_string()) }
                                    td { (shown.from) }
                                    td { (shown.to) }
                                    td.text { (shown.text) }
                                    td { (shown.parts) }
                                    td { (shown.outcome) }
                                }
                            }
                        }
                    }
                }
            }
        }
    }
}
