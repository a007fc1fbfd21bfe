//! What a claim counts: caps of marketing messages to a contact, and messages an hour to a prefix.
//!
//! It is counted where it is exact, in the transaction of the claim. Claims for one contact, or for one limited prefix,
//! take their turns: two campaigns that are launched in the same moment cannot both see that there is room for one more.
//! Contacts are locked by [`BUCKETS`] advisory locks, prefixes by the row of their hour; always prefixes first, then
//! contacts, then messages, each in order. Without caps and limits nothing of this is asked.

use std::collections::{BTreeMap, BTreeSet, HashMap, HashSet};

use domain::{Class, Reason, State, contact::MARKETING};
use jiff::Timestamp;
use sqlx::Row;

use super::{ClaimWant, MessageRow, micros, rows};
use crate::{Store, StoreError, Tx, time::At};

/// The rules at the moment of a claim.
#[derive(Clone, Debug, Default)]
pub struct ClaimRules {
    /// Which rules these are, for the record of the decision.
    pub version: Option<String>,
    pub caps: Vec<CapRule>,
    /// What concerns each want, beside the wants; empty: nothing.
    pub each: Vec<WantRules>,
}

/// A cap on marketing messages to one contact.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct CapRule {
    /// Counted from this time on.
    pub since: Timestamp,
    /// At most so many.
    pub most: u32,
    /// It counts and stops messages of this purpose alone; absent: all marketing.
    pub purpose: Option<String>,
}

impl CapRule {
    fn counts(&self, purpose: &str) -> bool {
        self.purpose.as_deref().is_none_or(|own| own == purpose)
    }
}

#[derive(Clone, Debug, Default)]
pub struct WantRules {
    /// Known already: it does not go.
    pub refuse: Option<Reason>,
    /// What its contact must have consented to; absent: marketing.
    pub purpose: Option<String>,
    /// The limited prefixes that its phone begins with, and how many an hour each allows.
    pub destinations: Vec<(String, u32)>,
}

/// A prefix whose limit was reached for the first time in this hour.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Alarm {
    pub prefix: String,
    pub per_hour: u32,
}

/// An hour of a limited prefix, as it is kept.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct DestinationHour {
    pub prefix: String,
    pub hour: Timestamp,
    pub sent: i64,
    pub refused: i64,
    pub per_hour: i64,
    pub alarmed_at: Option<Timestamp>,
}

/// So many claims at most hold contacts at once; those of two contacts in one bucket wait for each other for nothing.
const BUCKETS: i32 = 1_024;
/// The space of the advisory locks: "caps" in ASCII.
const SPACE: i32 = 0x6361_7073;

/// What was counted and decided.
#[derive(Debug, Default)]
pub(super) struct Counted {
    /// Beside the wants.
    pub(super) refused: Vec<Option<Reason>>,
    pub(super) alarms: Vec<Alarm>,
}

/// An hour's count while a batch is decided on.
struct Hour {
    sent: u32,
    refused: u32,
    per_hour: u32,
    alarmed: bool,
}

