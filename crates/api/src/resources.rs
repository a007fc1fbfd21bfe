//! Resources: applying a file of them, reading them, removing one.
//!
//! Applying is all or nothing, and tells every mistake of the file at once with its line: first what each resource says
//! by itself, then what needs the others (templates and audiences that are referred to, expressions, texts). The
//! references are checked under one lock with what is there already, so that two applies at once cannot break each
//! other's.

use std::{collections::BTreeSet, sync::Arc};

use domain::audience::Expression;
use jiff::Timestamp;
use resources::{Kind, Resource, ResourceError, Snapshot, Template, composer::Composer, parse_toml_with_lines};
use serde_json::Value;
use store::{
    audience::Named,
    resources::{Applied, ResourceRow},
};

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
        for one in &parsed {
            merged.insert(one.resource.clone(), 0);
        }
        let mut errors = Vec::new();
        for one in &parsed {
            for (key, message) in problems(&one.resource, &merged) {
                errors.push(one.error(key, message));
            }
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
        if !dry_run {
            tx.commit().await?;
            tracing::info!(resources = bodies.len(), by = caller.name, "resources applied");
        }
        Ok(parsed
            .iter()
            .zip(changes)
            .map(|(one, change)| AppliedResource {
                kind: one.resource.kind(),
                name: one.resource.name().to_owned(),
                change,
            })
            .collect())
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

/// The named audiences of a snapshot that parse.
pub(crate) fn named(snapshot: &Snapshot) -> Named {
    snapshot
        .audiences
        .iter()
        .filter_map(|(name, audience)| {
            let expression = domain::audience::parse(&audience.condition).ok()?;
            Some((name.clone(), Arc::new(expression)))
        })
        .collect()
}

/// An expression that stands for itself: it parses, and the audiences that it names are there.
pub(crate) fn parse_condition(text: &str, snapshot: &Snapshot) -> Result<Expression, String> {
    let expression = domain::audience::parse(text).map_err(|error| error.to_string())?;
    check_audiences(&expression, snapshot, None)?;
    Ok(expression)
}

/// That every audience named by an expression is there, and that none leads back to itself; `of` is the audience that
/// the expression is the definition of.
fn check_audiences(expression: &Expression, snapshot: &Snapshot, of: Option<&str>) -> Result<(), String> {
    fn walk(expression: &Expression, snapshot: &Snapshot, path: &mut Vec<String>) -> Result<(), String> {
        for name in expression.audiences() {
            if path.contains(&name) {
                return Err(format!("audience `{name}` leads back to itself: expected no circle"));
            }
            let Some(audience) = snapshot.audiences.get(&name) else {
                return Err(format!("there is no audience `{name}`"));
            };
            // What does not parse is told at its own place.
            if let Ok(inner) = domain::audience::parse(&audience.condition) {
                path.push(name);
                walk(&inner, snapshot, path)?;
                path.pop();
            }
        }
        Ok(())
    }
    walk(expression, snapshot, &mut of.map(str::to_owned).into_iter().collect())
}

/// What is wrong with a resource beside all others: the key and what was expected.
fn problems(resource: &Resource, all: &Snapshot) -> Vec<(&'static str, String)> {
    let mut problems = Vec::new();
    match resource {
        Resource::Gateway(_) => {}
        Resource::Template(template) => problems.extend(
            Composer::check(template)
                .into_iter()
                .map(|problem| (problem.key, problem.message)),
        ),
        Resource::Audience(audience) => match domain::audience::parse(&audience.condition) {
            Ok(expression) => {
                let checked = check_audiences(&expression, all, Some(&audience.name));
                problems.extend(checked.err().map(|message| ("where", message)));
            }
            Err(error) => problems.push(("where", error.to_string())),
        },
        Resource::Trigger(trigger) => {
            if !all.templates.contains_key(&trigger.template) {
                problems.push(("template", format!("there is no template `{}`", trigger.template)));
            }
            if let Some(audience) = &trigger.audience
                && !all.audiences.contains_key(audience)
            {
                problems.push(("audience", format!("there is no audience `{audience}`")));
            }
            if let Some(when) = &trigger.when {
                let checked = domain::audience::parse_for_trigger(when)
                    .map_err(|error| error.to_string())
                    .and_then(|expression| check_audiences(&expression, all, None));
                problems.extend(checked.err().map(|message| ("when", message)));
            }
            if let Some(unless) = &trigger.unless
                && let Err(error) = domain::audience::parse_unless(unless)
            {
                problems.push(("unless", error.to_string()));
            }
        }
        Resource::Policy(policy) => {
            for gateway in policy.prices.iter().filter_map(|price| price.gateway.as_ref()) {
                if !all.gateways.contains_key(gateway) {
                    problems.push(("price", format!("there is no gateway `{gateway}`")));
                }
            }
        }
    }
    problems
}

/// The resources that refer to something that is not there.
fn broken(all: &Snapshot) -> BTreeSet<(Kind, String)> {
    let resources = (all.audiences.values().map(|one| Resource::Audience((**one).clone())))
        .chain(all.triggers.values().map(|one| Resource::Trigger((**one).clone())))
        .chain([Resource::Policy((*all.policy).clone())]);
    resources
        .filter(|resource| !problems(resource, all).is_empty())
        .map(|resource| (resource.kind(), resource.name().to_owned()))
        .collect()
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

    fn check(toml: &str) -> Vec<String> {
        let parsed = parse_toml_with_lines(toml).unwrap();
        let mut all = Snapshot::default();
        for one in &parsed {
            all.insert(one.resource.clone(), 1);
        }
        parsed
            .iter()
            .flat_map(|one| {
                problems(&one.resource, &all)
                    .into_iter()
                    .map(|(key, message)| one.error(key, message).to_string())
            })
            .collect()
    }

    #[test]
    fn references_and_expressions_are_checked_with_their_lines() {
        let errors = check(
            r#"
[[audience]]
name = "north"
where = 'region = '

[[trigger]]
name = "t"
on = "order.placed"
template = "nothing"
when = 'event.amount >'
audience = "south"
"#,
        );
        assert_eq!(errors.len(), 4, "{errors:#?}");
        assert!(errors[0].starts_with("line 4: audience `north`: where:"), "{errors:#?}");
        assert!(
            errors
                .iter()
                .any(|error| error.contains("there is no template `nothing`"))
        );
        assert!(
            errors
                .iter()
                .any(|error| error.contains("there is no audience `south`"))
        );
        assert!(errors.iter().any(|error| error.starts_with("line 10:")), "{errors:#?}");
    }

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
