//! What is worth knowing of a template when it is applied, beside its mistakes: how many contacts lack a field that it
//! writes without a default, which attributes no contact has at all, how many parts its texts take with usual and with the
//! longest values, and what `smart` makes of them.
//!
//! A contact's values are those of the contacts that there are. What an event or a campaign will give is not known: it is
//! a word, a number or a time, whichever the template's filters take.

use std::collections::{BTreeMap, BTreeSet};

use domain::{Contact, Phone, template::is_contact_field};
use resources::{
    Snapshot, Template,
    composer::{Compose, Composer, Needs},
};
use serde_json::{Map, Value};
use store::{StoreError, fields::FieldUse};
use uuid::Uuid;

use crate::Api;

/// Values of events and campaigns that are tried in all combinations; others are words.
const TRIED: usize = 4;
const KINDS: [[&str; 2]; 3] = [
    ["Basketball", "Chaussures de randonnée enfants"],
    ["49.90", "1234567.89"],
    ["2026-12-24T18:00:00Z", "2026-12-24T18:00:00Z"],
];

impl Api {
    /// The notes on each of `templates`, in their order.
    pub(super) async fn template_notes(
        &self,
        templates: &[&Template],
        merged: &Snapshot,
    ) -> Result<Vec<Vec<String>>, StoreError> {
        let needs: Vec<_> = templates.iter().map(|template| Composer::needs(template)).collect();
        let fields: BTreeSet<&str> = needs
            .iter()
            .flat_map(|needs| &needs.variables)
            .filter_map(|name| field_of(name))
            .collect();
        let fields: Vec<&str> = fields.into_iter().collect();
        let (contacts, uses) = self.store.contact_fields(&fields).await?;
        let uses: BTreeMap<&str, FieldUse> = fields.into_iter().zip(uses).collect();
        let composer = Composer::new(merged);
        Ok(templates
            .iter()
            .zip(&needs)
            .map(|(template, needs)| {
                let mut notes = Vec::new();
                for name in needs.required.iter().filter(|name| field_of(name).is_some()) {
                    let lacking = field_of(name).and_then(|field| uses.get(field)).map_or(0, |one| one.lacking);
                    if lacking > 0 {
                        notes.push(format!(
                            "{name} has no default and {lacking} of {contacts} contacts lack it: they get no text (missing-value)"
                        ));
                    }
                }
                notes.extend(unknown(needs, contacts, &uses));
                notes.extend(parts(&composer, template, &needs.variables, &uses));
                notes
            })
            .collect())
    }
}

/// `contact.city` is the field `city`.
fn field_of(name: &str) -> Option<&str> {
    name.strip_prefix("contact.")?.split('.').next()
}

/// What is written with a default, or asked for, and is in no contact: any name may be an attribute, so a misspelt one is no
/// mistake, and its default is what everybody would read.
fn unknown(needs: &Needs, contacts: i64, uses: &BTreeMap<&str, FieldUse>) -> Vec<String> {
    needs
        .variables
        .difference(&needs.required)
        .filter(|name| {
            field_of(name)
                .filter(|field| !is_contact_field(field))
                .and_then(|field| uses.get(field))
                .is_some_and(|one| contacts > 0 && one.lacking == contacts)
        })
        .map(|name| format!("none of {contacts} contacts has {name}: is the attribute written as it is imported?"))
        .collect()
}

/// How many parts the text takes; nothing where no values fit.
fn parts(
    composer: &Composer,
    template: &Template,
    variables: &BTreeSet<String>,
    uses: &BTreeMap<&str, FieldUse>,
) -> Option<String> {
    let others: Vec<&str> = variables
        .iter()
        .map(String::as_str)
        .filter(|name| !name.starts_with("contact"))
        .collect();
    let composed = |which: usize| {
        let contact = contact(uses, which);
        (0..KINDS.len().pow(others.len().min(TRIED) as u32)).find_map(|combination| {
            let values = values(&others, combination, which);
            let of = |root: &str| values.get(root).cloned().unwrap_or_default();
            let (event, campaign, custom) = (of("event"), of("campaign"), of("custom"));
            let input = Compose {
                template: &template.name,
                contact: &contact,
                message_id: Uuid::nil(),
                event: &event,
                campaign: &campaign,
                custom: &custom,
                default_zone: None,
                deadline: None,
            };
            let own = composer.compose(&input).ok()?;
            let other = composer
                .compose_otherwise(&input)
                .map_or(own.parts, |other| other.parts);
            let smart = match template.smart {
                true => (other, own.parts),
                false => (own.parts, other),
            };
            Some((own, smart))
        })
    };
    let (usual, smart) = composed(0)?;
    let (longest, longest_smart) = composed(1).unzip();
    let plural = |parts: u16| if parts == 1 { "part" } else { "parts" };
    let mut note = format!("usually {} {} ({})", usual.parts, plural(usual.parts), usual.encoding);
    match longest {
        Some(longest) if longest.parts != usual.parts || longest.encoding != usual.encoding => note.push_str(&format!(
            ", {} {} ({}) with the longest values",
            longest.parts,
            plural(longest.parts),
            longest.encoding
        )),
        Some(_) => note.push_str(", also with the longest values"),
        None => note.push_str("; with the longest values it is refused: too many parts"),
    }
    let longest_smart = longest_smart.filter(|longest| *longest != smart);
    for (smart, place) in [(Some(smart), ""), (longest_smart, " with the longest values")] {
        if let Some((without, with)) = smart
            && without != with
        {
            note.push_str(&format!(
                "; {without} {} → {with} with `smart = true`{place}",
                plural(without)
            ));
        }
    }
    Some(note)
}

