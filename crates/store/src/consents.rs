//! The proof of consent: who said what of which purpose, when, where and in which words (GDPR art. 7.1).
//!
//! A row is written for each change of a consent, and for a proof that was not known yet (the words of a consent that was
//! imported before). Rows are never changed; they are gone when their contact is erased.

use domain::{
    Consent, Contact,
    contact::{ContactChange, MARKETING},
};
use jiff::Timestamp;
use sqlx::Row;

use crate::{
    Store, StoreError, Tx,
    time::{At, at, from_at},
};

/// A line of the log.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ConsentEntry {
    pub purpose: String,
    pub given: bool,
    /// When it was said.
    pub at: Timestamp,
    /// Where it was said; where nobody told, how we heard of it: `import`, `api`, `events`, `reply`.
    pub source: String,
    pub wording: Option<String>,
    /// Whose key it came with.
    pub recorded_by: String,
    /// When we heard of it, by our clock; unknown of what is from before this was kept.
    pub recorded_at: Option<Timestamp>,
}

/// What a change of a contact says of a purpose.
#[derive(Debug)]
pub(crate) struct Said<'a> {
    contact_id: &'a str,
    purpose: String,
    given: bool,
    at: Option<Timestamp>,
    source: Option<&'a str>,
    wording: Option<&'a str>,
    /// The consent is another than before; otherwise only its proof may be new.
    changed: bool,
}

impl<'a> Said<'a> {
    /// Adds what `change` says, which made `after` of `before`.
    pub(crate) fn add(change: &'a ContactChange, before: Option<&Contact>, after: &Contact, said: &mut Vec<Said<'a>>) {
        if change.marketing_consent.is_none() && change.consents.is_empty() && !change.withdraws_all {
            return;
        }
        for purpose in std::iter::once(MARKETING).chain(after.consents.keys().map(String::as_str)) {
            let was = before.map_or(Consent::Unset, |before| before.consent_to(purpose));
            let is = after.consent_to(purpose);
            let changed = is != was && (is != Consent::Unset || was.is_given());
            let proof = change.consents.iter().find(|said| said.purpose == purpose);
            let proven = proof.is_some_and(|proof| proof.source.is_some() || proof.wording.is_some());
            if !changed && !proven {
                continue;
            }
            said.push(Said {
                contact_id: &change.id,
                purpose: purpose.to_owned(),
                given: is.is_given(),
                at: match is {
                    Consent::Given(Some(at)) => Some(at),
                    _ => proof.and_then(|proof| proof.at),
                },
                source: proof.and_then(|proof| proof.source.as_deref()),
                wording: proof.and_then(|proof| proof.wording.as_deref()),
                changed,
            });
        }
    }
}

impl Tx {
    /// Writes down what was said, in its order. A proof of an unchanged consent that is there already is not written again.
    pub(crate) async fn consents_log(
        &mut self,
        said: &[Said<'_>],
        by: &str,
        source: &str,
        now: Timestamp,
    ) -> Result<(), StoreError> {
        if said.is_empty() {
            return Ok(());
        }
        sqlx::query(
            "insert into consent_log (contact_id, purpose, given, at, source, wording, recorded_by, recorded_at)
             select n.contact_id, n.purpose, n.given, coalesce(n.at, $9), coalesce(n.source, $8), n.wording, $10, $9
             from unnest($1::text[], $2::text[], $3::boolean[], $4::timestamptz[], $5::text[], $6::text[], $7::boolean[])
                  with ordinality as n (contact_id, purpose, given, at, source, wording, changed, place)
             where n.changed or not exists (
                 select from consent_log l
                 where l.contact_id = n.contact_id and l.purpose = n.purpose and l.given = n.given
                   and l.source = coalesce(n.source, $8) and l.wording is not distinct from n.wording
             )
             order by n.place",
        )
        .bind(said.iter().map(|said| said.contact_id).collect::<Vec<_>>())
        .bind(said.iter().map(|said| said.purpose.as_str()).collect::<Vec<_>>())
        .bind(said.iter().map(|said| said.given).collect::<Vec<_>>())
        .bind(said.iter().map(|said| at(said.at)).collect::<Vec<_>>())
        .bind(said.iter().map(|said| said.source).collect::<Vec<_>>())
        .bind(said.iter().map(|said| said.wording).collect::<Vec<_>>())
        .bind(said.iter().map(|said| said.changed).collect::<Vec<_>>())
        .bind(source)
        .bind(At(now))
        .bind(by)
        .execute(&mut *self.inner)
        .await?;
        Ok(())
    }
}

impl Store {
    /// What a contact said of all purposes, the latest first, up to `limit` lines.
    pub async fn consents_of(&self, contact_id: &str, limit: i64) -> Result<Vec<ConsentEntry>, StoreError> {
        let rows = sqlx::query(
            "select purpose, given, at, source, wording, recorded_by, recorded_at from consent_log
             where contact_id = $1 order by id desc limit $2",
        )
        .bind(contact_id)
        .bind(limit)
        .fetch_all(&self.pool)
        .await?;
        rows.iter()
            .map(|row| {
                Ok(ConsentEntry {
                    purpose: row.try_get("purpose")?,
                    given: row.try_get("given")?,
                    at: row.try_get::<At, _>("at")?.0,
                    source: row.try_get("source")?,
                    wording: row.try_get("wording")?,
                    recorded_by: row.try_get("recorded_by")?,
                    recorded_at: from_at(row.try_get::<Option<At>, _>("recorded_at")?),
                })
            })
            .collect()
    }
}
