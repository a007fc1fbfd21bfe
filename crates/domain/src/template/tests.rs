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
    // Nothing is spun, and a single brace is a brace.
    assert_eq!(
        render("{Bonjour|Salut} {a|b} {event.gift} {{ '{c|d}' }}").unwrap(),
        "{Bonjour|Salut} {a|b} {event.gift} {c|d}"
    );
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
    for reckoned in [
        "{{ contact.city + 1 }}",
        "{{ 1 - contact.city }}",
        "{{ contact.city ~ 'x' }}",
    ] {
        assert_eq!(missing(reckoned), "contact.city", "{reckoned}");
    }
    assert_eq!(
        render("{{ contact.last_name | default('Bonjour') }}, {{ contact.city | title | default('toi') }}").unwrap(),
        "Bonjour, toi"
    );
    assert_eq!(render("{% if contact.city %}a{% else %}b{% endif %}").unwrap(), "b");
    assert_eq!(render("{{ contact.city is defined }}").unwrap(), "non");
    // Nor is it one of a list.
    assert_eq!(missing("Bonjour {{ [contact.city] | join(' ') }},"), "contact.city");
    assert_eq!(
        missing("Bonjour {{ [contact.id, contact.city] | join(' ') }},"),
        "contact.city"
    );
    assert_eq!(missing("Bonjour {{ event.sizes | join }},"), "event.sizes");
    assert_eq!(
        missing("{{ event['items'] | join(', ', 'colour') }}"),
        "event.items.[].colour"
    );
    for nothing in [
        "{{ [] | join(', ') }}",
        "{{ [' '] | join }}",
        "{{ contact.id | replace('42', ' ') }}",
        "{{ contact.id | truncate(0) }}",
    ] {
        assert!(
            matches!(render(nothing), Err(RenderError::MissingValue { .. })),
            "{nothing}"
        );
    }
    assert_eq!(
        render("{{ event['items'] | join(', ', 'name') }} {{ event['items'] | join(d='/', attribute='name') }}")
            .unwrap(),
        "shoes, socks shoes/socks"
    );
    assert_eq!(
        render("{{ [1.5, true, event.at] | join(' ') }} {{ [contact.city] | join | default('x') }}").unwrap(),
        "1,5 oui 01/12/2026 à 18h30 x"
    );
    assert!(matches!(
        render("{{ contact.id | join(' ') }}"),
        Err(RenderError::Failed { what, .. }) if what.contains("list")
    ));
    // Nor what is reckoned from it.
    for reckoned in [
        "{{ contact.bonus | abs }}",
        "{{ contact.bonus | round }}",
        "{{ contact.bonus | round(2) | money }}",
        "{{ contact.bonus | int }}",
        "{{ contact.bonus | float }}",
        "{{ contact.bonus | length }}",
        "{{ contact.bonus | first }}",
        "{{ contact.bonus | last }}",
        "{{ contact.bonus | min }}",
        "{{ contact.bonus | max }}",
        "{{ contact.bonus + 1 }}",
        "{{ 2 * contact.bonus }}",
        "{{ contact.points - contact.bonus }}",
        "{{ contact.bonus / 2 }}",
    ] {
        assert_eq!(missing(reckoned), "contact.bonus", "{reckoned}");
    }
    assert_eq!(
        render("{{ contact.bonus | abs | default(0) }} {{ contact.bonus | int(7) }} {{ contact.bonus | float(default=1.5) }}")
            .unwrap(),
        "0 7 1,5"
    );
    assert_eq!(
        render("{{ contact.points + 1 }} {{ (-1.25) | abs | round(1) }} {{ event['items'] | length }} {{ '7' | int }}")
            .unwrap(),
        "121 1,2 2 7"
    );
}

