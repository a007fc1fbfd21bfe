//! Instants and dates between jiff and PostgreSQL, in the binary protocol: a `timestamptz` is microseconds and a `date`
//! days since 2000-01-01 (PostgreSQL 15 documentation, 8.5 and `src/include/datatype/timestamp.h`).

use jiff::{Timestamp, civil::Date};
use sqlx::{
    Decode, Encode, Postgres, Type,
    encode::IsNull,
    error::BoxDynError,
    postgres::{PgArgumentBuffer, PgHasArrayType, PgTypeInfo, PgValueFormat, PgValueRef, types::Oid},
};

// The types are declared by their fixed numbers (`pg_type.dat`). By name, sqlx would ask for the number between preparing
// and executing a statement, which for an unnamed statement (`persistent(false)`) puts the question in its place.

/// 2000-01-01T00:00:00Z in microseconds since 1970.
const EPOCH_MICROS: i64 = 946_684_800_000_000;
const EPOCH_DAYS: i64 = 10_957;

/// A `timestamptz`; PostgreSQL keeps microseconds, what is finer is cut off.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct At(pub Timestamp);

/// A `date`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Day(pub Date);

impl Type<Postgres> for At {
    fn type_info() -> PgTypeInfo {
        PgTypeInfo::with_oid(Oid(1184))
    }
}

impl PgHasArrayType for At {
    fn array_type_info() -> PgTypeInfo {
        PgTypeInfo::with_oid(Oid(1185))
    }
}

impl Encode<'_, Postgres> for At {
    fn encode_by_ref(&self, buffer: &mut PgArgumentBuffer) -> Result<IsNull, BoxDynError> {
        <i64 as Encode<Postgres>>::encode_by_ref(&(self.0.as_microsecond() - EPOCH_MICROS), buffer)
    }
}

impl Decode<'_, Postgres> for At {
    fn decode(value: PgValueRef<'_>) -> Result<Self, BoxDynError> {
        if value.format() != PgValueFormat::Binary {
            return Err("expected a timestamptz in the binary format".into());
        }
        let micros = i64::from_be_bytes(value.as_bytes()?.try_into()?);
        let micros = micros.checked_add(EPOCH_MICROS).ok_or("timestamptz out of range")?;
        Ok(At(Timestamp::from_microsecond(micros)?))
    }
}

impl Type<Postgres> for Day {
    fn type_info() -> PgTypeInfo {
        PgTypeInfo::with_oid(Oid(1082))
    }
}

impl PgHasArrayType for Day {
    fn array_type_info() -> PgTypeInfo {
        PgTypeInfo::with_oid(Oid(1182))
    }
}

impl Encode<'_, Postgres> for Day {
    fn encode_by_ref(&self, buffer: &mut PgArgumentBuffer) -> Result<IsNull, BoxDynError> {
        let unix = Date::constant(1970, 1, 1);
        let days = i64::from((self.0 - unix).get_days()) - EPOCH_DAYS;
        <i32 as Encode<Postgres>>::encode_by_ref(&i32::try_from(days)?, buffer)
    }
}

impl Decode<'_, Postgres> for Day {
    fn decode(value: PgValueRef<'_>) -> Result<Self, BoxDynError> {
        if value.format() != PgValueFormat::Binary {
            return Err("expected a date in the binary format".into());
        }
        let days = i32::from_be_bytes(value.as_bytes()?.try_into()?);
        let span = jiff::Span::new().try_days(i64::from(days))?;
        Ok(Day(Date::constant(2000, 1, 1).checked_add(span)?))
    }
}

/// `Option`s of instants, both ways.
pub(crate) fn at(time: Option<Timestamp>) -> Option<At> {
    time.map(At)
}

pub(crate) fn from_at(time: Option<At>) -> Option<Timestamp> {
    time.map(|at| at.0)
}
