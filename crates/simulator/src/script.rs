//! What the simulator is to do wrong.

use serde::{Deserialize, Serialize};

/// A script of faults, as TOML or JSON. Percentages are of messages' parts; 0 turns a fault off.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Script {
    pub seed: u64,

    // --- submissions
    /// How the ids in answers are written.
    pub ids: Ids,
    /// Zeros before ids, up to this length.
    pub id_width: usize,
    /// Answers wait this long, and up to the second more.
    pub response_delay_ms: u64,
    pub response_jitter_ms: u64,
    /// And longer still, exponentially distributed around this: a long tail. 0: none.
    pub response_tail_ms: u64,
    /// Parts a second over all connections; what is more is throttled. 0: no limit.
    pub rate: u32,
    /// Throttled whatever the rate.
    pub throttled_percent: f64,
    /// Refused for good: an invalid destination.
    pub refused_percent: f64,
    /// Refused for now: a full queue.
    pub busy_percent: f64,
    /// Taken and answered with "submit failed", which says nothing.
    pub ambiguous_percent: f64,
    /// Taken and never answered.
    pub silent_percent: f64,
    /// The connection is cut after every so many submissions, the last of which is taken and not answered.
    pub cut_every: u64,
    /// The connection ends in the middle of the answer to every so many submissions: half of it comes.
    pub half_every: u64,
    /// Instead of the answer to every so many submissions come bytes that are no PDU.
    pub garbage_every: u64,
    /// Binds are refused.
    pub refuse_binds: bool,

    // --- receipts
    pub receipts: bool,
    pub receipt_delay_ms: u64,
    pub receipt_jitter_ms: u64,
    /// As `response_tail_ms`.
    pub receipt_tail_ms: u64,
    pub receipt_ids: Ids,
    pub receipt_id_width: usize,
    /// Say the id and the state in TLVs, or in the text alone.
    pub receipt_tlvs: bool,
    /// Repeat the client reference in the receipt.
    pub receipt_references: bool,
    pub failed_percent: f64,
    pub expired_percent: f64,
    /// The state is a word that nobody knows.
    pub unknown_percent: f64,
    pub lost_percent: f64,
    pub duplicate_percent: f64,
    /// Parts of which a receipt says that they are on their way (ENROUTE, `sent`), beside the one that says how they end
    /// and also where that one is lost: half of them come before its time, half after it.
    pub enroute_percent: f64,
    /// Receipts that come `late_ms` after their time.
    pub late_percent: f64,
    pub late_ms: u64,
    /// Receipts that come before the answer to the submission, which is held back for `early_ms`.
    pub early_percent: f64,
    pub early_ms: u64,

    // --- HTTP
    /// Where receipts and replies of HTTP gateways go when the request says nothing.
    pub callback_url: Option<String>,
}

/// How an id is written. All are the same number.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Ids {
    #[default]
    Decimal,
    Hex,
    /// Hexadecimal in capitals.
    UpperHex,
}

