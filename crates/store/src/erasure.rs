//! Opt-outs that outlive their contacts: erasing a person, and keeping what the person said against all that comes later.
//!
//! What is erased is gone from every table of ours. Two things stay: the phone's keyed hash where the person said "no", so
//! that no later import writes to it, and what the ledger and the reports need to add up: ids, states and the hash, and that a
//! message was clicked or answered, under types of their own that no audience and no trigger asks for.
//!
//! The bus is a log that nobody edits: what went over it about the person leaves it with its topic's retention, and nothing
//! of it comes back into the store, because a message of somebody who is erased comes to be suppressed.

use std::collections::HashMap;

use domain::{Consent, Contact, Phone, contact::ContactChange, phone::PhoneKey};
use jiff::Timestamp;

use crate::{StoreError, Tx, suppressions::Scope};

impl Tx {
    /// Removes these people's data everywhere in the store, with a constant number of statements. A suppression stays, and
    /// a "no" becomes one. Which of them were known.
    pub async fn contacts_erase(
        &mut self,
        ids: &[&str],
        key: &PhoneKey,
        now: Timestamp,
    ) -> Result<Vec<bool>, StoreError> {
        if ids.is_empty() {
            return Ok(Vec::new());
        }
        let known = self.contacts_select(ids, "for update").await?;
        let refused = |contact: &Contact| match (&contact.phone, contact.marketing_consent) {
            (Some(phone), Consent::No) => Some(key.hash(phone)),
            _ => None,
        };
        let hashes: Vec<Vec<u8>> = known.values().filter_map(refused).collect();
        self.suppressions_put(&hashes, Scope::Marketing, "erased", now).await?;
        for statement in [
            // An event that started messages stays as the audit's left side, one that a report counts for its message,
            // both without what else they said.
            "delete from history where contact_id = any($1) and planned = 0
                 and not (source = 'tamtam'
                     and type in ('sms.clicked', 'sms.replied', 'erased.click', 'erased.reply', 'erased.stop'))",
            "update history set
                 type = case
                     when source <> 'tamtam' then type
                     when type = 'sms.clicked' then 'erased.click'
                     when type = 'sms.replied' and data->>'keyword' = 'stop' then 'erased.stop'
                     when type = 'sms.replied' then 'erased.reply'
                     else type end,
                 data = case
                     when source = 'tamtam'
                         and type in ('sms.clicked', 'sms.replied', 'erased.click', 'erased.reply', 'erased.stop')
                     then jsonb_strip_nulls(jsonb_build_object('message_id', data->'message_id'))
                     else '{}' end
             where contact_id = any($1)",
            "update trigger_log set vars = '{}' where contact_id = any($1)",
            "delete from consent_log where contact_id = any($1)",
            "delete from short_links where contact_id = any($1)",
            "delete from contacts where id = any($1)",
            // What comes of them later is no contact's.
            "insert into strangers select distinct unnest($1::text[]) on conflict do nothing",
        ] {
            sqlx::query(statement).bind(ids).execute(&mut *self.inner).await?;
        }
        // Parts of a reply whose others never came hold what the person wrote.
        let phones: Vec<Vec<u8>> = known
            .values()
            .filter_map(|contact| contact.phone.as_ref())
            .map(|phone| key.hash(phone))
            .collect();
        sqlx::query("delete from reply_parts where phone_hash = any($1)")
            .bind(phones)
            .execute(&mut *self.inner)
            .await?;
        self.deferred_drop_contacts(ids).await?;
        Ok(ids.iter().map(|id| known.contains_key(*id)).collect())
    }

    /// Takes back consent that a change gives to a phone which was shut off: an opt-out outlives its contact's data, and no
    /// import undoes it. How many were taken back.
    pub async fn contacts_keep_opt_outs(
        &mut self,
        changes: &mut [ContactChange],
        key: &PhoneKey,
    ) -> Result<usize, StoreError> {
        let gives = |change: &ContactChange| {
            change.marketing_consent.is_some_and(Consent::is_given) || change.consents.iter().any(|said| said.given)
        };
        // A change that gives consent without naming a phone is about the phone that is known.
        let unnamed: Vec<&str> = changes
            .iter()
            .filter(|change| gives(change) && change.phone.is_none())
            .map(|change| change.id.as_str())
            .collect();
        let mut known: HashMap<String, Phone> = self
            .contacts_get(&unnamed)
            .await?
            .into_iter()
            .filter_map(|(id, contact)| Some((id, contact.phone?)))
            .collect();
        // In their order: an earlier change may name the phone that a later one is about.
        let mut hashes: Vec<Option<Vec<u8>>> = Vec::with_capacity(changes.len());
        for change in changes.iter() {
            match &change.phone {
                Some(Some(phone)) => {
                    known.insert(change.id.clone(), phone.clone());
                }
                Some(None) => {
                    known.remove(&change.id);
                }
                None => {}
            }
            let phone = known.get(&change.id).filter(|_| gives(change));
            hashes.push(phone.map(|phone| key.hash(phone)));
        }
        let wanted: Vec<Vec<u8>> = hashes.iter().flatten().cloned().collect();
        let shut_off = self.suppressions_get(&wanted).await?;
        let mut taken_back = 0;
        for (change, hash) in changes.iter_mut().zip(hashes) {
            if hash.is_some_and(|hash| shut_off.contains_key(&hash)) {
                if change.marketing_consent.is_some_and(Consent::is_given) {
                    change.marketing_consent = Some(Consent::No);
                }
                for said in change.consents.iter_mut().filter(|said| said.given) {
                    *said = said.taken_back();
                }
                taken_back += 1;
            }
        }
        Ok(taken_back)
    }
}
