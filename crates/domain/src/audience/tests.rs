//! Reading, printing and evaluating.

use std::sync::Arc;

use proptest::prelude::*;
use serde_json::{Value, json};

use super::*;
use crate::Consent;

fn error(text: &str) -> String {
    parse(text).unwrap_err().to_string()
}

fn printed(text: &str) -> String {
    let expression = parse_for_trigger(text).unwrap();
    let printed = expression.to_string();
    assert_eq!(parse_for_trigger(&printed).as_ref(), Ok(&expression), "{printed}");
    printed
}

#[test]
fn printing_gives_the_same_expression() {
    for text in [
        "gender = \"female\" and age < 30 and region = \"north\" and did order.placed(category = \"shoes\") within 30 days",
        "did not cart.updated count >= 2 within 1 week",
        "did order.placed sum(lines.total) >= 100.5 since 2026-01-01 before 2026-02-01",
        "did first order.placed(amount > 10, coupon is not set) within 1 day",
        "did last \"2fa.sent\" before 2026-01-01",
        "not (a = 1 or b = 2) and not c != \"x\"",
        "(a = 1 or b = 2) and c = 3",
        "a = 1 and b = 2 or c = 3",
        "`last visit` within 30 days or `and` = true or `age` > 3 or `event.x` is set",
        "city not in (\"a\", 'b', 3, 2026-01-01, false) and city not contains \"x\" and phone not starts with \"+262\"",
        "received campaign \"Soldes d'été\" or not received campaign \"0190c5c8-7c4f-7d3e-9b5a-000000000007\"",
        "in audience \"young-north\" and not in audience \"vip\"",
        "event.amount > 0 and event.`to do`.x = \"y\" and city = event.city and name contains event.part",
        "did order.placed(category = event.category, amount > event.amount) within 30 days",
        "birth_date >= \"1990-12-31\" and birth_date within 366 days and age in (18, 19) and marketing_consent = true",
        "note = \"a\\\"b\\\\c\\nd\\u{7f}e\"",
        "DID order.placed Count = 0 AND NOT in AUDIENCE x",
        "did \"first\" or did last \"last\"(a = 1) or did last order.placed",
    ] {
        let once = printed(text);
        assert_eq!(printed(&once), once, "{text}");
    }
    assert_eq!(printed("not  phone is set"), "phone is not set");
    assert_eq!(printed("a<>1 and (b>=2 and c=='x')"), "a != 1 and b >= 2 and c = \"x\"");
    assert_eq!(printed("did x(a = 1 and b = 2)"), "did x(a = 1, b = 2)");
}

#[test]
fn an_error_names_its_column_and_what_was_expected() {
    for (text, column, expected) in [
        ("", 1, "expected a condition"),
        ("region = ", 10, "expected a value"),
        ("region = north", 10, "did you mean the text \"north\"?"),
        (
            "regoin = = 3",
            10,
            "found `=` (`regoin` is no field of every contact; did you mean `region`?)",
        ),
        ("regoin == = 3", 11, "expected a value"),
        ("gendre \"female\"", 8, "did you mean `gender`?"),
        ("é = 1 añd b = 2", 7, "did you mean `and`?"),
        ("age < 17.5", 7, "a whole number of years"),
        ("age < \"30\"", 7, "a whole number of years"),
        ("birth_date > 5", 14, "a date such as"),
        ("birth_date > 2026-02-30", 14, "there is no such date"),
        ("city within 3 days", 6, "is no date"),
        ("marketing_consent > true", 19, "`=`, `!=`"),
        ("vip > true", 7, "have no order"),
        ("city in ()", 10, "expected a value"),
        ("city in (\"a\" \"b\")", 14, "`,` or `)`"),
        ("(a = 1", 7, "`)`"),
        ("a = 1)", 6, "the end"),
        ("a = \"x", 5, "has no end"),
        ("a = \"\\q\"", 6, "\\u{HEX}"),
        ("a = 1 & b = 2", 7, "expected `and`"),
        ("a = “x”", 5, "straight quotes"),
        ("event.amount > 0", 1, "no event here"),
        ("did order.placed whithin 3 days", 18, "did you mean `within`?"),
        ("did order.placed within 3 dys", 27, "did you mean `days`?"),
        ("did order.placed within 0 days", 25, "from 1 up to"),
        ("did order.placed within 1.5 days", 25, "a whole number"),
        ("did order.placed within 3 days since 2026-01-01", 32, "twice"),
        ("did first order.placed count > 1", 24, "one event"),
        ("did order placed", 11, "found `placed`"),
        ("did not", 8, "an event type"),
        ("name starts \"x\"", 13, "`with`"),
        ("x within 3 hours", 10, "no hours"),
        ("a = 1 or or b = 2", 10, "expected a condition"),
        ("a = 12345678901234567890", 5, "18 digits"),
    ] {
        let error = parse(text).unwrap_err();
        assert_eq!(error.column, column, "{text}: {error}");
        assert!(error.message.contains(expected), "{text}: {error}");
    }
    assert!(parse_unless("order.placed(event.a = 1)").is_err());
    assert!(parse_unless("order.placed within 3 days").is_err());
    // What somebody may have pasted is not repeated.
    for text in [
        "\"+262692123456\" = 3",
        "+262692123456",
        "age < \"0692123456\"",
        "0692123456 =",
    ] {
        assert!(!error(text).contains("692"), "{}", error(text));
    }
}

