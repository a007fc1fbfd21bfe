//! Audiences: how many an expression matches, who they are, and why.

use std::sync::Arc;

use domain::{
    Contact,
    audience::{Explained, Expression, Occurrence, Past, nearest},
};
use events::BusinessEvent;
use jiff::Timestamp;
use resources::Snapshot;
use store::{StoreError, audience::Named};

use crate::{
    Api, ApiError, Caller, Role,
    resources::{named, parse_condition},
};

/// Contacts in one page.
pub const MAX_PAGE: i64 = 1_000;
/// Clauses that are counted one by one; the rest is counted as one.
const MAX_CLAUSES: usize = 20;

/// How an expression comes to its contacts.
#[derive(Clone, Debug, PartialEq)]
pub struct AudienceExplanation {
    /// The expression as it is understood.
    pub expression: String,
    /// All contacts that there are.
    pub contacts: i64,
    /// Those that match.
    pub count: i64,
    pub clauses: Vec<ClauseCount>,
    /// What is probably a mistake.
    pub hints: Vec<String>,
    /// Clause by clause why one contact is in or out, if one was asked for.
    pub contact: Option<Explained>,
}

/// The event that started a trigger.
#[derive(Clone, Copy, Debug)]
pub(crate) struct EventKey<'a> {
    pub kind: &'a str,
    pub source: &'a str,
    pub id: &'a str,
}

/// Of which moment an explanation is.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Moment {
    /// The "now" of ages and windows.
    pub now: Timestamp,
    /// What happened later is left out: who bought because of a message had not bought when it was decided on.
    pub until: Option<Timestamp>,
}

impl Moment {
    /// By all that is known.
    pub fn at(now: Timestamp) -> Moment {
        Moment { now, until: None }
    }
}

/// One of the conditions that must all hold.
#[derive(Clone, Debug, PartialEq)]
pub struct ClauseCount {
    pub clause: String,
    /// How many contacts it matches by itself.
    pub alone: i64,
    /// How many it and those before it leave.
    pub left: i64,
}

impl Api {
    /// How many contacts match.
    pub async fn audience_count(&self, caller: &Caller, text: &str) -> Result<i64, ApiError> {
        caller.require(&[Role::Campaigns, Role::Read])?;
        let (expression, named) = self.audience(text).await?;
        Ok(self.store.audience_count(&expression, &named, self.clock.now()).await?)
    }

    /// The contacts that match and come after the id `after`, in id order.
    pub async fn audience_list(
        &self,
        caller: &Caller,
        text: &str,
        after: &str,
        limit: i64,
    ) -> Result<Vec<Contact>, ApiError> {
        caller.require(&[Role::Campaigns, Role::Read])?;
        if !(1..=MAX_PAGE).contains(&limit) {
            return Err(ApiError::invalid("limit", format!("expected 1 to {MAX_PAGE}")));
        }
        let (expression, named) = self.audience(text).await?;
        let now = self.clock.now();
        Ok(self.store.audience_page(&expression, &named, after, limit, now).await?)
    }

    /// How many contacts each clause leaves, and why `contact` is in or out.
    pub async fn audience_explain(
        &self,
        caller: &Caller,
        text: &str,
        contact: Option<&str>,
    ) -> Result<AudienceExplanation, ApiError> {
        caller.require(&[Role::Campaigns, Role::Read])?;
        let (expression, named) = self.audience(text).await?;
        let now = self.clock.now();
        let contact = match contact {
            Some(id) => Some(
                self.explain_contact(&expression, &named, id, None, Moment::at(now))
                    .await?,
            ),
            None => None,
        };
        let mut parts = expression.clauses();
        if parts.len() > MAX_CLAUSES {
            let rest = parts.split_off(MAX_CLAUSES - 1);
            parts.extend(Expression::all(&rest));
        }
        let mut clauses: Vec<ClauseCount> = Vec::with_capacity(parts.len());
        for (place, part) in parts.iter().enumerate() {
            let alone = self.store.audience_count(part, &named, now).await?;
            let left = match Expression::all(&parts[..=place]) {
                Some(so_far) if place > 0 => self.store.audience_count(&so_far, &named, now).await?,
                _ => alone,
            };
            let clause = part.to_string();
            clauses.push(ClauseCount { clause, alone, left });
        }
        Ok(AudienceExplanation {
            contacts: self.store.contacts_count().await?,
            count: clauses.last().map_or(0, |last| last.left),
            hints: self.hints(&expression).await?,
            expression: expression.to_string(),
            clauses,
            contact,
        })
    }

