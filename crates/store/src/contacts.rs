//! Contacts: read, changed and erased, many at a time.
//!
//! A change names only the fields that it sets or unsets. The rows are read and merged here; those that come to something
//! else are made, or locked and looked at once more, in id order. So the same change again writes nothing and waits for
//! nobody. Each change of consent is written to the consent log ([`crate::consents`]) with its proof and who recorded it
//! (GDPR art. 7.1).

use std::collections::{BTreeMap, HashMap, HashSet};

pub use domain::contact::ContactChange;
use domain::{Consent, Contact, Phone};
use jiff::Timestamp;
use serde_json::{Map, Value};
use sqlx::{Row, postgres::PgRow, types::Json};

use crate::{
    Store, StoreError, Tx,
    consents::Said,
    time::{At, Day, at},
};

/// What a change came to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Change {
    Created,
    Updated,
    Unchanged,
}

pub(crate) const COLUMNS: &str =
    "id, phone, first_name, last_name, gender, birth_date, city, region, postal_code, language,
    time_zone, marketing_consent, consent_at, attributes, consents";

/// From so many new contacts on they are inserted without looking for each: it costs two more round trips.
const PLAINLY: usize = 100;

/// Inserts $1 to $15 in id order ([`columns`]), at $16.
macro_rules! insert {
    ($ends:literal) => {
        concat!(
            "insert into contacts (id, phone, first_name, last_name, gender, birth_date, city, region, postal_code, language,
                 time_zone, marketing_consent, consent_at, attributes, consents, created_at, updated_at)
             select n.*, $16, $16
             from unnest($1::text[], $2::text[], $3::text[], $4::text[], $5::text[], $6::date[], $7::text[], $8::text[],
                         $9::text[], $10::text[], $11::text[], $12::boolean[], $13::timestamptz[], $14::jsonb[],
                         $15::jsonb[]) as n (id)
             order by n.id ",
            $ends
        )
    };
}

impl Store {
    pub async fn contact_get(&self, id: &str) -> Result<Option<Contact>, StoreError> {
        let row = sqlx::query(sqlx::AssertSqlSafe(format!(
            "select {COLUMNS} from contacts where id = $1"
        )))
        .bind(id)
        .fetch_optional(&self.pool)
        .await?;
        row.as_ref().map(read).transpose()
    }

    /// All contacts that there are.
    pub async fn contacts_count(&self) -> Result<i64, StoreError> {
        Ok(sqlx::query_scalar("select count(*) from contacts")
            .fetch_one(&self.pool)
            .await?)
    }
}

impl Tx {
    /// Those of these contacts that are known, by id.
    pub async fn contacts_get(&mut self, ids: &[&str]) -> Result<HashMap<String, Contact>, StoreError> {
        self.contacts_select(ids, "offset 0").await
    }

    /// `how` ends each look-up (and keeps the planner from turning it round): `offset 0`, or `for update`, which locks in
    /// the order of the ids.
    pub(crate) async fn contacts_select(
        &mut self,
        ids: &[&str],
        how: &str,
    ) -> Result<HashMap<String, Contact>, StoreError> {
        if ids.is_empty() {
            return Ok(HashMap::new());
        }
        let rows = sqlx::query(sqlx::AssertSqlSafe(format!(
            "select c.* from (select distinct id from unnest($1::text[]) as v (id) order by 1) v
             cross join lateral (select {COLUMNS} from contacts where contacts.id = v.id {how}) c"
        )))
        .bind(ids)
        .fetch_all(&mut *self.inner)
        .await?;
        rows.iter()
            .map(|row| {
                let contact = read(row)?;
                Ok((contact.id.clone(), contact))
            })
            .collect()
    }

    /// Creates and changes contacts, in the order given; the answer is in the same order. `by` and `source` go into the
    /// consent log.
    pub async fn contacts_upsert(
        &mut self,
        changes: &[ContactChange],
        by: &str,
        source: &str,
        now: Timestamp,
    ) -> Result<Vec<Change>, StoreError> {
        self.contacts_change(changes, false, by, source, now).await
    }