#[test]
fn every_language_has_its_forms() {
    let source = "{{ event.at }} {{ event.at | date('long') }} {{ event.at | date('day') }} {{ contact.birth_date }} \
                  {{ event.amount | money }} {{ event.amount }} {{ event.gift }} {{ 1 > 2 }} {{ 'istanbul' | title }}";
    for (tag, text) in [
        (
            "de-AT",
            "01.12.2026, 18:30 1. Dezember 2026 Dienstag, 1. Dezember 01.03.1999 1.234,50 € 1234,5 ja nein Istanbul",
        ),
        (
            "es",
            "01/12/2026, 18:30 1 de diciembre de 2026 martes, 1 de diciembre 01/03/1999 1.234,50 € 1234,5 sí no Istanbul",
        ),
        (
            "pt-BR",
            "01/12/2026, 18:30 1 de dezembro de 2026 terça-feira, 1 de dezembro 01/03/1999 1.234,50 € 1234,5 sim não Istanbul",
        ),
        (
            "tr",
            "01.12.2026 18:30 1 Aralık 2026 1 Aralık Salı 01.03.1999 1.234,50 € 1234,5 evet hayır İstanbul",
        ),
        (
            "nl",
            "1 Dec 2026, 18:30 1 December 2026 Tuesday 1 December 1 Mar 1999 €1,234.50 1234.5 yes no Istanbul",
        ),
    ] {
        assert_eq!(render_in(Language::of(tag), source).unwrap(), text, "{tag}");
    }
    assert_eq!(
        render_in(
            Language::Turkish,
            "{{ 'ırmak' | upper }} {{ 'İZMİR ILICA' | lower }} {{ 'iPEK' | capitalize }}"
        )
        .unwrap(),
        "IRMAK izmir ılıca İpek"
    );
    // Every month and every day of the week, each once.
    for tag in ["fr", "en", "de", "es", "pt", "tr"] {
        let mut months = std::collections::BTreeSet::new();
        let mut days = std::collections::BTreeSet::new();
        for month in 1..=12 {
            let text = render_in(
                Language::of(tag),
                &format!("{{{{ '2026-{month:02}-15' | date('long') }}}}"),
            );
            months.insert(text.unwrap());
        }
        for day in 1..=7 {
            let text = render_in(
                Language::of(tag),
                &format!("{{{{ '2026-06-{day:02}' | date('day') }}}}"),
            );
            days.insert(text.unwrap().replace(|one: char| one.is_ascii_digit(), ""));
        }
        assert_eq!((months.len(), days.len()), (12, 7), "{tag}");
    }
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
        render("{{ 'x' * 65537 }}"),
        Err(RenderError::TooLong { limit: MAX_BYTES })
    );
    assert_eq!(render("{{ 'x' * 65536 }}").unwrap().len(), MAX_BYTES);
    assert!(matches!(
        render("{{ ['x' * 40000, 'y' * 40000] | join }}"),
        Err(RenderError::Failed { what, .. }) if what.contains("join")
    ));
    // Too deep to be read at all.
    let deep = format!("{{{{ {}1{} }}}}", "(".repeat(2_000), ")".repeat(2_000));
    assert_eq!(Compiled::compile(&deep).unwrap_err().len(), 1);
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
fn what_has_a_default_or_is_asked_for_is_not_required() {
    for source in [
        "{{ contact.city | title | default('x') }}",
        "{{ contact.city | truncate(10) | replace('(', ')') | d('x') }}",
        "{{ contact.first_name | default(contact.city) | default('x') }}",
        "{% if contact.city %}{{ contact.city }}{% endif %}",
        "{%- if contact.city -%}{{- contact.city | upper -}}{%- endif -%}",
        "{% if contact.city and contact.city == 'Paris' %}{{ contact.city }}{% endif %}",
        "{% if contact.city and contact.city == 'Paris' or event.gift %}x{% endif %}",
        "{% if event.gift or contact.city and contact.city == 'Paris' %}x{% endif %}",
        "{% if contact.city and (contact.city == 'Paris' or contact.city == 'Lyon') %}x{% endif %}",
        "{% if contact.city is startingwith('Saint') %}{{ contact.city }}{% endif %}",
        "{% if not contact.city %}x{% else %}{{ contact.city }}{% endif %}",
        "{% if contact.city is not defined %}x{% elif event.gift %}{{ contact.city }}{% else %}{{ contact.city }}{% endif %}",
        "{% if not (contact.city and contact.region) %}x{% else %}{{ contact.city }}{{ contact.region }}{% endif %}",
        "{% if contact.city %}{% for item in event['items'] %}{{ contact.city }}{% endfor %}{% endif %}",
        "{{ contact.city if contact.city else 'x' }}",
        "{{ 'x' if not contact.city else contact.city }}",
        "{% set city = contact.city %}{{ city | default('x') }}",
        "{% set city = contact.city %}{% if city %}y{% endif %}",
    ] {
        let compiled = Compiled::compile(source).unwrap();
        assert!(compiled.required().is_empty(), "{source}: {:?}", compiled.required());
        // And it is so: nobody here has a city.
        assert!(
            !matches!(render(source), Err(RenderError::MissingValue { .. })),
            "{source}"
        );
    }
    for source in [
        "{{ contact.city | title }}",
        "{{ contact.city }}{{ contact.city | default('x') }}",
        "{% if contact.region %}{{ contact.city }}{% endif %}",
        "{% if contact.city or contact.id %}{{ contact.city }}{% endif %}",
        "{% if contact.city %}x{% else %}{{ contact.city }}{% endif %}",
        "{% if contact.city %}x{% endif %}{{ contact.city }}",
        "{% if contact.city + 1 > 2 %}x{% endif %}",
        "{% if contact.city == 'Paris' or contact.city == 'Lyon' %}{{ contact.city }}{% endif %}",
        "{% if contact.city or contact.city == 'Paris' %}x{% endif %}",
        "{% if not (contact.city and contact.region) and contact.city == 'Paris' %}x{% endif %}",
        "{% if not contact.city and contact.city == 'Paris' %}x{% endif %}",
        "{% if 'Paris' == contact.city %}x{% endif %}",
        "{% if contact.city | length > 3 %}{{ contact.city }}{% endif %}",
        "{% if contact.city in ['a', 'b'] %}x{% endif %}",
        "{% if contact.city not in ['a', 'b'] %}x{% endif %}",
        "{{ contact.city if contact.city }}",
        "{% set city = contact.city %}{{ city }}",
        "{% for letter in contact.city %}x{% endfor %}",
        "{{ [contact.city] | join }}",
    ] {
        let required = Compiled::compile(source).unwrap().required();
        assert_eq!(required.into_iter().collect::<Vec<_>>(), ["contact.city"], "{source}");
    }
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
