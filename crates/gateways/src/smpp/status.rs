//! What a command status in the answer to a submission means (SMPP 3.4, 5.1.3; SMPP 5.0, 4.7.6).

use std::collections::BTreeMap;

use domain::Reason;
use resources::gateway::{Meaning, smpp_code};

pub(crate) const OK: u32 = 0x00;
pub(crate) const INVALID_BIND_STATUS: u32 = 0x04;
pub(crate) const THROTTLED: u32 = 0x58;
/// "ESME Receiver temporary app error": bring it again later.
pub(crate) const RECEIVER_TEMPORARY: u32 = 0x64;

/// Statuses with a meaning of their own at this gateway, over the protocol's.
#[derive(Clone, Debug, Default)]
pub(crate) struct Catalogue(BTreeMap<u32, Meaning>);

impl Catalogue {
    pub(crate) fn new(own: &BTreeMap<String, Meaning>) -> Catalogue {
        Catalogue(
            own.iter()
                .filter_map(|(code, meaning)| Some((smpp_code(code)?, *meaning)))
                .collect(),
        )
    }

    /// The meaning of a status that is not OK.
    pub(crate) fn meaning(&self, status: u32) -> Meaning {
        if let Some(own) = self.0.get(&status) {
            return *own;
        }
        match status {
            // Not in the state for it, a system error, a full queue, a temporary application error.
            INVALID_BIND_STATUS | 0x08 | 0x14 | RECEIVER_TEMPORARY => Meaning::Retry,
            THROTTLED => Meaning::Throttled,
            // submit_sm failed, unknown error: it does not say whether the message was taken.
            0x45 | 0xFF => Meaning::Unknown,
            // An invalid destination address, its type or its plan; delivery failure.
            0x0B | 0x50 | 0x51 | 0xFE => Meaning::Undeliverable,
            // Any other is an error of the request, or a vendor's own that the resource does not explain: the request
            // failed, which is what a status says, and the code is kept as it came.
            _ => Meaning::Refused,
        }
    }
}

/// The code as the ledger keeps it.
pub(crate) fn code(status: u32) -> String {
    format!("0x{status:08x}")
}

pub(crate) fn reason(meaning: Meaning) -> Reason {
    match meaning {
        Meaning::Undeliverable => Reason::Undeliverable,
        _ => Reason::GatewayRefused,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_resources_own_meaning_comes_first() {
        let own = BTreeMap::from([
            ("0x0400".to_owned(), Meaning::Throttled),
            ("0x45".into(), Meaning::Retry),
        ]);
        let catalogue = Catalogue::new(&own);
        assert_eq!(catalogue.meaning(0x400), Meaning::Throttled);
        assert_eq!(catalogue.meaning(0x45), Meaning::Retry);
        assert_eq!(Catalogue::default().meaning(0x45), Meaning::Unknown);
        assert_eq!(Catalogue::default().meaning(0x400), Meaning::Refused);
        assert_eq!(code(0x58), "0x00000058");
    }
}
