//! What a resource needs of the others: that what it refers to is there, and that its expressions and texts are read.

use std::{collections::BTreeSet, sync::Arc};

use domain::audience::{Expression, ReachError};
use resources::{Kind, Resource, Snapshot, composer::Composer};
use store::audience::Named;

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

/// That every audience named by an expression is there, that none leads back to itself, and that it is neither too deep nor
/// too large with them; `of` is the audience that the expression is the definition of.
fn check_audiences(expression: &Expression, snapshot: &Snapshot, of: Option<&str>) -> Result<(), String> {
    let find = |name: &str| match snapshot.audiences.get(name) {
        // What does not parse is told at its own place.
        Some(audience) => Ok(domain::audience::parse(&audience.condition).ok().map(Arc::new)),
        None => Err(ReachError::Unknown(name.to_owned())),
    };
    expression.check_reach(of, &find).map_err(|error| error.to_string())
}

/// What is wrong with a resource beside all others: the key and what was expected.
pub(super) fn problems(resource: &Resource, all: &Snapshot) -> Vec<(&'static str, String)> {
    let mut problems = Vec::new();
    match resource {
        Resource::Gateway(_) => {}
        Resource::Template(template) => {
            problems.extend(
                Composer::check(template)
                    .into_iter()
                    .map(|problem| (problem.key, problem.message)),
            );
            if all.policy.short_links.is_none() && Composer::has_links(template) {
                problems.push((
                    "text",
                    "`link(…)` expects `short_links` in the policy: the address that short links begin with".into(),
                ));
            }
        }
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
            for answer in policy.keywords.iter().filter_map(|rule| rule.answer.as_ref()) {
                match all.templates.get(answer).map(|template| template.class) {
                    Some(domain::Class::Transactional) => {}
                    Some(domain::Class::Marketing) => problems.push((
                        "keyword",
                        format!("`{answer}` is a marketing template: expected a transactional one, an answer must reach who said STOP"),
                    )),
                    None => problems.push(("keyword", format!("there is no template `{answer}`"))),
                }
            }
            if policy.short_links.is_none()
                && let Some(template) = all.templates.values().find(|template| Composer::has_links(template))
            {
                problems.push((
                    "short_links",
                    format!(
                        "template `{}` has links: expected the address that they begin with",
                        template.name
                    ),
                ));
            }
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
pub(super) fn broken(all: &Snapshot) -> BTreeSet<(Kind, String)> {
    let resources = (all.audiences.values().map(|one| Resource::Audience((**one).clone())))
        .chain(all.triggers.values().map(|one| Resource::Trigger((**one).clone())))
        .chain([Resource::Policy((*all.policy).clone())]);
    resources
        .filter(|resource| !problems(resource, all).is_empty())
        .map(|resource| (resource.kind(), resource.name().to_owned()))
        .collect()
}

#[cfg(test)]
mod tests {
    use resources::parse_toml_with_lines;

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
    fn audiences_that_are_too_deep_or_too_large_are_refused() {
        let audience =
            |name: &str, condition: &str| format!("[[audience]]\nname = \"{name}\"\nwhere = '{condition}'\n");
        let mut deep = audience("a0", "age < 30");
        for level in 1..=17 {
            deep.push_str(&audience(
                &format!("a{level}"),
                &format!("not in audience a{}", level - 1),
            ));
        }
        let errors = check(&deep);
        assert_eq!(errors.len(), 1, "{errors:#?}");
        assert!(
            errors[0].contains("a17") && errors[0].contains("nested too deeply"),
            "{errors:#?}"
        );

        let mut large = audience("a0", "age < 30");
        for level in 1..=3 {
            let many = vec![format!("in audience a{}", level - 1); 40].join(" or ");
            large.push_str(&audience(&format!("a{level}"), &many));
        }
        let errors = check(&large);
        assert_eq!(errors.len(), 1, "{errors:#?}");
        assert!(errors[0].contains("64000 conditions"), "{errors:#?}");
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
}