    /// The same where nobody is thought to be there yet, as in a file whose rows so far were new: that is tried first.
    pub async fn contacts_create(
        &mut self,
        changes: &[ContactChange],
        by: &str,
        source: &str,
        now: Timestamp,
    ) -> Result<Vec<Change>, StoreError> {
        self.contacts_change(changes, true, by, source, now).await
    }

    async fn contacts_change(
        &mut self,
        changes: &[ContactChange],
        fresh: bool,
        by: &str,
        source: &str,
        now: Timestamp,
    ) -> Result<Vec<Change>, StoreError> {
        if fresh {
            let nobody = HashMap::new();
            let merged = merge(changes, &nobody);
            if let Some(made) = self.contacts_insert_plainly(&merged.touched(&nobody), now).await? {
                self.strangers_no_more(&made).await?;
                self.consents_log(&merged.said, by, source, now).await?;
                return Ok(merged.answers);
            }
        }
        let ids: Vec<&str> = changes.iter().map(|change| change.id.as_str()).collect();
        let mut before = self.contacts_get(&ids).await?;
        let mut merged = merge(changes, &before);
        let touched = merged.touched(&before);
        // First made, then locked, each in id order: who waits for a contact that another is making holds nothing that the
        // other still asks for. So two batches wait for each other and do not deadlock.
        let (fresh, old): (Vec<&Contact>, Vec<&Contact>) = touched
            .into_iter()
            .partition(|contact| !before.contains_key(&contact.id));
        let made = self.contacts_insert(&fresh, now).await?;
        // What we made nobody else sees yet: it is ours without a lock.
        let mut others: Vec<&str> = old.iter().chain(&fresh).map(|contact| contact.id.as_str()).collect();
        others.retain(|id| !made.contains(*id));
        let others: Vec<String> = others.into_iter().map(str::to_owned).collect();
        let locked = self.contacts_lock(&others).await?;
        if others.iter().any(|id| before.get(id) != locked.get(id)) {
            // Somebody else was there in between.
            let erased: Vec<&String> = others.iter().filter(|id| !locked.contains_key(*id)).collect();
            for id in &erased {
                before.remove(*id);
            }
            before.extend(locked);
            merged = merge(changes, &before);
            let again: Vec<&Contact> = erased
                .into_iter()
                .filter_map(|id| merged.after.get(id.as_str()))
                .collect();
            self.contacts_insert(&again, now).await?;
        }
        let mut written = merged.touched(&before);
        written.retain(|contact| before.contains_key(&contact.id));
        self.contacts_write(&written, now).await?;
        self.consents_log(&merged.said, by, source, now).await?;
        Ok(merged.answers)
    }

    async fn contacts_lock(&mut self, ids: &[String]) -> Result<HashMap<String, Contact>, StoreError> {
        let ids: Vec<&str> = ids.iter().map(String::as_str).collect();
        self.contacts_select(&ids, "for update").await
    }

    /// Inserts contacts, in id order; which of them were not there.
    async fn contacts_insert(&mut self, contacts: &[&Contact], now: Timestamp) -> Result<HashSet<String>, StoreError> {
        if contacts.is_empty() {
            return Ok(HashSet::new());
        }
        let made = match self.contacts_insert_plainly(contacts, now).await? {
            Some(made) => made,
            None => self.contacts_insert_others(contacts, now).await?,
        };
        self.strangers_no_more(&made).await?;
        Ok(made)
    }

    /// Of those alone that we made: they are nobody else's now, so nobody else waits for these rows.
    async fn strangers_no_more(&mut self, made: &HashSet<String>) -> Result<(), StoreError> {
        sqlx::query("delete from strangers where contact_id = any($1)")
            .bind(made.iter().map(String::as_str).collect::<Vec<_>>())
            .execute(&mut *self.inner)
            .await?;
        Ok(())
    }

