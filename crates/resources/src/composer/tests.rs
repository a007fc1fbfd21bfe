use std::collections::BTreeMap;

use serde_json::json;

use super::*;
use crate::{Resource, parse_toml, policy::Price};

const RESOURCES: &str = r#"
[[template]]
name = "sale"
class = "marketing"
sender = "BOUTIQUE"
language = "fr"
text = "{{ contact.first_name | default('Bonjour') }}, -20% sur {{ campaign.article }} jusqu'au {{ campaign.deadline }}."
[template.languages]
en = "{{ contact.first_name | default('Hello') }}, 20% off {{ campaign.article }} until {{ campaign.deadline }}."

[[template]]
name = "order"
class = "transactional"
sender = "36111"
text = """
Merci {{ contact.first_name }} : {{ event.amount | money }}
"""

[[template]]
name = "ab"
class = "transactional"
sender = "BOUTIQUE"
text = "unused"
[[template.variant]]
name = "a"
text = "A"
[[template.variant]]
name = "b"
text = "B"
weight = 3

[[template]]
name = "long"
class = "transactional"
sender = "BOUTIQUE"
text = "l’{{ custom.text }}"
smart = true
max_parts = 2

[[template]]
name = "number"
class = "marketing"
sender = "36111"
text = "{{ custom.text }}"

[[template]]
name = "own-brand"
class = "marketing"
sender = "36111"
brand = "L’épi"
text = "{{ custom.text }}"
smart = true

[[template]]
name = "told"
class = "transactional"
sender = "36111"
text = "Code: {{ custom.text }}"
"#;

fn composer() -> Composer {
    let mut snapshot = Snapshot {
        version: 7,
        ..Snapshot::default()
    };
    for resource in parse_toml(RESOURCES).unwrap() {
        snapshot.insert(resource, 1);
    }
    let policy = Policy {
        opt_out: Some("STOP au 36111".into()),
        brand: Some("BOUTIQUE".into()),
        prices: vec![Price {
            prefix: "+262".into(),
            gateway: None,
            micros: 35_000,
        }],
        ..Policy::default()
    };
    snapshot.insert(Resource::Policy(policy), 1);
    Composer::new(&snapshot)
}

fn contact(id: &str, language: Option<&str>) -> Contact {
    Contact {
        id: id.into(),
        phone: Some(Phone::from_e164("+262692123456")),
        first_name: Some("O'Brien & Söhne".into()),
        language: language.map(Into::into),
        ..Contact::default()
    }
}

fn composed(template: &str, contact: &Contact, values: Value) -> Result<Composed, Refusal> {
    let values = values.as_object().cloned().unwrap_or_default();
    composer().compose(&Compose {
        template,
        contact,
        message_id: Uuid::nil(),
        event: &values,
        campaign: &values,
        custom: &values,
        default_zone: None,
        deadline: Some("2026-11-24T14:00:00Z".parse().unwrap()),
    })
}

#[test]
fn a_marketing_text_is_whole() {
    let article = json!({"article": "les sandales"});
    let french = composed("sale", &contact("1", Some("fr-RE")), article.clone()).unwrap();
    assert_eq!(
        french.text,
        "O'Brien & Söhne, -20% sur les sandales jusqu'au 24/11/2026 à 18h. STOP au 36111"
    );
    assert_eq!(
        (french.encoding, french.parts, french.cost_micros),
        (Encoding::Gsm7, 1, 35_000)
    );
    assert_eq!(french.language.as_deref(), Some("fr"));
    let english = composed("sale", &contact("1", Some("en-GB")), article.clone()).unwrap();
    assert_eq!(
        english.text,
        "O'Brien & Söhne, 20% off les sandales until 24 Nov 2026, 18:00. STOP au 36111"
    );
    assert_eq!(english.language.as_deref(), Some("en"));
    // A language that the template does not have gets the main text, and nobody gets an empty name.
    let mut other = contact("1", Some("de"));
    other.first_name = None;
    assert!(
        composed("sale", &other, article)
            .unwrap()
            .text
            .starts_with("Bonjour, -20%")
    );
}

#[test]
fn a_transactional_text_has_no_mention() {
    let text = composed("order", &contact("1", None), json!({"amount": 12.5}))
        .unwrap()
        .text;
    assert_eq!(text, "Merci O'Brien & Söhne : 12,50 €");
}

