use std::collections::BTreeMap;

use jiff::tz::TimeZone;
use serde_json::json;

use super::*;
use crate::Phone;

fn contact() -> Contact {
    Contact {
        id: "42".into(),
        phone: Some(Phone::from_e164("+262692123456")),
        first_name: Some("O'Brien & Söhne <b>".into()),
        last_name: Some("  ".into()),
        birth_date: Some("1999-03-01".parse().unwrap()),
        attributes: BTreeMap::from([("points".into(), json!(120)), ("note".into(), json!(""))]),
        ..Contact::default()
    }
}

fn locale(language: Language) -> Locale {
    Locale {
        language,
        zone: TimeZone::get("Indian/Reunion").unwrap(),
        currency: String::new(),
        country: Some("RE".into()),
    }
}

fn render_in(language: Language, source: &str) -> Result<String, RenderError> {
    let event = json!({
        "amount": 1234.5, "quantity": 2.0, "at": "2026-12-01T14:30:00Z", "gift": true, "shop": "  ", "none": null,
        "items": [{"name": "shoes"}, {"name": "socks"}], "address": {"city": "Saint-Denis"}, "phone": "+262692654321",
        "text": "{{ contact.id }} 5 < 6 \"x\"",
    });
    let campaign = json!({"article": "sandales"});
    let (Json::Object(event), Json::Object(campaign)) = (event, campaign) else {
        panic!()
    };
    Compiled::compile(source).unwrap().render(&Values {
        contact: &contact(),
        event: &event,
        campaign: &campaign,
        custom: &Map::new(),
        deadline: Some("2026-11-24T14:00:00Z".parse().unwrap()),
        locale: locale(language),
        links: None,
    })
}

fn render(source: &str) -> Result<String, RenderError> {
    render_in(Language::French, source)
}

#[test]
fn texts_arrive_as_they_are_typed() {
    assert_eq!(
        render("{{ contact.first_name }}: 5 < 6 & \"x\" { } 'é' €").unwrap(),
        "O'Brien & Söhne <b>: 5 < 6 & \"x\" { } 'é' €"
    );
    // A value is data: what looks like a tag in it stays what it is.
    assert_eq!(render("{{ event.text }}").unwrap(), "{{ contact.id }} 5 < 6 \"x\"");
    assert_eq!(render("{% raw %}{{ x }}{% endraw %}").unwrap(), "{{ x }}");
}

#[test]
fn what_is_missing_is_never_a_hole() {
    let missing = |source| match render(source) {
        Err(RenderError::MissingValue { name }) => name,
        other => panic!("{other:?}"),
    };
    assert_eq!(missing("Bonjour {{ contact.last_name }},"), "contact.last_name");
    assert_eq!(missing("Bonjour {{ contact.last_name | title }},"), "contact.last_name");
    assert_eq!(missing("{{ contact.city }}"), "contact.city");
    assert_eq!(missing("{{ contact.note }}"), "contact.note");
    assert_eq!(missing("{{ event.shop }}"), "event.shop");
    assert_eq!(missing("{{ event.none }}"), "event.none");
    assert_eq!(missing("{{ event.address.street }}"), "event.address.street");
    assert_eq!(missing("{{ event.nowhere.street }}"), "event.nowhere");
    assert_eq!(
        missing("{{ contact.city | default('x') }}{{ custom.code }}"),
        "custom.code"
    );
    assert_eq!(missing("{{ event.total | money }}"), "event.total");
    assert_eq!(
        render("{{ contact.last_name | default('Bonjour') }}, {{ contact.city | title | default('toi') }}").unwrap(),
        "Bonjour, toi"
    );
    assert_eq!(render("{% if contact.city %}a{% else %}b{% endif %}").unwrap(), "b");
    assert_eq!(render("{{ contact.city is defined }}").unwrap(), "non");
}

#[test]
fn values_are_written_in_the_readers_language_and_zone() {
    let source = "{{ event.amount | money }} {{ event.amount }} {{ event.quantity }} {{ event.gift }} \
                  {{ campaign.deadline }} {{ event.at | date('day') }} {{ event.at | time }} {{ contact.birth_date }} \
                  {{ event.phone | phone }} {{ contact.points }}";
    assert_eq!(
        render(source).unwrap(),
        "1 234,50 € 1234,5 2 oui 24/11/2026 à 18h mardi 1er décembre 18h30 01/03/1999 0692 65 43 21 120"
    );
    assert_eq!(
        render_in(Language::AmericanEnglish, source).unwrap(),
        "€1,234.50 1234.5 2 yes Nov 24, 2026, 6 pm Tuesday, December 1 6:30 pm Mar 1, 1999 0692 65 43 21 120"
    );
    assert_eq!(
        render_in(
            Language::of("en-GB"),
            "{{ event.at }} {{ event.at | date('long') }} {{ event.amount | money('USD') }}"
        )
        .unwrap(),
        "1 Dec 2026, 18:30 1 December 2026 $1,234.50"
    );
    assert_eq!(
        render("{% for item in event['items'] %}{{ loop.index }}. {{ item.name }} {% endfor %}").unwrap(),
        "1. shoes 2. socks "
    );
    assert_eq!(
        render("{{ event.address.city | upper }} {{ contact['id'] }}").unwrap(),
        "SAINT-DENIS 42"
    );
}