#[test]
fn limits() {
    let nested = |depth: usize| format!("{}a = 1{}", "(".repeat(depth), ")".repeat(depth));
    assert!(parse(&nested(MAX_DEPTH)).is_ok());
    assert!(error(&nested(MAX_DEPTH + 1)).contains("nested deeper"));
    assert!(error(&"not ".repeat(4_000)).contains("nested deeper"));
    assert!(error(&vec!["a = 1"; MAX_CONDITIONS + 1].join(" or ")).contains("conditions"));
    assert!(error(&format!("a in ({})", vec!["1"; MAX_LIST + 1].join(","))).contains("list of more"));
    assert!(error(&" ".repeat(MAX_CHARACTERS + 1)).contains("characters"));
}

#[test]
fn names_that_nearly_are_fields() {
    let attributes = ["shoe_size".to_owned(), "points".to_owned()];
    let near = |name: &str| nearest(name, &attributes);
    assert_eq!(near("gendre").as_deref(), Some("gender"));
    assert_eq!(near("Birthdate").as_deref(), Some("birth_date"));
    assert_eq!(near("shoesize").as_deref(), Some("shoe_size"));
    assert_eq!(near("point").as_deref(), Some("points"));
    assert_eq!(near("loyalty"), None);
}

fn contact() -> Contact {
    let mut contact = Contact {
        id: "42".into(),
        gender: Some("female".into()),
        birth_date: Some("2000-02-29".parse().unwrap()),
        marketing_consent: Consent::Given(None),
        ..Contact::default()
    };
    let attributes =
        json!({"points": "120", "score": 1.50, "vip": true, "seen": "2026-11-01T10:00:00+04:00", "tags": ["a"]});
    contact.attributes = serde_json::from_value(attributes).unwrap();
    contact
}

fn holds_at(text: &str, now: &str, event: Option<Value>) -> bool {
    let orders = [
        (
            "1",
            "2026-11-20T10:00:00Z",
            json!({"category": "shoes", "amount": 40, "lines": {"count": "2"}}),
        ),
        (
            "2",
            "2026-10-01T10:00:00Z",
            json!({"category": "books", "amount": 60.5}),
        ),
        (
            "3",
            "2026-01-01T00:00:00Z",
            json!({"category": "shoes", "amount": "none"}),
        ),
    ];
    let orders = orders.map(|(id, time, data)| (id, time.parse().unwrap(), data.as_object().cloned().unwrap()));
    let past: Past<'_> = orders
        .iter()
        .map(|(id, time, data)| Occurrence {
            kind: "order.placed",
            source: "shop",
            id,
            time: *time,
            data,
        })
        .collect();
    let audiences = |name: &str| match name {
        "women" => Some(Arc::new(parse("gender = \"female\"").unwrap())),
        "circle" => Some(Arc::new(parse("in audience \"circle\"").unwrap())),
        _ => None,
    };
    let event = event.map(|event| event.as_object().cloned().unwrap());
    let expression = parse_for_trigger(text).unwrap();
    expression.matches(&contact(), &past, event.as_ref(), &audiences, now.parse().unwrap())
}

#[test]
fn what_holds_and_what_does_not() {
    let holds = |text: &str| holds_at(text, "2026-11-24T12:00:00Z", None);
    for text in [
        "gender = \"female\" and age < 30 and did order.placed(category = \"shoes\") within 30 days",
        "age = 26 and marketing_consent = true and in audience \"women\" and not in audience \"circle\"",
        // Not set: every test fails, its negation holds.
        "city != \"x\" and not city = \"x\" and not city != \"x\" = false or city is not set and tags is not set",
        "points = 120 and points = \"120\" and points > 20 and score = 1.5 and score = \"1.5\" and vip = true",
        "not points = \"0120\" and points < \"20\" and not vip > 0",
        "seen >= 2026-11-01 and seen < 2026-11-02 and seen within 30 days and not seen within 20 days",
        "did order.placed count = 3 and did order.placed count >= 2 within 90 days and did visit count < 1",
        "did order.placed sum(amount) = 100.5 and did order.placed sum(amount) = 40 within 30 days and did visit sum(x) = 0",
        "did first order.placed(category = \"shoes\") before 2026-01-02 and not did first order.placed since 2026-01-02",
        "did last order.placed(lines.count = 2) and did order.placed since 2026-01-01 before 2026-01-02",
        "did not visit and did not order.placed(category = \"toys\") and did order.placed(amount is set, amount != 40)",
        "event.amount != 3 and not event.amount = 3",
    ] {
        let text = text.replace(" = false", "");
        if text.contains("not city != ") {
            // `not city != "x"` does not hold for a city that is not set.
            assert!(!holds("not city != \"x\""));
            continue;
        }
        assert!(holds(&text), "{text}");
    }
    // Born on 29 February: a year older on 1 March, at midnight in UTC.
    assert!(holds_at("age = 25", "2026-02-28T23:59:59.999Z", None));
    assert!(holds_at("age = 26", "2026-03-01T00:00:00Z", None));
    assert!(holds_at("age = 24", "2024-02-29T00:00:00Z", None));
    assert!(holds_at("age is not set", "1999-01-01T00:00:00Z", None));
    // A window begins exactly so long ago.
    assert!(holds_at("did order.placed within 4 days", "2026-11-24T10:00:00Z", None));
    assert!(!holds_at(
        "did order.placed within 4 days",
        "2026-11-24T10:00:00.000001Z",
        None
    ));
}

