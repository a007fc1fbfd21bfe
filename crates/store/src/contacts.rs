//! Contacts: read, changed and erased, many at a time.
//!
//! A change names only the fields that it sets or unsets. The rows are locked in id order, merged here, and only those
//! that differ are written, so the same change again writes nothing. A change of consent is written to the consent log
//! with who recorded it (GDPR art. 7.1).

use std::collections::{BTreeMap, HashMap};

use domain::{Consent, Contact, Phone, phone::PhoneKey};
use jiff::{Timestamp, civil::Date};
use serde_json::{Map, Value};
use sqlx::{Row, postgres::PgRow};

use crate::{
    Store, StoreError, Tx,
    time::{At, Day, at},
};

/// What changes about a contact. `None`: stays as it is; `Some(None)`: unset.
#[derive(Clone, PartialEq, Default)]
pub struct ContactChange {
    pub id: String,
    pub phone: Option<Option<Phone>>,
    pub first_name: Option<Option<String>>,
    pub last_name: Option<Option<String>>,
    pub gender: Option<Option<String>>,
    pub birth_date: Option<Option<Date>>,
    pub city: Option<Option<String>>,
    pub region: Option<Option<String>>,
    pub postal_code: Option<Option<String>>,
    pub language: Option<Option<String>>,
    pub time_zone: Option<Option<String>>,
    pub marketing_consent: Option<Consent>,
    /// JSON scalars; null unsets.
    pub attributes: BTreeMap<String, Value>,
}

impl std::fmt::Debug for ContactChange {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("ContactChange")
            .field("id", &self.id)
            .finish_non_exhaustive()
    }
}

/// What a change came to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Change {
    Created,
    Updated,
    Unchanged,
}

impl ContactChange {
    /// Makes the change to a contact as it is.
    pub fn merge(&self, contact: &mut Contact) {
        fn set<T: Clone>(field: &mut Option<T>, change: &Option<Option<T>>) {
            if let Some(value) = change {
                field.clone_from(value);
            }
        }
        contact.id.clone_from(&self.id);
        set(&mut contact.phone, &self.phone);
        set(&mut contact.first_name, &self.first_name);
        set(&mut contact.last_name, &self.last_name);
        set(&mut contact.gender, &self.gender);
        set(&mut contact.birth_date, &self.birth_date);
        set(&mut contact.city, &self.city);
        set(&mut contact.region, &self.region);
        set(&mut contact.postal_code, &self.postal_code);
        set(&mut contact.language, &self.language);
        set(&mut contact.time_zone, &self.time_zone);
        match (self.marketing_consent, contact.marketing_consent) {
            // "Yes" again, without a date, does not forget the date that is known.
            (Some(Consent::Given(None)), Consent::Given(Some(_))) | (None, _) => {}
            (Some(consent), _) => contact.marketing_consent = consent,
        }
        for (name, value) in &self.attributes {
            match value {
                Value::Null => contact.attributes.remove(name),
                value => contact.attributes.insert(name.clone(), value.clone()),
            };
        }
    }
}

pub(crate) const COLUMNS: &str =
    "id, phone, first_name, last_name, gender, birth_date, city, region, postal_code, language,
    time_zone, marketing_consent, consent_at, attributes";

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
}

impl Tx {
    /// Those of these contacts that are known, by id.
    pub async fn contacts_get(&mut self, ids: &[&str]) -> Result<HashMap<String, Contact>, StoreError> {
        self.contacts_select(ids, "").await
    }

