//! Values by their meaning. Each mistake is written down with what was expected, and reading goes on, so that one run
//! tells all of them.

use std::{net::SocketAddr, ops::RangeInclusive, time::Duration};

use ipnet::IpNet;
use resources::{Period, gateway::network};

use super::layers::{Layers, Problem};

/// Keys whose values are never shown.
const SECRET: [&str; 2] = ["database.url", "admin.key"];

impl Layers {
    pub fn refuse(&mut self, key: &str, message: impl Into<String>) {
        let entry = self.get(key);
        let secret = SECRET.contains(&key);
        self.problems.push(Problem {
            key: key.to_owned(),
            value: (!secret).then(|| entry.text.chars().take(100).collect()),
            origin: entry.origin,
            message: message.into(),
        });
    }

    pub fn text(&self, key: &str) -> String {
        self.get(key).text.trim().to_owned()
    }

    pub fn text_option(&self, key: &str) -> Option<String> {
        Some(self.text(key)).filter(|text| !text.is_empty())
    }

    pub fn address(&mut self, key: &str) -> SocketAddr {
        let text = self.text(key);
        let numeric = match text.strip_prefix("localhost:") {
            Some(port) => format!("127.0.0.1:{port}"),
            None => text,
        };
        numeric.parse().unwrap_or_else(|_| {
            self.refuse(
                key,
                "expected an IP address and a port such as 127.0.0.1:8080 or [::]:8080 (port 0 picks a free one)",
            );
            SocketAddr::from(([127, 0, 0, 1], 0))
        })
    }

    /// Addresses and networks, with commas between.
    pub fn networks(&mut self, key: &str) -> Vec<IpNet> {
        let text = self.text(key);
        let parts: Vec<Option<IpNet>> = text
            .split(',')
            .filter(|part| !part.trim().is_empty())
            .map(network)
            .collect();
        if parts.contains(&None) {
            self.refuse(
                key,
                "expected addresses or networks such as 10.0.0.0/8, with commas between",
            );
        }
        parts.into_iter().flatten().collect()
    }

    pub fn number(&mut self, key: &str, range: RangeInclusive<u32>) -> u32 {
        match self.text(key).parse() {
            Ok(number) if range.contains(&number) => number,
            _ => {
                self.refuse(
                    key,
                    format!("expected a whole number from {} to {}", range.start(), range.end()),
                );
                *range.start()
            }
        }
    }

    pub fn ratio(&mut self, key: &str) -> f64 {
        match self.text(key).parse::<f64>() {
            Ok(ratio) if (0.0..=1.0).contains(&ratio) => ratio,
            _ => {
                self.refuse(key, "expected a number from 0 to 1");
                0.0
            }
        }
    }

    pub fn flag(&mut self, key: &str) -> bool {
        match self.text(key).as_str() {
            "true" => true,
            "false" => false,
            _ => {
                self.refuse(key, "expected true or false");
                false
            }
        }
    }

    pub fn period(&mut self, key: &str, longest: Duration) -> Duration {
        let period = self.text(key).parse::<Period>();
        match period.map(|period| Duration::from_secs(period.as_secs().unsigned_abs())) {
            Ok(period) if period <= longest => period,
            _ => {
                self.refuse(
                    key,
                    format!(
                        "expected a period such as 45s, 30m, 12h or 7d, up to {}",
                        Period::from_secs(i64::try_from(longest.as_secs()).unwrap_or(i64::MAX))
                    ),
                );
                Duration::from_secs(1)
            }
        }
    }

    pub fn word(&mut self, key: &str, words: &[&str]) -> String {
        let text = self.text(key);
        if !words.contains(&text.as_str()) {
            self.refuse(key, format!("expected {}", words.join(" or ")));
        }
        text
    }
}
