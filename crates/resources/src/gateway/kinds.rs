//! The choices of a gateway that have names.

use serde::{Deserialize, Serialize};

#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum GatewayKind {
    Smpp,
    Http,
}

/// Which SMPP sessions there are.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Bind {
    /// Dispatchers transmit; the receipt collector receives.
    #[default]
    TransmitterReceiver,
    /// Dispatchers do both on one connection, for gateways that allow no other.
    Transceiver,
}

/// The version of SMPP that a bind says. What we use of 5.0 gateways of 3.4 know as TLVs, so 3.4 serves nearly always.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub enum SmppVersion {
    #[default]
    #[serde(rename = "3.4")]
    V34,
    #[serde(rename = "5.0")]
    V50,
}

/// How a text of several parts is handed over.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum LongText {
    /// Our own parts, each with a user data header (3GPP 23.040, 9.2.3.24.1).
    #[default]
    Udh,
    /// Our own parts, numbered by `sar_…` TLVs.
    Sar,
    /// The whole text in `message_payload`; the gateway splits it.
    Payload,
}

/// How a receipt's id relates to the one in the answer to the submission. Gateways are known to answer in one base and
/// to report in the other, with and without leading zeros.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum ReceiptIds {
    /// The same id; else, where it has 8 characters or more without leading zeros, the same number in the other base. A
    /// gateway that counts small numbers and reports in another base is `hex` or `decimal`.
    #[default]
    Auto,
    /// The same id.
    Same,
    /// Receipts are hexadecimal, answers decimal.
    Hex,
    /// Receipts are decimal, answers hexadecimal.
    Decimal,
}

/// Message classes by their words.
pub(super) mod classes {
    use domain::Class;
    use serde::{Deserialize as _, Deserializer, Serializer, de::Error as _, ser::SerializeSeq as _};

    pub(crate) fn serialize<S: Serializer>(classes: &[Class], serializer: S) -> Result<S::Ok, S::Error> {
        let mut words = serializer.serialize_seq(Some(classes.len()))?;
        for class in classes {
            words.serialize_element(class.as_str())?;
        }
        words.end()
    }

    pub(crate) fn deserialize<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Vec<Class>, D::Error> {
        Vec::<String>::deserialize(deserializer)?
            .iter()
            .map(|word| word.parse().map_err(D::Error::custom))
            .collect()
    }
}