    async fn contacts_select(&mut self, ids: &[&str], lock: &str) -> Result<HashMap<String, Contact>, StoreError> {
        if ids.is_empty() {
            return Ok(HashMap::new());
        }
        let rows = sqlx::query(sqlx::AssertSqlSafe(format!(
            "select {COLUMNS} from contacts where id = any($1) {lock}"
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
        let mut ids: Vec<&str> = changes.iter().map(|change| change.id.as_str()).collect();
        ids.sort_unstable();
        ids.dedup();
        // Locked in id order, so that two batches wait for each other and do not deadlock.
        let mut before = self.contacts_select(&ids, "order by id for update").await?;
        let missing: Vec<&str> = ids.iter().copied().filter(|id| !before.contains_key(*id)).collect();
        let mut created: HashMap<&str, bool> = HashMap::new();
        if !missing.is_empty() {
            // The empty row is ours from here on; somebody else's, made in between, is waited for and then read.
            let made: Vec<String> = sqlx::query_scalar(
                "insert into contacts (id, created_at, updated_at)
                 select id, $2, $2 from unnest($1::text[]) as m (id) order by id
                 on conflict (id) do nothing returning id",
            )
            .bind(&missing)
            .bind(At(now))
            .fetch_all(&mut *self.inner)
            .await?;
            let made: std::collections::HashSet<String> = made.into_iter().collect();
            let theirs: Vec<&str> = missing.iter().copied().filter(|id| !made.contains(*id)).collect();
            before.extend(self.contacts_select(&theirs, "order by id for update").await?);
            created.extend(missing.iter().map(|id| (*id, made.contains(*id))));
        }
        let mut after: HashMap<&str, Contact> = HashMap::new();
        let mut answers = Vec::with_capacity(changes.len());
        for change in changes {
            let id = change.id.as_str();
            let known = after.get(id).or_else(|| before.get(id));
            let mut contact = known.cloned().unwrap_or_default();
            change.merge(&mut contact);
            answers.push(match known {
                _ if created.remove(id) == Some(true) => Change::Created,
                Some(known) if *known == contact => Change::Unchanged,
                _ => Change::Updated,
            });
            after.insert(id, contact);
        }
        let mut written: Vec<&Contact> = after
            .values()
            .filter(|contact| before.get(&contact.id) != Some(*contact))
            .collect();
        written.sort_unstable_by(|one, other| one.id.cmp(&other.id));
        self.contacts_write(&written, now).await?;
        let consents: Vec<&Contact> = written
            .into_iter()
            .filter(|contact| {
                let was = before
                    .get(&contact.id)
                    .map_or(Consent::Unset, |known| known.marketing_consent);
                contact.marketing_consent != was && contact.marketing_consent != Consent::Unset
            })
            .collect();
        self.consents_log(&consents, by, source, now).await?;
        Ok(answers)
    }

    async fn contacts_write(&mut self, contacts: &[&Contact], now: Timestamp) -> Result<(), StoreError> {
        if contacts.is_empty() {
            return Ok(());
        }
        let text = |of: fn(&Contact) -> &Option<String>| {
            contacts
                .iter()
                .map(|contact| of(contact).as_deref())
                .collect::<Vec<_>>()
        };
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
        sqlx::query(
            "update contacts c set phone = n.phone, first_name = n.first_name, last_name = n.last_name, gender = n.gender,
                 birth_date = n.birth_date, city = n.city, region = n.region, postal_code = n.postal_code,
                 language = n.language, time_zone = n.time_zone, marketing_consent = n.marketing_consent,
                 consent_at = n.consent_at, attributes = n.attributes, updated_at = $15
             from unnest($1::text[], $2::text[], $3::text[], $4::text[], $5::text[], $6::date[], $7::text[], $8::text[],
                         $9::text[], $10::text[], $11::text[], $12::boolean[], $13::timestamptz[], $14::jsonb[])
                  as n (id, phone, first_name, last_name, gender, birth_date, city, region, postal_code, language,
                        time_zone, marketing_consent, consent_at, attributes)
             where c.id = n.id",
        )
        .bind(contacts.iter().map(|contact| contact.id.as_str()).collect::<Vec<_>>())
        .bind(contacts.iter().map(|contact| contact.phone.as_ref().map(Phone::e164)).collect::<Vec<_>>())
        .bind(text(|contact| &contact.first_name))
        .bind(text(|contact| &contact.last_name))
        .bind(text(|contact| &contact.gender))
        .bind(contacts.iter().map(|contact| contact.birth_date.map(Day)).collect::<Vec<_>>())
        .bind(text(|contact| &contact.city))
        .bind(text(|contact| &contact.region))
        .bind(text(|contact| &contact.postal_code))
        .bind(text(|contact| &contact.language))
        .bind(text(|contact| &contact.time_zone))
        .bind(&consents)
        .bind(&consent_times)
        .bind(
            contacts
                .iter()
                .map(|contact| Value::Object(contact.attributes.clone().into_iter().collect::<Map<_, _>>()))
                .collect::<Vec<_>>(),
        )
        .bind(At(now))
        .execute(&mut *self.inner)
        .await?;
        Ok(())
    }

    async fn consents_log(
        &mut self,
        contacts: &[&Contact],
        by: &str,
        source: &str,
        now: Timestamp,
    ) -> Result<(), StoreError> {
        if contacts.is_empty() {
            return Ok(());
        }
        let times: Vec<At> = contacts
            .iter()
            .map(|contact| match contact.marketing_consent {
                Consent::Given(Some(time)) => At(time),
                _ => At(now),
            })
            .collect();
        sqlx::query(
            "insert into consent_log (contact_id, given, at, source, recorded_by)
             select contact_id, given, at, $4, $5 from unnest($1::text[], $2::boolean[], $3::timestamptz[]) as n (contact_id, given, at)",
        )
        .bind(contacts.iter().map(|contact| contact.id.as_str()).collect::<Vec<_>>())
        .bind(contacts.iter().map(|contact| contact.marketing_consent.is_given()).collect::<Vec<_>>())
        .bind(&times)
        .bind(source)
        .bind(by)
        .execute(&mut *self.inner)
        .await?;
        Ok(())
    }

    /// Removes a person's data everywhere in the store. An opt-out survives by the phone's hash: a suppression stays, and
    /// a "no" becomes one. The ledger keeps what it needs to add up: ids, states and the hash. `false`: nobody by this id.
    pub async fn contact_erase(&mut self, id: &str, key: &PhoneKey, now: Timestamp) -> Result<bool, StoreError> {
        let known = self.contacts_select(&[id], "for update").await?.remove(id);
        if let Some(Contact {
            phone: Some(phone),
            marketing_consent: Consent::No,
            ..
        }) = &known
        {
            self.suppression_put(&key.hash(phone), crate::suppressions::Scope::Marketing, "erased", now)
                .await?;
        }
        for statement in [
            // An event that started messages stays as the audit's left side, without what it said.
            "delete from history where contact_id = $1 and planned = 0",
            "update history set data = '{}' where contact_id = $1",
            "update trigger_log set vars = '{}' where contact_id = $1",
            "delete from consent_log where contact_id = $1",
            "delete from contacts where id = $1",
        ] {
            sqlx::query(statement).bind(id).execute(&mut *self.inner).await?;
        }
        self.deferred_drop_contact(id).await?;
        Ok(known.is_some())
    }
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
    })
}