#[test]
fn refusals_have_a_reason_and_no_values() {
    let reason = |template, contact: &Contact, values| {
        let refusal = composed(template, contact, values).unwrap_err();
        assert!(!refusal.detail.contains("Brien"), "{}", refusal.detail);
        (refusal.reason, refusal.detail)
    };
    assert_eq!(
        reason("none", &contact("1", None), json!({})).0,
        Reason::UnknownTemplate
    );
    let (missing, detail) = reason("sale", &contact("1", None), json!({}));
    assert_eq!(missing, Reason::MissingValue);
    assert!(detail.contains("campaign.article"), "{detail}");
    assert_eq!(
        reason("order", &contact("1", None), json!({"amount": "a lot"})).0,
        Reason::TemplateFailed
    );
    // Smart: 2 + 304 septets are two parts, one more are three.
    let long = |length: usize| composed("long", &contact("1", None), json!({"text": "a".repeat(length)}));
    assert_eq!(long(304).unwrap().parts, 2);
    assert_eq!(long(305).unwrap_err().reason, Reason::TemplateFailed);
}

#[test]
fn variants_divide_the_contacts() {
    let mut counts: BTreeMap<String, u32> = BTreeMap::new();
    for id in 0..400 {
        let composed = composed("ab", &contact(&id.to_string(), None), json!({})).unwrap();
        assert_eq!(composed.text.to_lowercase(), composed.variant.clone().unwrap());
        *counts.entry(composed.variant.unwrap()).or_default() += 1;
    }
    assert!((60..140).contains(&counts["a"]), "{counts:?}");
}

#[test]
fn a_bad_template_is_told_with_its_place() {
    let mut template = (*composer().templates["sale"].template).clone();
    assert!(Composer::check(&template).is_empty());
    template.text = "a\n{{ contcat.first_name }}".into();
    template.languages.insert("de".into(), "{{ x }".into());
    let problems = Composer::check(&template);
    assert_eq!(problems.len(), 2, "{problems:?}");
    assert_eq!(problems[0].key, "text");
    assert!(
        problems[0]
            .message
            .starts_with("line 2, column 4: unknown value `contcat`"),
        "{problems:?}"
    );
    assert!(problems[1].message.starts_with("`de`: line 1"), "{problems:?}");
}

#[test]
fn a_text_from_a_number_says_whom_it_is_from_and_it_counts() {
    let of = |template, text: &str| composed(template, &contact("1", None), json!({ "text": text })).unwrap();
    assert_eq!(of("number", "Soldes").text, "BOUTIQUE: Soldes STOP au 36111");
    assert_eq!(
        of("number", "La boutique solde").text,
        "La boutique solde STOP au 36111"
    );
    // What is not marketing is for the template to say.
    assert_eq!(of("told", "1234").text, "Code: 1234");
    // 10 for the name and 14 for the mention: 136 are left of 160.
    assert_eq!(
        (
            of("number", &"a".repeat(136)).parts,
            of("number", &"a".repeat(137)).parts
        ),
        (1, 2)
    );
    // The template's own name comes first, and is made GSM-7 like the rest.
    let own = of("own-brand", "Soldes");
    assert_eq!(
        (own.text.as_str(), own.encoding),
        ("L'épi: Soldes STOP au 36111", Encoding::Gsm7)
    );
    // A value that holds the word is no mention.
    assert_eq!(
        of("number", "Panneau STOP 36111").text,
        "BOUTIQUE: Panneau STOP 36111 STOP au 36111"
    );
}

#[test]
fn what_smart_is_good_for_can_be_seen() {
    let both = |template, length: usize| {
        let (composer, contact) = (composer(), contact("1", None));
        let values = json!({ "text": format!("l’{}", "a".repeat(length)) });
        let values = values.as_object().unwrap();
        let input = Compose {
            template,
            contact: &contact,
            message_id: Uuid::nil(),
            event: values,
            campaign: values,
            custom: values,
            default_zone: None,
            deadline: None,
        };
        let other = composer.compose_otherwise(&input).unwrap();
        (
            composer.compose(&input).map(|composed| composed.parts).ok(),
            other.parts,
            other.encoding,
        )
    };
    assert_eq!(both("number", 100), (Some(2), 1, Encoding::Gsm7));
    // The other way it is longer than the template allows, and still told.
    assert_eq!(both("long", 150), (Some(1), 3, Encoding::Ucs2));
}