impl Tx {
    /// Decides for each want whether a limit or the contact's own word stops it. `suppressed` are those that are stopped
    /// anyway.
    pub(super) async fn claim_limits(
        &mut self,
        wants: &[ClaimWant],
        suppressed: &[Option<Reason>],
        rules: &ClaimRules,
        now: Timestamp,
    ) -> Result<Counted, StoreError> {
        let none = WantRules::default();
        let of = |index: usize| rules.each.get(index).unwrap_or(&none);
        let mut refused: Vec<Option<Reason>> = (0..wants.len()).map(|index| of(index).refuse).collect();
        let hour = micros(hour_of(now));
        let mut limits: BTreeMap<&str, u32> = BTreeMap::new();
        for index in 0..wants.len() {
            for (prefix, per_hour) in &of(index).destinations {
                limits.insert(prefix, *per_hour);
            }
        }
        let mut hours = self.hours_lock(&limits, hour).await?;
        let marketing: BTreeSet<&str> = wants
            .iter()
            .filter(|want| want.class == Class::Marketing)
            .map(|want| want.contact_id.as_str())
            .collect();
        let marketing: Vec<&str> = marketing.into_iter().collect();
        let asked: BTreeSet<(&str, &str)> = wants
            .iter()
            .enumerate()
            .filter(|(_, want)| want.class == Class::Marketing)
            .map(|(index, want)| (want.contact_id.as_str(), purpose(of(index))))
            .collect();
        let unwilling = self.unwilling(&asked).await?;
        let capped = !rules.caps.is_empty() && !marketing.is_empty();
        if capped {
            self.contacts_turn(&marketing).await?;
        }
        let there = match capped || !hours.is_empty() {
            true => {
                let keys: Vec<rows::Key> = wants.iter().map(ClaimWant::key).collect();
                self.messages_lock(&keys).await?
            }
            false => HashMap::new(),
        };
        let mut sent = match capped {
            true => self.claimed_since(&marketing, rules).await?,
            false => HashMap::new(),
        };

        for (index, want) in wants.iter().enumerate() {
            if suppressed[index].is_some() || refused[index].is_some() {
                continue;
            }
            // What this claim cannot get is not counted: it is redelivered, or over.
            let waits = there.get(&want.key()).is_none_or(|row| is_waiting(row, want));
            if !waits {
                continue;
            }
            if want.class == Class::Marketing {
                let purpose = purpose(of(index));
                if unwilling.contains(&(want.contact_id.clone(), purpose.to_owned())) {
                    refused[index] = Some(Reason::NoConsent);
                    continue;
                }
                if capped {
                    let claimed = sent.entry(want.contact_id.clone()).or_default();
                    let reached = |cap: &CapRule| {
                        let counted = |(at, of): &&(Timestamp, String)| *at >= cap.since && cap.counts(of);
                        claimed.iter().filter(counted).count() >= cap.most as usize
                    };
                    if rules.caps.iter().any(|cap| cap.counts(purpose) && reached(cap)) {
                        refused[index] = Some(Reason::CapReached);
                        continue;
                    }
                }
            }
            // A retry was counted when it was first sent.
            if want.attempt == 0 {
                let destinations = &of(index).destinations;
                let full = destinations
                    .iter()
                    .any(|(prefix, _)| hours.get(prefix).is_some_and(|hour| hour.sent >= hour.per_hour));
                for (prefix, _) in destinations {
                    if let Some(hour) = hours.get_mut(prefix) {
                        match full {
                            false => hour.sent = hour.sent.saturating_add(1),
                            true if hour.sent >= hour.per_hour => hour.refused = hour.refused.saturating_add(1),
                            true => {}
                        }
                    }
                }
                if full {
                    refused[index] = Some(Reason::DestinationLimit);
                    continue;
                }
            }
            if want.class == Class::Marketing
                && let Some(claimed) = sent.get_mut(&want.contact_id)
            {
                claimed.push((now, purpose(of(index)).to_owned()));
            }
        }
        let alarms = hours
            .iter()
            .filter(|(_, hour)| hour.refused > 0 && !hour.alarmed)
            .map(|(prefix, hour)| Alarm {
                prefix: prefix.clone(),
                per_hour: hour.per_hour,
            })
            .collect();
        self.hours_write(&hours, hour, now).await?;
        Ok(Counted { refused, alarms })
    }