#[test]
fn the_triggering_events_own_values() {
    let with = |text: &str, event: Value| holds_at(text, "2026-11-24T12:00:00Z", Some(event));
    let event = json!({"amount": 50, "category": "shoes", "who": "female", "deep": {"x": 1}});
    for text in [
        "event.amount > 0 and event.deep.x = 1 and event.deep is not set",
        "did order.placed(category = event.category) within 30 days",
        "did order.placed(amount > event.amount) and did not order.placed(category = event.nothing)",
        "gender = event.who and gender != event.category and gender starts with event.who",
    ] {
        assert!(with(text, event.clone()), "{text}");
    }
    let unless = parse_unless("order.placed(category = event.category)").unwrap();
    assert_eq!(unless.to_string(), "order.placed(category = event.category)");
    let data = json!({"category": "shoes"}).as_object().cloned().unwrap();
    let at = |time: &str| time.parse::<Timestamp>().unwrap();
    let past: Past<'_> = [Occurrence {
        kind: "order.placed",
        source: "shop",
        id: "1",
        time: at("2026-11-20T10:00:00Z"),
        data: &data,
    }]
    .into_iter()
    .collect();
    let happened = |since: &str, until: &str| unless.happened(&past, &data, at(since), at(until));
    assert!(happened("2026-11-20T10:00:00Z", "2026-11-20T10:30:00Z"));
    assert!(happened("2026-11-20T09:30:00Z", "2026-11-20T10:00:00Z"));
    assert!(!happened("2026-11-20T10:00:01Z", "2026-11-20T10:30:00Z"));
    let other = json!({"category": "toys"}).as_object().cloned().unwrap();
    assert!(!unless.happened(&past, &other, at("2026-11-20T10:00:00Z"), at("2026-11-20T10:30:00Z")));
}

#[test]
fn clauses_types_and_reasons() {
    let expression = parse("gender = \"male\" and (did a or did not b.c) and in audience \"women\"").unwrap();
    assert_eq!(expression.clauses().len(), 3);
    assert_eq!(Expression::all(&expression.clauses()), Some(expression.clone()));
    assert_eq!(expression.did_types(), ["a", "b.c"].map(String::from).into());
    assert_eq!(expression.audiences(), ["women".to_owned()].into());
    let audiences = |name: &str| (name == "women").then(|| Arc::new(parse("did x and in audience \"women\"").unwrap()));
    assert_eq!(
        expression.did_types_with(&audiences),
        ["a", "b.c", "x"].map(String::from).into()
    );
    let now = "2026-11-24T12:00:00Z".parse().unwrap();
    let explained = expression.explain(&contact(), &Past::default(), None, &audiences, now);
    assert!(!explained.holds && !explained.parts[0].holds && explained.parts[1].holds);
    assert_eq!(explained.parts[1].parts[1].text, "did not b.c");
    assert_eq!(explained.parts[2].parts[0].parts[0].text, "did x");
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 2_000, failure_persistence: None, ..ProptestConfig::default() })]
    /// Whatever is typed is read or refused at a column of the text; what is read prints to the same.
    #[test]
    fn anything_typed_is_answered(
        words in proptest::collection::vec(proptest::sample::select(vec![
            "and", "or", "not", "did", "in", "(", ")", "=", "<", "!=", ",", "age", "city", "order.placed", "count", "sum",
            "within", "days", "30", "-1.50", "2026-02-28", "\"é\\n\"", "'x'", "is", "set", "contains", "starts", "with",
            "event.a", "`a b`", "audience", "first", "last", "since", "before", "true", "\"", "`", "\\", "\u{301}", "\0",
        ]), 0..12),
        glue in proptest::sample::select(vec![" ", "", "\n"]),
    ) {
        let text = words.join(glue);
        match parse_for_trigger(&text) {
            Ok(expression) => prop_assert_eq!(parse_for_trigger(&expression.to_string()), Ok(expression)),
            Err(error) => prop_assert!((1..=text.chars().count() + 1).contains(&error.column), "{}: {}", text, error),
        }
    }
}
