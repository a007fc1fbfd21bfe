//! Which campaigns a contact received: what `received campaign X` of the audience language asks.

use std::collections::HashMap;

use domain::State;
use jiff::Timestamp;
use uuid::Uuid;

use crate::{StoreError, Tx, time::at};

/// The campaigns that a name or an id means, the occurrences of a recurring one among them. The text follows.
pub(crate) const NAMED: &str = "select k.id from campaigns k left join campaigns p on p.id = k.parent_id,
    lateral (values (k.name), (k.id::text), (p.name), (p.id::text)) as means (text) where means.text = ";

/// The states of a message that was received, as far as its gateway said.
pub(crate) fn received_states() -> Vec<i16> {
    vec![State::Accepted.code(), State::Delivered.code()]
}

impl Tx {
    /// For each of these contacts, the names and ids of the campaigns that it received.
    pub async fn campaigns_received(&mut self, contacts: &[&str]) -> Result<HashMap<String, Vec<String>>, StoreError> {
        self.campaigns_received_until(contacts, None).await
    }

    /// The same, as it was at a time.
    pub async fn campaigns_received_until(
        &mut self,
        contacts: &[&str],
        until: Option<Timestamp>,
    ) -> Result<HashMap<String, Vec<String>>, StoreError> {
        let mut received: HashMap<String, Vec<String>> = HashMap::new();
        if contacts.is_empty() {
            return Ok(received);
        }
        type Row = (String, Uuid, String, Option<Uuid>, Option<String>);
        let rows: Vec<Row> = sqlx::query_as(
            "select m.contact_id, k.id, k.name, p.id, p.name
             from messages m join campaigns k on k.id = m.campaign_id left join campaigns p on p.id = k.parent_id
             where m.contact_id = any($1) and m.state = any($2)
               and ($3::timestamptz is null or m.accepted_at <= $3)",
        )
        .bind(contacts)
        .bind(received_states())
        .bind(at(until))
        .fetch_all(&mut *self.inner)
        .await?;
        for (contact, id, name, parent, parents_name) in rows {
            let means = received.entry(contact).or_default();
            means.extend([id.to_string(), name]);
            means.extend(parent.map(|parent| parent.to_string()));
            means.extend(parents_name);
        }
        Ok(received)
    }
}
