//! Resources: applying a file of them, reading them, removing one.
//!
//! Applying is all or nothing, and tells every mistake of the file at once with its line: first what each resource says
//! by itself, then what needs the others (templates and audiences that are referred to, expressions, texts). The
//! references are checked under one lock with what is there already, so that two applies at once cannot break each
//! other's.

mod check;
mod notes;

use jiff::Timestamp;
use resources::{Kind, Resource, ResourceError, Snapshot, Template, composer::Composer, parse_toml_with_lines};
use serde_json::Value;
use store::{
    StoreError,
    resources::{Applied, ResourceRow},
};

use self::check::{broken, problems};
pub(crate) use self::check::{named, parse_condition};
use crate::{Api, ApiError, Caller, ErrorDetail, ErrorKind, Role};

const HIDDEN: &str = "…";
/// What the names of announcements' templates begin with.
pub const ANNOUNCEMENT: &str = "announce-";

/// What applying made of one resource.
#[derive(Clone, Debug, PartialEq)]
pub struct AppliedResource {
    pub kind: Kind,
    pub name: String,
    pub change: Applied,
    /// Of a template: who lacks what it needs, and how many parts it takes. Of a condition: names that no contact has.
    pub notes: Vec<String>,
}

/// A resource as it is shown: without its secrets.
#[derive(Clone, Debug, PartialEq)]
pub struct ResourceInfo {
    pub kind: String,
    pub name: String,
    pub version: i64,
    pub body: Value,
    pub updated_at: Timestamp,
    pub updated_by: String,
}

impl Api {
    /// Applies a TOML file. With `dry_run` everything is checked and nothing is written.
    pub async fn resources_apply(
        &self,
        caller: &Caller,
        toml: &str,
        dry_run: bool,
    ) -> Result<Vec<AppliedResource>, ApiError> {
        caller.require(&[])?;
        let parsed = parse_toml_with_lines(toml).map_err(refused)?;
        let mut tx = self.store.begin().await?;
        tx.resources_lock().await?;
        let mut merged = snapshot(tx.resources_all().await?);
        let audience = parsed.iter().find(|one| one.resource.kind() == Kind::Audience);
        let broken_before = audience.map(|_| broken(&merged)).unwrap_or_default();
        for one in &parsed {
            merged.insert(one.resource.clone(), 0);
        }
        let mut errors = Vec::new();
        for one in &parsed {
            for (key, message) in problems(&one.resource, &merged) {
                errors.push(one.error(key, message));
            }
        }
        // What an audience is now may be too much for one that is there already and leads to it.
        if let Some(audience) = audience.filter(|_| errors.is_empty()) {
            let broken = broken(&merged);
            errors.extend(broken.difference(&broken_before).map(|(kind, user)| {
                audience.error(
                    "where",
                    format!("{kind} `{user}` leads to what is applied here and could not be kept with it: its audiences would be nested too deeply, in a circle or too large"),
                )
            }));
        }
        if !errors.is_empty() {
            return Err(refused(errors));
        }
        let bodies: Vec<(String, String, Value)> = parsed
            .iter()
            .map(|one| {
                let resource = &one.resource;
                (
                    resource.kind().as_str().to_owned(),
                    resource.name().to_owned(),
                    resource.to_json(),
                )
            })
            .collect();
        let changes = tx.resources_apply(&bodies, &caller.name, self.clock.now()).await?;
        if dry_run {
            drop(tx);
        } else {
            tx.commit().await?;
            tracing::info!(resources = bodies.len(), by = caller.name, "resources applied");
        }
        let templates: Vec<&Template> = parsed
            .iter()
            .filter_map(|one| match &one.resource {
                Resource::Template(template) => Some(template),
                _ => None,
            })
            .collect();
        // It is applied already: that nothing can be told of it now is no reason to fail.
        let mut notes = match self.template_notes(&templates, &merged).await {
            Ok(notes) => notes.into_iter(),
            Err(error) => {
                tracing::warn!(%error, "templates could not be looked at more closely");
                Vec::new().into_iter()
            }
        };
        let mut hints = match self.condition_hints(parsed.iter().map(|one| &one.resource)).await {
            Ok(hints) => hints.into_iter(),
            Err(error) => {
                tracing::warn!(%error, "conditions could not be looked at more closely");
                Vec::new().into_iter()
            }
        };
        Ok(parsed
            .iter()
            .zip(changes)
            .map(|(one, change)| AppliedResource {
                kind: one.resource.kind(),
                name: one.resource.name().to_owned(),
                change,
                notes: match one.resource.kind() {
                    Kind::Template => notes.next().unwrap_or_default(),
                    Kind::Audience | Kind::Trigger => hints.next().unwrap_or_default(),
                    _ => Vec::new(),
                },
            })
            .collect())
    }