#[derive(Debug, thiserror::Error)]
pub enum ScriptError {
    #[error("the script is neither JSON nor TOML as expected: {0}")]
    Malformed(String),
    #[error("`{key}`: expected a percentage from 0 to 100")]
    Percent { key: &'static str },
    #[error("`{key}`: expected at most {limit}")]
    TooMuch { key: &'static str, limit: u64 },
}

impl Default for Script {
    fn default() -> Self {
        Script {
            seed: 1,
            ids: Ids::Decimal,
            id_width: 0,
            response_delay_ms: 0,
            response_jitter_ms: 0,
            response_tail_ms: 0,
            rate: 0,
            throttled_percent: 0.0,
            refused_percent: 0.0,
            busy_percent: 0.0,
            ambiguous_percent: 0.0,
            silent_percent: 0.0,
            cut_every: 0,
            half_every: 0,
            garbage_every: 0,
            refuse_binds: false,
            receipts: true,
            receipt_delay_ms: 500,
            receipt_jitter_ms: 500,
            receipt_tail_ms: 0,
            receipt_ids: Ids::Decimal,
            receipt_id_width: 0,
            receipt_tlvs: true,
            receipt_references: false,
            failed_percent: 0.0,
            expired_percent: 0.0,
            unknown_percent: 0.0,
            lost_percent: 0.0,
            duplicate_percent: 0.0,
            enroute_percent: 0.0,
            late_percent: 0.0,
            late_ms: 5_000,
            early_percent: 0.0,
            early_ms: 200,
            callback_url: None,
        }
    }
}

impl Script {
    /// Reads a script; what it does not say is at its default.
    pub fn parse(text: &str) -> Result<Script, ScriptError> {
        let script: Script = if text.trim_start().starts_with('{') {
            serde_json::from_str(text).map_err(|error| ScriptError::Malformed(error.to_string()))?
        } else {
            toml::from_str(text).map_err(|error| ScriptError::Malformed(error.to_string()))?
        };
        script.check()?;
        Ok(script)
    }

    fn check(&self) -> Result<(), ScriptError> {
        for (key, percent) in [
            ("throttled_percent", self.throttled_percent),
            ("refused_percent", self.refused_percent),
            ("busy_percent", self.busy_percent),
            ("ambiguous_percent", self.ambiguous_percent),
            ("silent_percent", self.silent_percent),
            ("failed_percent", self.failed_percent),
            ("expired_percent", self.expired_percent),
            ("unknown_percent", self.unknown_percent),
            ("lost_percent", self.lost_percent),
            ("duplicate_percent", self.duplicate_percent),
            ("enroute_percent", self.enroute_percent),
            ("late_percent", self.late_percent),
            ("early_percent", self.early_percent),
        ] {
            if !(0.0..=100.0).contains(&percent) {
                return Err(ScriptError::Percent { key });
            }
        }
        const DAY_MS: u64 = 86_400_000;
        for (key, value, limit) in [
            ("response_delay_ms", self.response_delay_ms, DAY_MS),
            ("response_jitter_ms", self.response_jitter_ms, DAY_MS),
            ("response_tail_ms", self.response_tail_ms, DAY_MS),
            ("receipt_delay_ms", self.receipt_delay_ms, DAY_MS),
            ("receipt_jitter_ms", self.receipt_jitter_ms, DAY_MS),
            ("receipt_tail_ms", self.receipt_tail_ms, DAY_MS),
            ("late_ms", self.late_ms, DAY_MS),
            ("early_ms", self.early_ms, DAY_MS),
            ("id_width", self.id_width as u64, 60),
            ("receipt_id_width", self.receipt_id_width as u64, 60),
        ] {
            if value > limit {
                return Err(ScriptError::TooMuch { key, limit });
            }
        }
        Ok(())
    }
}

impl Ids {
    pub(crate) fn write(self, id: u64, width: usize) -> String {
        match self {
            Ids::Decimal => format!("{id:0width$}"),
            Ids::Hex => format!("{id:0width$x}"),
            Ids::UpperHex => format!("{id:0width$X}"),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn scripts_are_read_from_toml_and_json_and_mistakes_are_told() {
        let toml = Script::parse("seed = 7\nreceipt_ids = \"upper-hex\"\nlost_percent = 3").unwrap();
        assert_eq!(
            (toml.seed, toml.receipt_ids, toml.lost_percent),
            (7, Ids::UpperHex, 3.0)
        );
        assert_eq!(Script::parse(r#"{"seed":7}"#).unwrap().seed, 7);
        assert_eq!(Script::parse("").unwrap(), Script::default());
        assert!(Script::parse("sede = 7").unwrap_err().to_string().contains("sede"));
        assert!(
            Script::parse("lost_percent = 101")
                .unwrap_err()
                .to_string()
                .contains("lost_percent")
        );
        assert_eq!(Ids::UpperHex.write(0xAB, 8), "000000AB");
    }
}