#[test]
fn a_template_cannot_run_away() {
    assert_eq!(
        render("{% for a in event['items'] %}{% for b in 'x' * 100000 %}{{ b }}{% endfor %}{% endfor %}"),
        Err(RenderError::TooMuchWork)
    );
    assert!(matches!(
        render("{{ event['items'] }}"),
        Err(RenderError::Failed { line: 1, what }) if what.contains("list")
    ));
    assert!(matches!(
        render("a\n{{ contact.first_name | money }}"),
        Err(RenderError::Failed { line: 2, what }) if what.contains("expected a number") && !what.contains("Brien")
    ));
    assert!(
        matches!(render("{{ contact.first_name * 2.5 }}"), Err(RenderError::Failed { what, .. }) if !what.contains("Brien"))
    );
}

fn errors(source: &str) -> Vec<(usize, usize, String)> {
    Compiled::compile(source)
        .unwrap_err()
        .into_iter()
        .map(|error| (error.line, error.column, error.message))
        .collect()
}

#[test]
fn mistakes_are_told_with_line_and_column() {
    for (source, line, column, says) in [
        ("a {{ contcat.first_name }}", 1, 6, "Did you mean `contact`?"),
        ("a\n b {{ name }}", 2, 7, "unknown value `name`"),
        ("{{ contact.frist_name }}", 1, 12, "did you mean `first_name`?"),
        (
            "é {% if contact.city %}{{ contact.city | uper }}{% endif %}",
            1,
            42,
            "Did you mean `upper`?",
        ),
        ("{{ contact.city.upper() }}", 1, 17, "method"),
        ("{{ range(3) }}", 1, 4, "no function `range`"),
        ("{% include 'x' %}", 1, 4, "include"),
        (
            "{% if contact.city is filled %}x{% endif %}",
            1,
            23,
            "unknown test `filled`",
        ),
        (
            "{% if contact.city is not filled %}x{% endif %}",
            1,
            27,
            "unknown test `filled`",
        ),
        ("a\n{{ contact. }}", 2, 13, "syntax error"),
        ("{{ contact.city", 1, 12, "syntax error"),
    ] {
        let found = errors(source);
        assert_eq!(found.len(), 1, "{source}: {found:?}");
        assert_eq!((found[0].0, found[0].1), (line, column), "{source}: {found:?}");
        assert!(found[0].2.contains(says), "{source}: {found:?}");
    }
    assert_eq!(errors("{{ a }}{{ b | c }}").len(), 3);
}

#[test]
fn what_is_right_is_taken() {
    for source in [
        "{{ contact.loyalty_level | default('x') }}",
        "{{ contact.phone2 | default('x') }}",
        "{% set x = contact.city %}{{ x | default('y') }}",
        "{% for item in event.items %}{{ item.name }}{% endfor %}",
        "{% if not (contact.city is defined) and (event.amount > 3 or event.kind in ['a', 'b']) %}x{% endif %}",
        "{%- if contact.city -%}x{%- endif -%}",
        "{{ 'name(' }} name(x) | nothing",
        "{# {{ unknown }} #}",
    ] {
        assert!(
            Compiled::compile(source).is_ok(),
            "{source}: {:?}",
            Compiled::compile(source).err()
        );
    }
}

#[test]
fn a_template_tells_what_it_needs() {
    let compiled = Compiled::compile(
        "{{ contact.first_name | default('x') }} {{ contact.city }} {% if event.gift %}{{ event.address.city }}{% endif %}",
    )
    .unwrap();
    let variables: Vec<&str> = compiled.variables().iter().map(String::as_str).collect();
    assert_eq!(
        variables,
        ["contact.city", "contact.first_name", "event.address.city", "event.gift"]
    );
    let required: Vec<String> = compiled.required().into_iter().collect();
    assert_eq!(required, ["contact.city", "event.address.city"]);
}

#[test]
fn links_are_short_and_of_the_message() {
    let render = |source: &str, links: Option<std::sync::Arc<Links>>| {
        let (contact, empty) = (contact(), Map::new());
        Compiled::compile(source).unwrap().render(&Values {
            contact: &contact,
            event: &empty,
            campaign: &empty,
            custom: &empty,
            deadline: None,
            locale: locale(Language::French),
            links,
        })
    };
    let links = Links::new("https://s.example/l/", uuid::Uuid::from_u128(7));
    let source = "{{ link('https://shop.example/a') }} {{ link(\"https://shop.example/c?\" ~ contact.id) }} {{ link('https://shop.example/a') }}";
    let text = render(source, Some(links.clone())).unwrap();
    let words: Vec<&str> = text.split(' ').collect();
    assert_eq!(words[0], words[2]);
    assert!(
        words.iter().all(|word| word.len() == "https://s.example/l/".len() + 11),
        "{text}"
    );
    let made = links.take();
    let urls: Vec<&str> = made.iter().map(|link| link.url.as_str()).collect();
    assert_eq!(urls, ["https://shop.example/a", "https://shop.example/c?42"]);
    assert!(words[1].ends_with(&made[1].code));
    assert!(matches!(render(source, None), Err(RenderError::Failed { what, .. }) if what.contains("short_links")));
    assert_eq!(
        render("{{ link('https://shop.example/' ~ contact.city) }}", Some(links)),
        Err(RenderError::MissingValue {
            name: "contact.city".into()
        })
    );
    for bad in [
        "{{ link(contact.id) }}",
        "{{ link('https://shop' ~ contact.id) }}",
        "{{ link('a' | replace('a', 'b')) }}",
        "{{ link() }}",
    ] {
        assert!(errors(bad)[0].2.contains("written out"), "{bad}");
    }
}