    /// What is probably a mistake in each audience and trigger among these, in their order.
    async fn condition_hints(
        &self,
        resources: impl Iterator<Item = &Resource>,
    ) -> Result<Vec<Vec<String>>, StoreError> {
        let mut hints = Vec::new();
        for resource in resources {
            let expression = match resource {
                Resource::Audience(audience) => domain::audience::parse(&audience.condition).ok(),
                Resource::Trigger(trigger) => {
                    let when = trigger.when.as_deref();
                    when.and_then(|when| domain::audience::parse_for_trigger(when).ok())
                }
                _ => continue,
            };
            hints.push(match expression {
                Some(expression) => self.hints(&expression).await?,
                None => Vec::new(),
            });
        }
        Ok(hints)
    }

    /// Keeps the text of one announcement as a template of its own, named [`ANNOUNCEMENT`]`…`: what whoever may make a
    /// campaign may write. Keeping it again is harmless; another text under the same name is a conflict, because a
    /// campaign may be using it.
    pub async fn announcement_template(&self, caller: &Caller, template: Template) -> Result<(), ApiError> {
        caller.require(&[Role::Campaigns])?;
        if !template.name.starts_with(ANNOUNCEMENT) {
            return Err(ApiError::invalid(
                "name",
                format!("expected a name that begins with `{ANNOUNCEMENT}`"),
            ));
        }
        let mut wrong = Composer::check(&template);
        let resource = Resource::Template(template);
        wrong.extend(resource.check());
        if let Some(problem) = wrong.into_iter().next() {
            return Err(ApiError::invalid(problem.key, problem.message));
        }
        let (kind, name) = (Kind::Template.as_str(), resource.name().to_owned());
        let body = resource.to_json();
        let mut tx = self.store.begin().await?;
        tx.resources_lock().await?;
        match tx.resource_body(kind, &name).await? {
            Some(existing) if existing == body => return Ok(()),
            Some(_) => {
                return Err(ApiError::conflict("another text is kept under this name: expected a new name").at("name"));
            }
            None => {}
        }
        tx.resources_apply(&[(kind.to_owned(), name, body)], &caller.name, self.clock.now())
            .await?;
        Ok(tx.commit().await?)
    }

    /// All resources, or those of a kind, by kind and name.
    pub async fn resources_list(&self, caller: &Caller, kind: Option<Kind>) -> Result<Vec<ResourceInfo>, ApiError> {
        caller.require(&[Role::Campaigns, Role::Read])?;
        let rows = self.store.resources_list().await?;
        Ok(rows
            .into_iter()
            .filter(|row| kind.is_none_or(|kind| row.kind == kind.as_str()))
            .map(info)
            .collect())
    }

    pub async fn resource_get(&self, caller: &Caller, kind: Kind, name: &str) -> Result<ResourceInfo, ApiError> {
        caller.require(&[Role::Campaigns, Role::Read])?;
        let row = self.store.resource_get(kind.as_str(), name).await?;
        row.map(info).ok_or_else(|| ApiError::not_found(kind.as_str()))
    }