/// Somebody with the usual (0) or the longest (1) value in each field.
fn contact(uses: &BTreeMap<&str, FieldUse>, which: usize) -> Contact {
    let mut contact = Contact {
        id: "0".into(),
        phone: Some(Phone::from_e164("+262692000000")),
        ..Contact::default()
    };
    for (field, one) in uses {
        let found = if which == 0 { &one.usual } else { &one.longest };
        let value = found.clone().unwrap_or_else(|| KINDS[0][which].to_owned());
        match *field {
            "id" => contact.id = value,
            "phone" => contact.phone = Some(Phone::from_e164(value)),
            "first_name" => contact.first_name = Some(value),
            "last_name" => contact.last_name = Some(value),
            "gender" => contact.gender = Some(value),
            "birth_date" => contact.birth_date = value.parse().ok(),
            "city" => contact.city = Some(value),
            "region" => contact.region = Some(value),
            "postal_code" => contact.postal_code = Some(value),
            "language" => contact.language = Some(value),
            "time_zone" => contact.time_zone = Some(value),
            attribute => {
                contact.attributes.insert(attribute.to_owned(), Value::String(value));
            }
        }
    }
    contact
}

/// By root, a value for each name; which kind each has is one digit of `combination`.
fn values(names: &[&str], combination: usize, which: usize) -> BTreeMap<String, Map<String, Value>> {
    let mut roots: BTreeMap<String, Map<String, Value>> = BTreeMap::new();
    let mut rest = combination;
    for name in names {
        let mut path = name.split('.');
        let Some(root) = path.next() else { continue };
        let kind = rest % KINDS.len();
        rest /= KINDS.len();
        let path: Vec<&str> = path.collect();
        put(roots.entry(root.to_owned()).or_default(), &path, KINDS[kind][which]);
    }
    roots
}

fn put(map: &mut Map<String, Value>, path: &[&str], value: &str) {
    match path {
        [] => {}
        [name] => {
            map.entry(*name).or_insert_with(|| value.into());
        }
        [name, rest @ ..] => {
            let inner = map.entry(*name).or_insert_with(|| Value::Object(Map::new()));
            if let Value::Object(inner) = inner {
                put(inner, rest, value);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use resources::parse_toml;

    use super::*;

    #[test]
    fn parts_are_told_for_usual_and_longest_values() {
        let toml = "[[template]]\nname = \"t\"\nclass = \"transactional\"\nsender = \"36111\"\n\
                    text = \"{{ contact.first_name }} {{ event.order.amount | money }} {{ event.at | date }}\"\n";
        let mut snapshot = Snapshot::default();
        for resource in parse_toml(toml).unwrap() {
            snapshot.insert(resource, 1);
        }
        let template = snapshot.templates["t"].clone();
        let needs = Composer::needs(&template);
        let uses = BTreeMap::from([(
            "first_name",
            FieldUse {
                lacking: 0,
                usual: Some("Anna".into()),
                longest: Some("Ñ€".repeat(60)),
            },
        )]);
        let note = parts(&Composer::new(&snapshot), &template, &needs.variables, &uses).unwrap();
        assert_eq!(note, "usually 1 part (GSM-7), 2 parts (GSM-7) with the longest values");
    }

    #[test]
    fn what_smart_does_is_told() {
        let note = |smart: bool, text: &str, longest: &str| {
            let toml = format!(
                "[[template]]\nname = \"t\"\nclass = \"transactional\"\nsender = \"36111\"\nsmart = {smart}\ntext = \"{text}\"\n"
            );
            let mut snapshot = Snapshot::default();
            for resource in parse_toml(&toml).unwrap() {
                snapshot.insert(resource, 1);
            }
            let template = snapshot.templates["t"].clone();
            let uses = BTreeMap::from([(
                "city",
                FieldUse {
                    lacking: 0,
                    usual: Some("Ici".into()),
                    longest: Some(longest.into()),
                },
            )]);
            let needs = Composer::needs(&template);
            parts(&Composer::new(&snapshot), &template, &needs.variables, &uses).unwrap()
        };
        let curly = format!("l’{} {{{{ contact.city }}}}", "a".repeat(80));
        assert_eq!(
            note(false, &curly, "Ici"),
            "usually 2 parts (UCS-2), also with the longest values; 2 parts → 1 with `smart = true`"
        );
        assert_eq!(
            note(true, &curly, &"a".repeat(90)),
            "usually 1 part (GSM-7), 2 parts (GSM-7) with the longest values; 2 parts → 1 with `smart = true`; \
             3 parts → 2 with `smart = true` with the longest values"
        );
        assert_eq!(
            note(false, "{{ contact.city }}", "Ici"),
            "usually 1 part (GSM-7), also with the longest values"
        );
    }

    #[test]
    fn an_attribute_that_nobody_has_is_told() {
        let toml = "[[template]]\nname = \"t\"\nclass = \"transactional\"\nsender = \"36111\"\n\
                    text = \"{{ contact.loyalty_levl | default('x') }} {{ contact.points | default(0) }} {{ contact.gone }} \
                    {{ contact.city | default('x') }}\"\n";
        let Some(resources::Resource::Template(template)) = parse_toml(toml).unwrap().pop() else {
            panic!("a template");
        };
        let lacking = |lacking| FieldUse {
            lacking,
            ..FieldUse::default()
        };
        let uses = BTreeMap::from([
            ("loyalty_levl", lacking(7)),
            ("points", lacking(6)),
            ("gone", lacking(7)),
            ("city", lacking(7)),
        ]);
        let needs = Composer::needs(&template);
        let notes = unknown(&needs, 7, &uses);
        assert_eq!(notes.len(), 1, "{notes:?}");
        assert!(
            notes[0].starts_with("none of 7 contacts has contact.loyalty_levl"),
            "{notes:?}"
        );
        assert!(unknown(&needs, 0, &uses).is_empty());
    }
}