    /// The hour's counts of these prefixes, locked.
    async fn hours_lock(
        &mut self,
        limits: &BTreeMap<&str, u32>,
        hour: Timestamp,
    ) -> Result<BTreeMap<String, Hour>, StoreError> {
        if limits.is_empty() {
            return Ok(BTreeMap::new());
        }
        let prefixes: Vec<&str> = limits.keys().copied().collect();
        let most: Vec<i32> = limits
            .values()
            .map(|most| i32::try_from(*most).unwrap_or(i32::MAX))
            .collect();
        sqlx::query(
            "insert into destination_hours (prefix, hour, per_hour)
             select prefix, $3, per_hour from unnest($1::text[], $2::integer[]) v (prefix, per_hour) order by prefix
             on conflict do nothing",
        )
        .bind(&prefixes)
        .bind(&most)
        .bind(At(hour))
        .execute(&mut *self.inner)
        .await?;
        let rows = sqlx::query(
            "select prefix, sent, alarmed_at is not null as alarmed from destination_hours
             where prefix = any($1) and hour = $2 order by prefix for update",
        )
        .bind(&prefixes)
        .bind(At(hour))
        .fetch_all(&mut *self.inner)
        .await?;
        rows.iter()
            .map(|row| {
                let prefix: String = row.try_get("prefix")?;
                let per_hour = limits.get(prefix.as_str()).copied().unwrap_or_default();
                let hour = Hour {
                    sent: u32::try_from(row.try_get::<i32, _>("sent")?).unwrap_or_default(),
                    refused: 0,
                    per_hour,
                    alarmed: row.try_get("alarmed")?,
                };
                Ok((prefix, hour))
            })
            .collect()
    }

    async fn hours_write(
        &mut self,
        hours: &BTreeMap<String, Hour>,
        hour: Timestamp,
        now: Timestamp,
    ) -> Result<(), StoreError> {
        if hours.is_empty() {
            return Ok(());
        }
        let number = |of: fn(&Hour) -> u32| {
            let numbers = hours.values().map(|hour| i32::try_from(of(hour)).unwrap_or(i32::MAX));
            numbers.collect::<Vec<i32>>()
        };
        sqlx::query(
            "update destination_hours d
             set sent = v.sent, refused = d.refused + v.refused, per_hour = v.per_hour,
                 alarmed_at = coalesce(d.alarmed_at, case when v.refused > 0 then $6 end)
             from unnest($1::text[], $2::integer[], $3::integer[], $4::integer[]) v (prefix, sent, refused, per_hour)
             where d.prefix = v.prefix and d.hour = $5",
        )
        .bind(hours.keys().collect::<Vec<_>>())
        .bind(number(|hour| hour.sent))
        .bind(number(|hour| hour.refused))
        .bind(number(|hour| hour.per_hour))
        .bind(At(hour))
        .bind(At(now))
        .execute(&mut *self.inner)
        .await?;
        Ok(())
    }

    /// Waits until no other claim is counting these contacts; until the transaction ends none will.
    async fn contacts_turn(&mut self, contacts: &[&str]) -> Result<(), StoreError> {
        sqlx::query(
            "select pg_advisory_xact_lock($2, bucket) from (
                 select distinct hashtext(id) & $3 as bucket from unnest($1::text[]) u (id) order by 1
             ) b",
        )
        .bind(contacts)
        .bind(SPACE)
        .bind(BUCKETS - 1)
        .execute(&mut *self.inner)
        .await?;
        Ok(())
    }

    /// Those of these (contact, purpose) whose contact is known and does not consent to the purpose (any more).
    async fn unwilling(&mut self, asked: &BTreeSet<(&str, &str)>) -> Result<HashSet<(String, String)>, StoreError> {
        if asked.is_empty() {
            return Ok(HashSet::new());
        }
        let (contacts, purposes): (Vec<&str>, Vec<&str>) = asked.iter().copied().unzip();
        let unwilling: Vec<(String, String)> = sqlx::query_as(
            "select v.id, v.purpose from unnest($1::text[], $2::text[]) v (id, purpose) cross join lateral (
                 select id from contacts where contacts.id = v.id and not case v.purpose
                     when $3 then marketing_consent is true
                     else coalesce((consents ->> v.purpose) <> 'false', false) end
                 offset 0
             ) c",
        )
        .bind(contacts)
        .bind(purposes)
        .bind(MARKETING)
        .fetch_all(&mut *self.inner)
        .await?;
        Ok(unwilling.into_iter().collect())
    }

    /// When these contacts' marketing messages were claimed that count against a cap, since the earliest of the caps, and
    /// their purposes.
    async fn claimed_since(
        &mut self,
        contacts: &[&str],
        rules: &ClaimRules,
    ) -> Result<HashMap<String, Vec<(Timestamp, String)>>, StoreError> {
        let earliest = rules.caps.iter().map(|cap| cap.since).min().unwrap_or(Timestamp::MAX);
        let counted = [State::Sending, State::Unknown, State::Accepted, State::Delivered].map(State::code);
        let rows: Vec<(String, At, String)> = sqlx::query_as(
            "select m.* from unnest($1::text[]) v (id) cross join lateral (
                 select contact_id, claimed_at, coalesce(purpose, $4) from messages
                 where contact_id = v.id and class = 1 and state = any($2) and claimed_at >= $3 offset 0
             ) m",
        )
        .bind(contacts)
        .bind(&counted[..])
        .bind(At(earliest))
        .bind(MARKETING)
        .fetch_all(&mut *self.inner)
        .await?;
        let mut claimed: HashMap<String, Vec<(Timestamp, String)>> = HashMap::new();
        for (contact, at, purpose) in rows {
            claimed.entry(contact).or_default().push((at.0, purpose));
        }
        Ok(claimed)
    }
}