    /// Removes a resource that nothing refers to.
    pub async fn resource_delete(&self, caller: &Caller, kind: Kind, name: &str) -> Result<(), ApiError> {
        caller.require(&[])?;
        let mut tx = self.store.begin().await?;
        tx.resources_lock().await?;
        if let Some(used) = tx.resource_in_campaign(kind.as_str(), name).await? {
            return Err(ApiError::conflict(format!(
                "campaign `{}` ({}) uses it and is not over: expected it to be cancelled first",
                used.name, used.campaign
            )));
        }
        let mut rest = snapshot(tx.resources_all().await?);
        let before = broken(&rest);
        match kind {
            Kind::Gateway => rest.gateways.remove(name).is_some(),
            Kind::Template => rest.templates.remove(name).is_some(),
            Kind::Audience => rest.audiences.remove(name).is_some(),
            Kind::Trigger => rest.triggers.remove(name).is_some(),
            Kind::Policy => false,
        };
        if let Some((kind, user)) = broken(&rest).difference(&before).next() {
            return Err(ApiError::conflict(format!(
                "{kind} `{user}` refers to it: expected that to be changed or removed first"
            )));
        }
        if !tx.resource_delete(kind.as_str(), name).await? {
            return Err(ApiError::not_found(kind.as_str()));
        }
        tx.commit().await?;
        tracing::info!(%kind, name, by = caller.name, "resource removed");
        Ok(())
    }

    /// All resources as they are now, without halted campaigns.
    pub async fn snapshot(&self) -> Result<Snapshot, ApiError> {
        Ok(snapshot(self.store.resources_list().await?))
    }
}

/// Stored rows as a snapshot; what a newer version wrote and this one cannot read is passed over.
fn snapshot(rows: Vec<ResourceRow>) -> Snapshot {
    let mut snapshot = Snapshot::default();
    for row in rows {
        if let Ok(kind) = row.kind.parse()
            && let Ok(resource) = Resource::from_json(kind, row.body)
        {
            snapshot.insert(resource, row.version);
        }
    }
    snapshot
}

fn refused(errors: Vec<ResourceError>) -> ApiError {
    let first = errors.first().map(ToString::to_string).unwrap_or_default();
    let message = match errors.len() {
        1 => first,
        count => format!("{count} mistakes, the first: {first}"),
    };
    let mut sorted = errors;
    sorted.sort_by_key(|error| error.line);
    ApiError {
        kind: ErrorKind::Invalid,
        message,
        field: None,
        errors: sorted
            .into_iter()
            .map(|error| ErrorDetail {
                line: Some(error.line),
                about: error.resource,
                message: error.message,
            })
            .collect(),
    }
}

fn info(row: ResourceRow) -> ResourceInfo {
    let mut body = row.body;
    hide_secrets(&mut body);
    ResourceInfo {
        kind: row.kind,
        name: row.name,
        version: row.version,
        body,
        updated_at: row.updated_at,
        updated_by: row.updated_by,
    }
}

/// Passwords and secrets, and every HTTP header's value: a gateway's token often stands in one.
fn hide_secrets(body: &mut Value) {
    if let Value::Object(map) = body {
        for (name, value) in map {
            match (name.as_str(), &mut *value) {
                ("password" | "callback_secret", value) => *value = HIDDEN.into(),
                ("headers", Value::Object(headers)) => {
                    headers.iter_mut().for_each(|(_, value)| *value = HIDDEN.into());
                }
                _ => hide_secrets(value),
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn secrets_are_not_shown() {
        let mut body =
            json!({"name": "m", "password": "p", "http": {"headers": {"X-Key": "k"}, "callback_secret": "s"}});
        hide_secrets(&mut body);
        assert_eq!(
            body,
            json!({"name": "m", "password": "…", "http": {"headers": {"X-Key": "…"}, "callback_secret": "…"}})
        );
    }
}
