//! Contacts: created and changed many at a time, read, erased.
//!
//! Fields are JSON by their names ([`domain::contact::ContactChange`] has the rules); only those that are given change. One
//! bad contact does not refuse its batch. Consent that is given to a phone which was shut off is taken back: an opt-out
//! outlives its contact and no later upsert undoes it.

use domain::{
    Contact,
    contact::{ContactChange, FieldError},
};
use serde_json::{Map, Value};
use store::{consents::ConsentEntry, contacts::Change};

use crate::{Api, ApiError, Caller, Role, events::ItemError};

/// Contacts in one call.
pub const MAX_BATCH: usize = 10_000;
/// Lines of a contact's log of consents.
const MAX_CONSENTS: i64 = 1_000;
/// What is written in one transaction.
const CHUNK: usize = 2_000;

/// A contact as a transport read it: nothing of it was checked.
#[derive(Clone, PartialEq, Default)]
pub struct NewContact {
    pub id: String,
    pub fields: Map<String, Value>,
}

impl std::fmt::Debug for NewContact {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("NewContact")
            .field("id", &self.id)
            .finish_non_exhaustive()
    }
}

impl Api {
    /// Creates and changes contacts; one result an item, in their order. `region` (ISO 3166-1, for example `RE`) says what
    /// national phone numbers belong to; without it the policy's default region does.
    pub async fn contacts_upsert(
        &self,
        caller: &Caller,
        items: Vec<Result<NewContact, ItemError>>,
        region: Option<&str>,
    ) -> Result<Vec<Result<Change, ItemError>>, ApiError> {
        caller.require(&[Role::Campaigns, Role::Events])?;
        if items.len() > MAX_BATCH {
            return Err(ApiError::invalid(
                "contacts",
                format!("{} contacts in one call: expected up to {MAX_BATCH}", items.len()),
            ));
        }
        let region = self.region(region).await?;
        // Reading phones is work: not on the threads that answer others.
        let read = tokio::task::spawn_blocking(move || {
            let read = |item: NewContact| {
                ContactChange::from_json(&item.id, &item.fields, region.as_deref()).map_err(item_error)
            };
            items.into_iter().map(|item| item.and_then(read)).collect::<Vec<_>>()
        });
        let read = read
            .await
            .map_err(|_| ApiError::internal("reading the contacts failed"))?;
        let mut results: Vec<Option<Result<Change, ItemError>>> = Vec::with_capacity(read.len());
        let mut changes = Vec::with_capacity(read.len());
        for item in read {
            match item {
                Ok(change) => {
                    changes.push(change);
                    results.push(None);
                }
                Err(error) => results.push(Some(Err(error))),
            }
        }
        let mut answers = Vec::with_capacity(changes.len());
        for chunk in changes.chunks_mut(CHUNK) {
            answers.extend(self.contacts_write(chunk, false, &caller.name, "api").await?.0);
        }
        let mut answers = answers.into_iter();
        Ok(results
            .into_iter()
            .filter_map(|result| result.or_else(|| answers.next().map(Ok)))
            .collect())
    }

    /// Writes changes in one transaction; what each came to, and how many were not given the consent that they asked for.
    /// `fresh`: of contacts that are thought to be new.
    pub(crate) async fn contacts_write(
        &self,
        changes: &mut [ContactChange],
        fresh: bool,
        by: &str,
        source: &str,
    ) -> Result<(Vec<Change>, usize), ApiError> {
        let key = self.store.phone_key().await?;
        let mut tx = self.store.begin().await?;
        let opted_out = tx.contacts_keep_opt_outs(changes, &key).await?;
        let now = self.clock.now();
        let answers = match fresh {
            true => tx.contacts_create(changes, by, source, now).await?,
            false => tx.contacts_upsert(changes, by, source, now).await?,
        };
        tx.commit().await?;
        Ok((answers, opted_out))
    }

    pub async fn contact_get(&self, caller: &Caller, id: &str) -> Result<Contact, ApiError> {
        caller.require(&[Role::Campaigns, Role::Events, Role::Read])?;
        let contact = self.store.contact_get(id).await?;
        contact.ok_or_else(|| ApiError::not_found("contact"))
    }

    /// What a contact said of all purposes, with its proof, the latest first.
    pub async fn contact_consents(&self, caller: &Caller, id: &str) -> Result<Vec<ConsentEntry>, ApiError> {
        caller.require(&[Role::Campaigns, Role::Events, Role::Read])?;
        let entries = self.store.consents_of(id, MAX_CONSENTS).await?;
        // Whoever said nothing may still be somebody.
        if entries.is_empty() {
            self.contact_get(caller, id).await?;
        }
        Ok(entries)
    }

    /// Removes a person's data everywhere in the store; an opt-out is kept as a keyed hash of the phone.
    pub async fn contact_erase(&self, caller: &Caller, id: &str) -> Result<(), ApiError> {
        caller.require(&[Role::Campaigns, Role::Events])?;
        let key = self.store.phone_key().await?;
        let mut tx = self.store.begin().await?;
        let known = tx.contacts_erase(&[id], &key, self.clock.now()).await?.contains(&true);
        // Also of somebody who is not known there may be history: it is gone.
        tx.commit().await?;
        tracing::info!(by = caller.name, "contact erased");
        if known {
            Ok(())
        } else {
            Err(ApiError::not_found("contact"))
        }
    }

    /// The region that is asked for, which must be one, or else the policy's.
    pub(crate) async fn region(&self, region: Option<&str>) -> Result<Option<String>, ApiError> {
        match region.filter(|region| !region.is_empty()) {
            Some(region) if domain::Phone::knows_region(region) => Ok(Some(region.to_owned())),
            Some(_) => Err(ApiError::invalid(
                "region",
                "expected a region as two capital letters, such as RE or FR (ISO 3166-1)",
            )),
            None => Ok(self.snapshot().await?.policy.default_region.clone()),
        }
    }
}

/// The error of an item of a batch; an attribute's own name goes into the message.
pub(crate) fn item_error(error: FieldError) -> ItemError {
    const FIELDS: [&str; 13] = [
        "id",
        "phone",
        "first_name",
        "last_name",
        "gender",
        "birth_date",
        "city",
        "region",
        "postal_code",
        "language",
        "time_zone",
        "marketing_consent",
        "consents",
    ];
    match FIELDS.into_iter().find(|field| *field == error.field) {
        Some(field) => ItemError::new("bad_value", field, error.message),
        None => ItemError::new("bad_value", "fields", error.to_string()),
    }
}