/// What a want's contact must have consented to.
fn purpose(rules: &WantRules) -> &str {
    rules.purpose.as_deref().unwrap_or(MARKETING)
}

/// Whether a claim can get the message that has this row.
fn is_waiting(row: &MessageRow, want: &ClaimWant) -> bool {
    matches!(row.state, State::Queued | State::Deferred) && row.attempt <= want.attempt
}

fn hour_of(now: Timestamp) -> Timestamp {
    let second = now.as_second();
    Timestamp::from_second(second - second.rem_euclid(3_600)).unwrap_or(now)
}

impl Store {
    /// The hours of limited prefixes since `since`, the newest first: what was sent, refused, and when the alarm was.
    pub async fn destination_hours(&self, since: Timestamp, limit: i64) -> Result<Vec<DestinationHour>, StoreError> {
        let rows = sqlx::query(
            "select prefix, hour, sent::int8 as sent, refused::int8 as refused, per_hour::int8 as per_hour, alarmed_at
             from destination_hours where hour >= $1 order by hour desc, prefix limit $2",
        )
        .bind(At(since))
        .bind(limit)
        .fetch_all(&self.pool)
        .await?;
        rows.iter()
            .map(|row| {
                Ok(DestinationHour {
                    prefix: row.try_get("prefix")?,
                    hour: row.try_get::<At, _>("hour")?.0,
                    sent: row.try_get("sent")?,
                    refused: row.try_get("refused")?,
                    per_hour: row.try_get("per_hour")?,
                    alarmed_at: row.try_get::<Option<At>, _>("alarmed_at")?.map(|at| at.0),
                })
            })
            .collect()
    }

    /// Forgets hours without an alarm from before `before`.
    pub async fn destination_hours_prune(&self, before: Timestamp) -> Result<u64, StoreError> {
        let done = sqlx::query("delete from destination_hours where hour < $1 and alarmed_at is null")
            .bind(At(before))
            .execute(&self.pool)
            .await?;
        Ok(done.rows_affected())
    }
}

/// For [`Alarm`]s: a message's id is of no use in it, its prefix is all that is told.
impl std::fmt::Display for Alarm {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "more than {} messages an hour to {}", self.per_hour, self.prefix)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_hour_begins_where_it_does() {
        let at = |text: &str| text.parse::<Timestamp>().unwrap();
        assert_eq!(hour_of(at("2026-11-24T08:59:59.9Z")), at("2026-11-24T08:00:00Z"));
        assert_eq!(hour_of(at("2026-11-24T09:00:00Z")), at("2026-11-24T09:00:00Z"));
    }
}
