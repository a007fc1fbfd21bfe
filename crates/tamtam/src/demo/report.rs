//! The demo's table and its final check.

use domain::State;
use serde_json::Value;

use super::receipts::Sum;
use crate::{
    commands::{output::aligned, sms::money},
    exit::Failure,
};

/// What came out.
#[derive(Clone, Debug, Default)]
pub struct Report {
    pub contacts: u64,
    pub events: u64,
    /// Contacts in the campaign's audience.
    pub matched: u64,
    /// Orders of today that are to be answered.
    pub to_confirm: u64,
    /// `campaign status --json`
    pub status: Value,
    pub campaign: Sum,
    pub confirmations: Sum,
    pub seconds: f64,
    /// `audit --json`
    pub audit: Value,
    /// The simulator's own count.
    pub simulator: Value,
}

impl Report {
    pub fn table(&self) -> String {
        let row = |name: &str, value: String| vec![name.to_owned(), value];
        let total = |of: fn(&Sum) -> u64| of(&self.campaign) + of(&self.confirmations);
        let state = |state: State| (self.campaign.state(state) + self.confirmations.state(state)).to_string();
        let mut rows = vec![
            row("events", self.events.to_string()),
            row("contacts", self.contacts.to_string()),
            row("contacts matched", self.matched.to_string()),
            row("order confirmations", self.confirmations.messages.to_string()),
        ];
        let mut suppressed = self.campaign.suppressed.clone();
        for (reason, count) in &self.confirmations.suppressed {
            *suppressed.entry(*reason).or_default() += count;
        }
        rows.push(row("suppressed", state(State::Suppressed)));
        for (reason, count) in suppressed {
            rows.push(row(&format!("  {}", reason.as_str()), count.to_string()));
        }
        rows.push(row("accepted", total(|sum| sum.taken).to_string()));
        rows.push(row("delivered", state(State::Delivered)));
        rows.push(row("failed", state(State::Failed)));
        rows.push(row("expired", state(State::Expired)));
        rows.push(row("unknown", state(State::Unknown)));
        rows.push(row("parts", total(|sum| sum.parts).to_string()));
        rows.push(row(
            "cost",
            money(self.campaign.cost_micros + self.confirmations.cost_micros),
        ));
        rows.push(row("messages/s (campaign)", format!("{:.0}", self.rate())));
        rows.push(row("event to gateway (confirmations)", latency(&self.confirmations)));
        rows.push(row("launch to gateway (campaign)", latency(&self.campaign)));
        format!("\n{}\n", aligned(&rows))
    }

    fn rate(&self) -> f64 {
        match self.seconds > 0.0 {
            true => self.campaign.taken as f64 / self.seconds,
            false => 0.0,
        }
    }

    /// The conservation check: (what must hold, whether it does, the numbers).
    fn checks(&self) -> Vec<(&'static str, bool, String)> {
        let status = |name: &str| self.status[name].as_u64().unwrap_or(0);
        let planned = status("planned");
        let states = [
            "suppressed",
            "accepted",
            "delivered",
            "failed",
            "expired",
            "cancelled",
            "unknown",
            "pending",
        ];
        let sum: u64 = states.iter().map(|name| status(name)).sum();
        let taken = self.campaign.taken + self.confirmations.taken;
        let simulator = |name: &str| self.simulator[name].as_u64();
        let violations = self.audit["violations"].as_u64();
        vec![
            (
                "each contact of the audience is planned once",
                planned > 0
                    && planned == self.matched
                    && planned == self.campaign.messages
                    && planned == self.campaign.contacts,
                format!(
                    "{} matched, {planned} planned, {} messages",
                    self.matched, self.campaign.messages
                ),
            ),
            (
                "planned is the sum of all states, and nothing is on its way",
                sum == planned && status("pending") == 0,
                format!(
                    "{planned} planned, {sum} in a state, {} on their way",
                    status("pending")
                ),
            ),
            (
                "each order of today is confirmed once",
                self.confirmations.messages == self.to_confirm && self.to_confirm > 0,
                format!("{} orders, {} messages", self.to_confirm, self.confirmations.messages),
            ),
            (
                "the gateway counted what the ledger says it took",
                simulator("distinct") == Some(taken),
                format!("{taken} in the ledger, {} at the gateway", self.simulator["distinct"]),
            ),
            (
                "no message reached the gateway twice",
                simulator("duplicates") == Some(0),
                format!("{} duplicates", self.simulator["duplicates"]),
            ),
            (
                "the audit finds no violation",
                violations == Some(0),
                format!("{} violations", self.audit["violations"]),
            ),
        ]
    }