    /// Many at once, as if nobody else were making one of them: `on conflict` would look for each and write it twice to the
    /// log. `None`: somebody is, or they are too few to gain from it, and nothing was done.
    async fn contacts_insert_plainly(
        &mut self,
        contacts: &[&Contact],
        now: Timestamp,
    ) -> Result<Option<HashSet<String>>, StoreError> {
        if contacts.len() < PLAINLY {
            return Ok(None);
        }
        let insert = columns(sqlx::query(insert!("")), contacts).bind(At(now));
        let done = self.insert_plainly(insert).await?;
        Ok(done.then(|| contacts.iter().map(|contact| contact.id.clone()).collect()))
    }

    async fn contacts_insert_others(
        &mut self,
        contacts: &[&Contact],
        now: Timestamp,
    ) -> Result<HashSet<String>, StoreError> {
        let rows = columns(
            sqlx::query(insert!("on conflict (id) do nothing returning id")),
            contacts,
        )
        .bind(At(now))
        .fetch_all(&mut *self.inner)
        .await?;
        Ok(rows.iter().map(|row| row.try_get(0)).collect::<Result<_, _>>()?)
    }

    async fn contacts_write(&mut self, contacts: &[&Contact], now: Timestamp) -> Result<(), StoreError> {
        if contacts.is_empty() {
            return Ok(());
        }
        let statement = sqlx::query(
            "update contacts c set phone = n.phone, first_name = n.first_name, last_name = n.last_name, gender = n.gender,
                 birth_date = n.birth_date, city = n.city, region = n.region, postal_code = n.postal_code,
                 language = n.language, time_zone = n.time_zone, marketing_consent = n.marketing_consent,
                 consent_at = n.consent_at, attributes = n.attributes, consents = n.consents, updated_at = $16
             from unnest($1::text[], $2::text[], $3::text[], $4::text[], $5::text[], $6::date[], $7::text[], $8::text[],
                         $9::text[], $10::text[], $11::text[], $12::boolean[], $13::timestamptz[], $14::jsonb[],
                         $15::jsonb[])
                  as n (id, phone, first_name, last_name, gender, birth_date, city, region, postal_code, language,
                        time_zone, marketing_consent, consent_at, attributes, consents)
             where c.id = n.id",
        );
        columns(statement, contacts)
            .bind(At(now))
            .execute(&mut *self.inner)
            .await?;
        Ok(())
    }
}

type Statement<'q> = sqlx::query::Query<'q, sqlx::Postgres, sqlx::postgres::PgArguments>;

/// Binds $1 to $15: an array a column.
fn columns<'q>(statement: Statement<'q>, contacts: &[&Contact]) -> Statement<'q> {
    let text = |of: fn(&Contact) -> Option<&str>| contacts.iter().map(|contact| of(contact)).collect::<Vec<_>>();
    let consents: Vec<Option<bool>> = contacts
        .iter()
        .map(|contact| match contact.marketing_consent {
            Consent::Unset => None,
            Consent::No => Some(false),
            Consent::Given(_) => Some(true),
        })
        .collect();
    let consent_times: Vec<Option<At>> = contacts
        .iter()
        .map(|contact| match contact.marketing_consent {
            Consent::Given(time) => at(time),
            Consent::Unset | Consent::No => None,
        })
        .collect();
    let attributes: Vec<Json<&BTreeMap<String, Value>>> =
        contacts.iter().map(|contact| Json(&contact.attributes)).collect();
    statement
        .bind(text(|contact| Some(&contact.id)))
        .bind(text(|contact| contact.phone.as_ref().map(Phone::e164)))
        .bind(text(|contact| contact.first_name.as_deref()))
        .bind(text(|contact| contact.last_name.as_deref()))
        .bind(text(|contact| contact.gender.as_deref()))
        .bind(
            contacts
                .iter()
                .map(|contact| contact.birth_date.map(Day))
                .collect::<Vec<_>>(),
        )
        .bind(text(|contact| contact.city.as_deref()))
        .bind(text(|contact| contact.region.as_deref()))
        .bind(text(|contact| contact.postal_code.as_deref()))
        .bind(text(|contact| contact.language.as_deref()))
        .bind(text(|contact| contact.time_zone.as_deref()))
        .bind(consents)
        .bind(consent_times)
        .bind(attributes)
        .bind(contacts.iter().map(|contact| Json(stored(contact))).collect::<Vec<_>>())
}

