//! Changes of contacts and erasures of a batch.
//!
//! One contact's come in their order; what concerns different contacts does not wait for each other. So a batch is made in
//! rounds, each of them changes and then erasures: a contact moves on to the next round when it is erased. Nearly every
//! batch is one round, whatever its size.

use std::collections::HashMap;

use domain::{contact::ContactChange, phone::PhoneKey};
use jiff::Timestamp;
use store::{StoreError, Tx};

/// What a batch says of contacts.
#[derive(Default)]
pub(super) struct People {
    rounds: Vec<Round>,
    /// The round of those who were erased.
    at: HashMap<String, usize>,
}

#[derive(Default)]
struct Round {
    changes: Vec<ContactChange>,
    erased: Vec<String>,
}

impl People {
    fn round(&mut self, id: &str) -> &mut Round {
        let number = self.at.get(id).copied().unwrap_or(0);
        if self.rounds.len() <= number {
            self.rounds.resize_with(number + 1, Round::default);
        }
        &mut self.rounds[number]
    }

    pub fn change(&mut self, change: ContactChange) {
        self.round(&change.id).changes.push(change);
    }

    pub fn erase(&mut self, id: String) {
        self.round(&id).erased.push(id.clone());
        *self.at.entry(id).or_default() += 1;
    }

    /// Consent that is given to a phone which was shut off is taken back, as everywhere.
    pub async fn write(self, tx: &mut Tx, key: &PhoneKey, now: Timestamp) -> Result<(), StoreError> {
        for Round { mut changes, erased } in self.rounds {
            if !changes.is_empty() {
                tx.contacts_keep_opt_outs(&mut changes, key).await?;
                tx.contacts_upsert(&changes, "events", "events", now).await?;
            }
            let erased: Vec<&str> = erased.iter().map(String::as_str).collect();
            tx.contacts_erase(&erased, key, now).await?;
        }
        Ok(())
    }
}