    /// What is probably a mistake in an expression: names that no contact has.
    pub async fn audience_hints(&self, caller: &Caller, text: &str) -> Result<Vec<String>, ApiError> {
        caller.require(&[Role::Campaigns, Role::Read])?;
        let (expression, _) = self.audience(text).await?;
        Ok(self.hints(&expression).await?)
    }

    /// Clause by clause whether an expression holds for a contact, by its fields as they are today and by what it did up
    /// to then. `event` is the triggering one.
    pub(crate) async fn explain_contact(
        &self,
        expression: &Expression,
        named: &Named,
        id: &str,
        event: Option<EventKey<'_>>,
        moment: Moment,
    ) -> Result<Explained, ApiError> {
        let audiences = |name: &str| named.get(name).map(Arc::clone);
        let mut types = expression.did_types_with(&audiences);
        types.extend(event.map(|event| event.kind.to_owned()));
        let types: Vec<&str> = types.iter().map(String::as_str).collect();
        let mut tx = self.store.begin().await?;
        let contact = tx.contacts_get(&[id]).await?.remove(id);
        let contact = contact.ok_or_else(|| ApiError::not_found("contact").at("contact"))?;
        let mut events = tx
            .history_for(&[id], &types, None)
            .await?
            .remove(id)
            .unwrap_or_default();
        let until = moment.until;
        events.retain(|event| until.is_none_or(|until| event.time <= until));
        let received = match expression.asks_received_with(&audiences) {
            true => tx
                .campaigns_received_until(&[id], until)
                .await?
                .remove(id)
                .unwrap_or_default(),
            false => Vec::new(),
        };
        let mut past: Past<'_> = events
            .iter()
            .map(|event| Occurrence {
                kind: &event.kind,
                source: &event.source,
                id: &event.id,
                time: event.time,
                data: &event.data,
            })
            .collect();
        past.received = &received;
        let event = event.and_then(|key| {
            let is = |event: &&BusinessEvent| event.source == key.source && event.id == key.id;
            events.iter().find(is).map(|event| &event.data)
        });
        Ok(expression.explain(&contact, &past, event, &audiences, moment.now))
    }

    /// Names that no contact has, with what was probably meant.
    pub(crate) async fn hints(&self, expression: &Expression) -> Result<Vec<String>, StoreError> {
        let names: Vec<String> = expression.attributes().into_iter().collect();
        if names.is_empty() {
            return Ok(Vec::new());
        }
        let unknown = self.store.attributes_unknown(&names).await?;
        let known = match unknown.is_empty() {
            true => Vec::new(),
            false => self.store.attribute_names().await?,
        };
        Ok(unknown
            .into_iter()
            .map(|name| match nearest(&name, &known) {
                Some(meant) => format!("no contact has `{name}`; did you mean `{meant}`?"),
                None => format!("no contact has `{name}`"),
            })
            .collect())
    }

    /// An expression and the audiences that it may name.
    async fn audience(&self, text: &str) -> Result<(Expression, Named), ApiError> {
        let snapshot: Snapshot = self.snapshot().await?;
        let expression = parse_condition(text, &snapshot).map_err(|message| ApiError::invalid("where", message))?;
        Ok((expression, named(&snapshot)))
    }
}