    /// Says what holds; a failure unless all of it does.
    pub fn verdict(&self) -> Result<String, Failure> {
        let checks = self.checks();
        let mut text = String::from("conservation check\n");
        for (what, holds, numbers) in &checks {
            let word = if *holds { "holds" } else { "FAILS" };
            text.push_str(&format!("  {word}  {what} ({numbers})\n"));
        }
        if checks.iter().all(|(_, holds, _)| *holds) {
            return Ok(text);
        }
        Err(Failure::no(format!("{text}the conservation check does not hold")))
    }
}

fn latency(sum: &Sum) -> String {
    match (sum.percentile(50), sum.percentile(99)) {
        (Some(p50), Some(p99)) => format!("p50 {p50} ms, p99 {p99} ms"),
        _ => "none".into(),
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn good() -> Report {
        let sum = |messages: u64, suppressed: u64| Sum {
            messages,
            contacts: messages,
            taken: messages - suppressed,
            states: [
                (State::Suppressed, suppressed),
                (State::Delivered, messages - suppressed),
            ]
            .into(),
            ..Sum::default()
        };
        Report {
            matched: 10,
            to_confirm: 2,
            status: json!({"planned": 10, "suppressed": 3, "delivered": 7, "pending": 0}),
            campaign: sum(10, 3),
            confirmations: sum(2, 0),
            audit: json!({"violations": 0}),
            simulator: json!({"distinct": 9, "duplicates": 0}),
            ..Report::default()
        }
    }

    #[test]
    fn the_check_holds_for_a_good_run() {
        let report = good();
        let told = report.verdict().unwrap();
        assert_eq!(told.matches("  holds  ").count(), report.checks().len());
        assert!(!told.contains("FAILS"));
        assert!(report.table().contains("delivered"));
    }

    #[test]
    fn each_check_fails_alone_and_ends_the_demo_with_1() {
        type Change = fn(&mut Report);
        let cases: [(&str, &[Change]); 6] = [
            (
                "each contact of the audience is planned once",
                &[
                    |report| report.matched = 11,
                    |report| report.campaign.messages = 9,
                    |report| report.campaign.contacts = 9,
                    |report| {
                        report.status = json!({"planned": 9, "suppressed": 2, "delivered": 7, "pending": 0});
                    },
                ],
            ),
            (
                "planned is the sum of all states, and nothing is on its way",
                &[
                    |report| report.status["delivered"] = json!(6),
                    |report| report.status["unknown"] = json!(1),
                    |report| {
                        report.status["delivered"] = json!(6);
                        report.status["pending"] = json!(1);
                    },
                ],
            ),
            (
                "each order of today is confirmed once",
                &[
                    |report| report.confirmations.messages = 1,
                    |report| report.to_confirm = 3,
                    |report| {
                        report.to_confirm = 0;
                        report.confirmations.messages = 0;
                    },
                ],
            ),
            (
                "the gateway counted what the ledger says it took",
                &[
                    |report| report.simulator["distinct"] = json!(8),
                    |report| report.simulator["distinct"] = json!(10),
                    |report| report.simulator["distinct"] = Value::Null,
                    |report| report.confirmations.taken = 1,
                ],
            ),
            (
                "no message reached the gateway twice",
                &[
                    |report| report.simulator["duplicates"] = json!(1),
                    |report| report.simulator["duplicates"] = Value::Null,
                ],
            ),
            (
                "the audit finds no violation",
                &[
                    |report| report.audit["violations"] = json!(1),
                    |report| report.audit = Value::Null,
                ],
            ),
        ];
        assert_eq!(cases.len(), good().checks().len(), "every check has its cases");
        for (name, changes) in cases {
            for change in changes {
                let mut report = good();
                change(&mut report);
                let failed: Vec<&str> = report
                    .checks()
                    .into_iter()
                    .filter(|(_, holds, _)| !holds)
                    .map(|(what, ..)| what)
                    .collect();
                assert_eq!(failed, [name]);
                let failure = report.verdict().unwrap_err();
                assert_eq!(failure.code, crate::exit::NO);
                assert!(
                    failure.message.contains(&format!("FAILS  {name}")),
                    "{}",
                    failure.message
                );
            }
        }
        assert_eq!(crate::exit::NO, 1);
    }
}