/// The consents as their column has them.
fn stored(contact: &Contact) -> Map<String, Value> {
    let said = |(purpose, consent): (&String, &Consent)| {
        let value = match consent {
            Consent::Unset => return None,
            Consent::No => Value::Bool(false),
            Consent::Given(None) => Value::Bool(true),
            Consent::Given(Some(at)) => Value::String(at.to_string()),
        };
        Some((purpose.clone(), value))
    };
    contact.consents.iter().filter_map(said).collect()
}

struct Merged<'a> {
    /// What each change comes to.
    answers: Vec<Change>,
    /// The contacts after all of them.
    after: HashMap<&'a str, Contact>,
    /// What they said of consents, in their order.
    said: Vec<Said<'a>>,
}

impl Merged<'_> {
    /// The contacts that are not what they were, in id order.
    fn touched(&self, before: &HashMap<String, Contact>) -> Vec<&Contact> {
        let mut touched: Vec<&Contact> = self
            .after
            .values()
            .filter(|contact| before.get(&contact.id) != Some(*contact))
            .collect();
        touched.sort_unstable_by(|one, other| one.id.cmp(&other.id));
        touched
    }
}

/// Makes the changes in their order.
fn merge<'a>(changes: &'a [ContactChange], before: &HashMap<String, Contact>) -> Merged<'a> {
    let mut after: HashMap<&str, Contact> = HashMap::with_capacity(changes.len());
    let mut said = Vec::new();
    let answers = changes
        .iter()
        .map(|change| {
            let id = change.id.as_str();
            let known = after.get(id).or_else(|| before.get(id));
            let mut contact = known.cloned().unwrap_or_default();
            change.merge(&mut contact);
            Said::add(change, known, &contact, &mut said);
            let answer = match known {
                None => Change::Created,
                Some(known) if *known == contact => Change::Unchanged,
                Some(_) => Change::Updated,
            };
            after.insert(id, contact);
            answer
        })
        .collect();
    Merged { answers, after, said }
}

pub(crate) fn read(row: &PgRow) -> Result<Contact, StoreError> {
    let consent: Option<bool> = row.try_get("marketing_consent")?;
    let consent_at = row.try_get::<Option<At>, _>("consent_at")?.map(|at| at.0);
    Ok(Contact {
        id: row.try_get("id")?,
        phone: row.try_get::<Option<String>, _>("phone")?.map(Phone::from_e164),
        first_name: row.try_get("first_name")?,
        last_name: row.try_get("last_name")?,
        gender: row.try_get("gender")?,
        birth_date: row.try_get::<Option<Day>, _>("birth_date")?.map(|day| day.0),
        city: row.try_get("city")?,
        region: row.try_get("region")?,
        postal_code: row.try_get("postal_code")?,
        language: row.try_get("language")?,
        time_zone: row.try_get("time_zone")?,
        marketing_consent: match consent {
            None => Consent::Unset,
            Some(false) => Consent::No,
            Some(true) => Consent::Given(consent_at),
        },
        attributes: match row.try_get("attributes")? {
            Value::Object(attributes) => attributes.into_iter().collect(),
            _ => BTreeMap::new(),
        },
        consents: match row.try_get("consents")? {
            Value::Object(consents) => consents.into_iter().map(said).collect(),
            _ => BTreeMap::new(),
        },
    })
}

/// What was said of a purpose, as the column has it; what is none of ours is no consent.
fn said((purpose, value): (String, Value)) -> (String, Consent) {
    let consent = match value {
        Value::Bool(true) => Consent::Given(None),
        Value::String(at) => at.parse().map_or(Consent::No, |at| Consent::Given(Some(at))),
        _ => Consent::No,
    };
    (purpose, consent)
}
