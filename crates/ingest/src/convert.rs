//! Between protobuf's well-known types and ours.

use domain::Contact;
use jiff::Timestamp;
use prost_types::{ListValue, Struct, Value, value::Kind};
use serde::ser::{Error, Serialize, SerializeMap, SerializeSeq, Serializer};
use serde_json::Map;

/// A Struct as JSON. Its numbers are doubles: one without a fraction up to 2^53 is written as an integer, so that `3`
/// does not become `3.0` in a text; one that is not finite has no JSON and is an error.
pub struct Json<'a>(pub &'a Struct);

struct Item<'a>(&'a Value);
struct List<'a>(&'a ListValue);

impl std::fmt::Debug for Json<'_> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Json(…)")
    }
}

impl Serialize for Json<'_> {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let mut map = serializer.serialize_map(Some(self.0.fields.len()))?;
        for (name, value) in &self.0.fields {
            map.serialize_entry(name, &Item(value))?;
        }
        map.end()
    }
}

impl Serialize for List<'_> {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let mut list = serializer.serialize_seq(Some(self.0.values.len()))?;
        for value in &self.0.values {
            list.serialize_element(&Item(value))?;
        }
        list.end()
    }
}

impl Serialize for Item<'_> {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        const EXACT: f64 = 9_007_199_254_740_992.0;
        match &self.0.kind {
            None | Some(Kind::NullValue(_)) => serializer.serialize_unit(),
            Some(Kind::BoolValue(value)) => serializer.serialize_bool(*value),
            Some(Kind::StringValue(text)) => serializer.serialize_str(text),
            Some(Kind::NumberValue(number)) if !number.is_finite() => {
                Err(S::Error::custom("a number that is not finite has no JSON"))
            }
            Some(Kind::NumberValue(number)) if number.fract() == 0.0 && number.abs() <= EXACT => {
                serializer.serialize_i64(*number as i64)
            }
            Some(Kind::NumberValue(number)) => serializer.serialize_f64(*number),
            Some(Kind::StructValue(fields)) => Json(fields).serialize(serializer),
            Some(Kind::ListValue(list)) => List(list).serialize(serializer),
        }
    }
}

/// A Struct as a JSON object.
pub fn to_map(fields: Option<&Struct>) -> Result<Map<String, serde_json::Value>, serde_json::Error> {
    match fields.map(|fields| serde_json::to_value(Json(fields))).transpose()? {
        Some(serde_json::Value::Object(map)) => Ok(map),
        _ => Ok(Map::new()),
    }
}

/// A JSON object as a Struct.
pub fn to_struct(map: Map<String, serde_json::Value>) -> Struct {
    Struct {
        fields: map.into_iter().map(|(name, value)| (name, to_value(value))).collect(),
    }
}

fn to_value(value: serde_json::Value) -> Value {
    let kind = match value {
        serde_json::Value::Null => Kind::NullValue(0),
        serde_json::Value::Bool(value) => Kind::BoolValue(value),
        serde_json::Value::Number(number) => Kind::NumberValue(number.as_f64().unwrap_or_default()),
        serde_json::Value::String(text) => Kind::StringValue(text),
        serde_json::Value::Array(values) => Kind::ListValue(ListValue {
            values: values.into_iter().map(to_value).collect(),
        }),
        serde_json::Value::Object(map) => Kind::StructValue(to_struct(map)),
    };
    Value { kind: Some(kind) }
}

/// A contact's fields by their names, as an upsert takes them; what is not set is absent.
pub fn contact_fields(contact: &Contact) -> Map<String, serde_json::Value> {
    contact.to_json()
}

/// An instant; `None` where protobuf's is none (outside of jiff's years -9999 to 9999, or nanoseconds out of range).
pub fn from_timestamp(time: prost_types::Timestamp) -> Option<Timestamp> {
    if !(0..1_000_000_000).contains(&time.nanos) {
        return None;
    }
    Timestamp::new(time.seconds, time.nanos).ok()
}

pub fn to_timestamp(time: Timestamp) -> prost_types::Timestamp {
    let (mut seconds, mut nanos) = (time.as_second(), time.subsec_nanosecond());
    // Before 1970 jiff counts nanoseconds backwards, protobuf always forwards.
    if nanos < 0 {
        seconds -= 1;
        nanos += 1_000_000_000;
    }
    prost_types::Timestamp { seconds, nanos }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn json_comes_back_as_it_went() {
        let object = json!({"a": 1, "b": [1.5, null, {"c": "é"}], "d": true, "e": -9007199254740991i64});
        let serde_json::Value::Object(map) = object else {
            panic!()
        };
        assert_eq!(to_map(Some(&to_struct(map.clone()))).unwrap(), map);
    }

    #[test]
    fn what_is_not_finite_is_refused() {
        let fields = [(
            "n".to_owned(),
            Value {
                kind: Some(Kind::NumberValue(f64::NAN)),
            },
        )];
        assert!(to_map(Some(&Struct { fields: fields.into() })).is_err());
    }

    #[test]
    fn instants_round_trip_and_the_impossible_is_none() {
        for text in ["1969-12-31T23:59:59.5Z", "2026-01-01T00:00:00.000000001Z"] {
            let time: Timestamp = text.parse().unwrap();
            assert_eq!(from_timestamp(to_timestamp(time)), Some(time));
        }
        let of = |seconds, nanos| from_timestamp(prost_types::Timestamp { seconds, nanos });
        assert_eq!(of(i64::MAX, 0), None);
        assert_eq!(of(0, -1), None);
    }
}
