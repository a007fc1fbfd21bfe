//! Caps, limits and consent at the claim, where they are exact; and whole policies over any clock and zone.

use domain::{Cause, Class, Consent, MessageId, Phone, Reason, State, territory::Place};
use jiff::{SignedDuration, Timestamp, civil::Time, tz::TimeZone};
use proptest::prelude::*;
use resources::{
    Policy,
    policy::{Cap, QuietHours},
    rules::{Decision, Stopped, Subject, decide},
};
use store::{
    Store,
    caps::{Counting, TextOut},
    contacts::ContactChange,
    messages::{Alarm, CapRule, ClaimResult, ClaimRules, ClaimWant, Claimant, WantRules},
};
use uuid::Uuid;

use crate::support::{campaign::drafted, database::database};

fn now() -> Timestamp {
    "2026-11-24T08:30:00Z".parse().unwrap()
}

fn want(contact: &str, campaign: u128, class: Class) -> ClaimWant {
    let cause = Cause::Campaign {
        campaign_id: Uuid::from_u128(campaign).to_string(),
    };
    ClaimWant {
        message_id: MessageId::derive(&cause, contact).0,
        contact_id: contact.into(),
        cause,
        class,
        template: "sale".into(),
        variant: None,
        encoding: "GSM-7".into(),
        parts: 1,
        cost_micros: 45_000,
        phone_hash: contact.as_bytes().to_vec(),
        caused_at: now(),
        planned_at: now(),
        rendered_at: now(),
        attempt: 0,
        gateway: "main".into(),
        epoch: 1,
        traceparent: None,
        again: false,
    }
}

fn claimant(at: Timestamp) -> Claimant {
    Claimant {
        owner: Uuid::from_u128(1),
        now: at,
        resend_transactional: true,
        max_attempts: 12,
    }
}

fn cap(messages: u32, at: Timestamp, purpose: Option<&str>) -> CapRule {
    CapRule {
        since: at - SignedDuration::from_hours(24),
        most: messages,
        purpose: purpose.map(str::to_owned),
    }
}

fn capped(messages: u32, at: Timestamp) -> ClaimRules {
    ClaimRules {
        version: Some("policy 3, territories test".into()),
        caps: vec![cap(messages, at, None)],
        each: Vec::new(),
    }
}

fn limited(count: usize, per_hour: u32) -> ClaimRules {
    let each = WantRules {
        destinations: vec![("+262".into(), per_hour)],
        ..WantRules::default()
    };
    ClaimRules {
        version: Some("policy 3, territories test".into()),
        caps: Vec::new(),
        each: vec![each; count],
    }
}

async fn claim(
    store: &Store,
    wants: &[ClaimWant],
    rules: &ClaimRules,
    at: Timestamp,
) -> (Vec<ClaimResult>, Vec<Alarm>) {
    loop {
        let mut tx = store.begin().await.unwrap();
        match tx.messages_claim_within(wants, &claimant(at), rules).await {
            Ok(claimed) => {
                tx.commit().await.unwrap();
                return claimed;
            }
            Err(error) => assert!(error.is_transient(), "{error}"),
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn campaigns_launched_in_one_moment_do_not_pass_a_cap() {
    let store = database().await;
    let contacts: Vec<String> = (0..150).map(|number| format!("c{number}")).collect();
    // Six campaigns to the same people at once, each in an order of its own, and at most two messages a day.
    let mut claims = Vec::new();
    for campaign in 0..6_usize {
        let (store, mut contacts) = (store.clone(), contacts.clone());
        contacts.rotate_left(campaign * 25);
        claims.push(tokio::spawn(async move {
            let mut granted = Vec::new();
            for chunk in contacts.chunks(30) {
                let wants: Vec<ClaimWant> = chunk
                    .iter()
                    .map(|contact| want(contact, campaign as u128, Class::Marketing))
                    .collect();
                let (results, _) = claim(&store, &wants, &capped(2, now()), now()).await;
                granted.extend(
                    results
                        .into_iter()
                        .map(|result| (result.row.contact_id.clone(), result)),
                );
            }
            granted
        }));
    }
    let mut each: std::collections::BTreeMap<String, (usize, usize)> = std::collections::BTreeMap::new();
    for claim in claims {
        for (contact, result) in claim.await.unwrap() {
            let counts = each.entry(contact).or_default();
            match result.granted {
                true => counts.0 += 1,
                false => {
                    assert_eq!(
                        (result.row.state, result.row.reason),
                        (State::Suppressed, Some(Reason::CapReached))
                    );
                    counts.1 += 1;
                }
            }
            assert_eq!(result.row.decided_by.as_deref(), Some("policy 3, territories test"));
        }
    }
    assert_eq!(each.len(), 150);
    assert!(each.values().all(|counts| *counts == (2, 4)), "{each:?}");

    // The same claims again: nobody's own message stands in their way, and nothing is granted twice.
    let wants: Vec<ClaimWant> = contacts
        .iter()
        .map(|contact| want(contact, 0, Class::Marketing))
        .collect();
    let (again, _) = claim(&store, &wants, &capped(2, now()), now()).await;
    assert!(again.iter().all(|result| !result.granted));
    // A day later there is room again; transactional messages never needed any.
    let late = now() + SignedDuration::from_hours(25);
    let (results, _) = claim(&store, &[want("c0", 90, Class::Marketing)], &capped(2, late), late).await;
    assert!(results[0].granted);
    let one = [want("c1", 91, Class::Transactional)];
    assert!(claim(&store, &one, &capped(1, now()), now()).await.0[0].granted);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_destination_takes_so_many_an_hour_and_then_there_is_an_alarm() {
    let store = database().await;
    let wants = |from: usize, count: usize| -> Vec<ClaimWant> {
        let class = |number: usize| {
            if number.is_multiple_of(2) {
                Class::Transactional
            } else {
                Class::Marketing
            }
        };
        (from..from + count)
            .map(|number| want(&format!("c{number}"), 1, class(number)))
            .collect()
    };
    let mut claims = Vec::new();
    for part in 0..8 {
        let (store, wants) = (store.clone(), wants(part * 10, 10));
        claims.push(tokio::spawn(async move {
            claim(&store, &wants, &limited(10, 50), now()).await
        }));
    }
    let (mut granted, mut refused, mut alarms) = (0, 0, Vec::new());
    for one in claims {
        let (results, told) = one.await.unwrap();
        granted += results.iter().filter(|result| result.granted).count();
        refused += results
            .iter()
            .filter(|result| result.row.reason == Some(Reason::DestinationLimit))
            .count();
        alarms.extend(told);
    }
    assert_eq!((granted, refused), (50, 30));
    // One alarm an hour, and it stays on record.
    assert_eq!(alarms.len(), 1, "{alarms:?}");
    assert_eq!((alarms[0].prefix.as_str(), alarms[0].per_hour), ("+262", 50));
    let hours = store
        .destination_hours(now() - SignedDuration::from_hours(2), 10)
        .await
        .unwrap();
    assert_eq!(hours.len(), 1);
    assert_eq!((hours[0].sent, hours[0].refused, hours[0].per_hour), (50, 30, 50));
    assert_eq!(hours[0].hour, "2026-11-24T08:00:00Z".parse().unwrap());
    assert_eq!(hours[0].alarmed_at, Some(now()));
    // A redelivered claim counts nothing; the next hour begins at none.
    let (_, told) = claim(&store, &wants(0, 80), &limited(80, 50), now()).await;
    assert!(told.is_empty());
    let same = store
        .destination_hours(now() - SignedDuration::from_hours(2), 10)
        .await
        .unwrap();
    assert_eq!((same[0].sent, same[0].refused), (50, 30));
    let next = now() + SignedDuration::from_mins(30);
    let (results, _) = claim(&store, &wants(200, 10), &limited(10, 50), next).await;
    assert!(results.iter().all(|result| result.granted));
    assert_eq!(
        store
            .destination_hours_prune(next + SignedDuration::from_hours(1))
            .await
            .unwrap(),
        1
    );
    assert_eq!(
        store
            .destination_hours(now() - SignedDuration::from_hours(2), 10)
            .await
            .unwrap()
            .len(),
        1
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn who_took_back_consent_or_is_blocked_by_now_gets_nothing() {
    let store = database().await;
    let contact = |id: &str, consent| ContactChange {
        id: id.into(),
        phone: Some(Some(Phone::from_e164("+262692123401"))),
        marketing_consent: Some(consent),
        ..ContactChange::default()
    };
    let mut tx = store.begin().await.unwrap();
    tx.contacts_upsert(
        &[contact("yes", Consent::Given(None)), contact("no", Consent::No)],
        "test",
        "test",
        now(),
    )
    .await
    .unwrap();
    tx.commit().await.unwrap();
    let wants = [
        want("yes", 1, Class::Marketing),
        want("no", 1, Class::Marketing),
        want("no", 2, Class::Transactional),
        want("gone", 3, Class::Transactional),
    ];
    let mut rules = ClaimRules {
        version: Some("policy 3, territories test".into()),
        caps: Vec::new(),
        each: vec![WantRules::default(); 4],
    };
    rules.each[3].refuse = Some(Reason::Blocked);
    let (results, _) = claim(&store, &wants, &rules, now()).await;
    let reasons: Vec<Option<Reason>> = results.iter().map(|result| result.row.reason).collect();
    assert_eq!(reasons, [None, Some(Reason::NoConsent), None, Some(Reason::Blocked)]);
    let granted: Vec<bool> = results.iter().map(|result| result.granted).collect();
    assert_eq!(granted, [true, false, true, false]);
}

fn of_purpose(purpose: Option<&str>) -> WantRules {
    WantRules {
        purpose: purpose.map(str::to_owned),
        ..WantRules::default()
    }
}

fn reasons(results: &[ClaimResult]) -> Vec<Option<Reason>> {
    results.iter().map(|result| result.row.reason).collect()
}

#[tokio::test(flavor = "multi_thread")]
async fn consent_is_asked_for_by_purpose_at_the_claim() {
    let store = database().await;
    let contact = |id: &str, consents: serde_json::Value| {
        ContactChange::from_json(id, consents.as_object().unwrap(), None).unwrap()
    };
    let letter = serde_json::json!([{"purpose": "newsletter", "given": true, "at": "2026-01-31"}]);
    let mut tx = store.begin().await.unwrap();
    let contacts = [
        contact(
            "letter",
            serde_json::json!({"marketing_consent": false, "consents": letter}),
        ),
        contact(
            "all",
            serde_json::json!({"marketing_consent": true, "consents": letter}),
        ),
        contact("sales", serde_json::json!({"marketing_consent": true})),
    ];
    tx.contacts_upsert(&contacts, "test", "test", now()).await.unwrap();
    tx.commit().await.unwrap();
    let wants: Vec<ClaimWant> = ["letter", "all", "sales"]
        .iter()
        .flat_map(|contact| [want(contact, 1, Class::Marketing), want(contact, 2, Class::Marketing)])
        .collect();
    let rules = ClaimRules {
        version: Some("policy 3, territories test".into()),
        caps: Vec::new(),
        each: (0..6)
            .map(|number| of_purpose((number % 2 == 0).then_some("newsletter")))
            .collect(),
    };
    let (results, _) = claim(&store, &wants, &rules, now()).await;
    let refused = Some(Reason::NoConsent);
    assert_eq!(reasons(&results), [None, refused, None, None, refused, None]);
    assert_eq!(results[0].row.purpose.as_deref(), Some("newsletter"));
    assert_eq!(results[3].row.purpose, None);
    // STOP withdraws every purpose.
    let stop = ContactChange {
        id: "all".into(),
        withdraws_all: true,
        ..ContactChange::default()
    };
    let mut tx = store.begin().await.unwrap();
    tx.contacts_upsert(&[stop], "reply", "reply", now()).await.unwrap();
    tx.commit().await.unwrap();
    let wants = [want("all", 3, Class::Marketing), want("all", 4, Class::Marketing)];
    let (results, _) = claim(&store, &wants, &rules, now()).await;
    assert_eq!(reasons(&results), [refused, refused]);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_cap_of_a_purpose_counts_that_purpose_alone() {
    let store = database().await;
    let rules = |each: &[Option<&str>]| ClaimRules {
        version: Some("policy 3, territories test".into()),
        caps: vec![cap(1, now(), Some("newsletter")), cap(3, now(), None)],
        each: each.iter().copied().map(of_purpose).collect(),
    };
    let reached = Some(Reason::CapReached);
    // Two letters in one batch, and a sale.
    let wants: Vec<ClaimWant> = (1..=3).map(|number| want("a", number, Class::Marketing)).collect();
    let (results, _) = claim(
        &store,
        &wants,
        &rules(&[Some("newsletter"), Some("newsletter"), None]),
        now(),
    )
    .await;
    assert_eq!(reasons(&results), [None, reached, None]);
    // A third letter later, and sales up to the cap on all; a transactional message counts for none.
    let wants: Vec<ClaimWant> = (4..=7)
        .map(|number| {
            let class = if number == 5 {
                Class::Transactional
            } else {
                Class::Marketing
            };
            want("a", number, class)
        })
        .collect();
    let (results, _) = claim(&store, &wants, &rules(&[Some("newsletter"), None, None, None]), now()).await;
    assert_eq!(reasons(&results), [reached, None, None, reached]);

    let counting = |purpose: Option<&str>| Counting {
        since: now() - SignedDuration::from_hours(1),
        purpose: purpose.map(str::to_owned),
    };
    let caps = [
        counting(Some("newsletter")),
        counting(Some("marketing")),
        counting(None),
    ];
    let mut tx = store.begin().await.unwrap();
    let counts = tx.sent_counts(&["a", "b"], &caps).await.unwrap();
    assert_eq!(counts.len(), 1);
    assert_eq!(counts["a"], [1, 2, 3]);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_text_that_nobody_got_is_no_repetition() {
    let store = database().await;
    let text = |text: u8, message: u128, campaign_id: Option<Uuid>| TextOut {
        phone_hash: vec![1],
        text_hash: vec![text],
        message_id: Uuid::from_u128(message),
        campaign_id,
    };
    let repeated = async |out: TextOut| {
        let mut tx = store.begin().await.unwrap();
        let since = now() - SignedDuration::from_hours(24);
        let repeated = tx
            .texts_repeated(std::slice::from_ref(&out), since, now())
            .await
            .unwrap();
        tx.commit().await.unwrap();
        repeated.contains(&out.message_id)
    };
    let ledger = async |message: u128, state: State| {
        sqlx::query(
            "insert into messages (contact_id, message_id, class, state, template, caused_at, planned_at, changed_at)
             values ('c', $1, 1, $2, 't', now(), now(), now())",
        )
        .bind(Uuid::from_u128(message))
        .bind(state.code())
        .execute(store.pool())
        .await
        .unwrap();
    };
    for (number, state) in (1_u8..).zip(State::ALL) {
        let first = u128::from(number) * 10;
        assert!(!repeated(text(number, first, None)).await);
        assert!(
            repeated(text(number, first + 1, None)).await,
            "it may still go: {state}"
        );
        ledger(first, state).await;
        let nobody_got_it = matches!(
            state,
            State::Suppressed | State::Cancelled | State::Expired | State::Failed
        );
        assert_eq!(repeated(text(number, first + 1, None)).await, !nobody_got_it, "{state}");
        // Whoever took the note over is the one that counts now.
        assert_eq!(repeated(text(number, first + 1, None)).await, !nobody_got_it, "{state}");
        assert!(
            !nobody_got_it || repeated(text(number, first + 2, None)).await,
            "{state}"
        );
    }

    // A campaign is cancelled before the dispatcher comes to its messages, and launched again with the same text.
    let campaign = Uuid::from_u128(0xCA);
    let mut tx = store.begin().await.unwrap();
    tx.campaign_create(&drafted(campaign, "c", "age < 30", "sale"), "test", now())
        .await
        .unwrap();
    tx.campaign_launch(campaign, None, "age < 30", "test", now())
        .await
        .unwrap();
    tx.commit().await.unwrap();
    let own = Some(campaign);
    assert!(!repeated(text(100, 1_000, own)).await);
    assert!(!repeated(text(101, 1_010, own)).await);
    assert!(repeated(text(100, 1_001, None)).await);
    let mut tx = store.begin().await.unwrap();
    tx.campaign_cancel(campaign, "test", now()).await.unwrap();
    tx.commit().await.unwrap();
    // What was handed over before is a repetition all the same.
    ledger(1_010, State::Accepted).await;
    assert!(repeated(text(101, 1_011, None)).await);
    assert!(!repeated(text(100, 1_001, None)).await);
}

/// What a message is judged by, to be drawn.
#[derive(Clone, Debug)]
struct Drawn {
    marketing: bool,
    phone: &'static str,
    zone: Option<String>,
    consent: Consent,
    premium: bool,
    stopped: Stopped,
    /// Seconds from now.
    deadline: Option<i64>,
    valid_until: Option<i64>,
    sent: u32,
}

fn policies() -> impl Strategy<Value = Policy> {
    let hours = prop_oneof![
        Just(QuietHours::ByTerritory),
        Just(QuietHours::Off),
        (0_i8..20, 1_i8..4).prop_map(|(from, length)| QuietHours::Allowed(
            Time::constant(from, 0, 0, 0),
            Time::constant(from + length, 30, 0, 0)
        )),
    ];
    let prefixes = || proptest::collection::vec(proptest::sample::select(vec!["+33", "+262", "+262692", "+1"]), 0..3);
    let caps = proptest::option::of((1_u32..4, any::<bool>()));
    (hours, prefixes(), prefixes(), any::<bool>(), caps).prop_map(|(quiet_hours, allowed, blocked, premium, cap)| {
        Policy {
            quiet_hours,
            allowed_prefixes: allowed.into_iter().map(str::to_owned).collect(),
            blocked_prefixes: blocked.into_iter().map(str::to_owned).collect(),
            allow_premium: premium,
            caps: cap
                .map(|(messages, own)| Cap {
                    messages,
                    per: "1d".parse().unwrap(),
                    purpose: own.then(|| "news".to_owned()),
                })
                .into_iter()
                .collect(),
            ..Policy::default()
        }
    })
}

fn subjects() -> impl Strategy<Value = Drawn> {
    let zones: Vec<Option<String>> = jiff::tz::db()
        .available()
        .map(|name| name.to_string())
        .filter(|name| TimeZone::get(name).is_ok())
        .map(Some)
        .chain([None])
        .collect();
    let phones = vec![
        "+33612345678",
        "+262692123456",
        "+262639123456",
        "+12125550123",
        "+61412345678",
    ];
    let stopped = vec![Stopped::No, Stopped::No, Stopped::Marketing, Stopped::All];
    let consent = vec![Consent::Given(None), Consent::Given(None), Consent::No, Consent::Unset];
    let limit = || proptest::option::of(-90_000_i64..200_000);
    (
        any::<bool>(),
        proptest::sample::select(phones),
        prop_oneof![Just(None), proptest::sample::select(zones)],
        proptest::sample::select(consent),
        any::<bool>(),
        proptest::sample::select(stopped),
        limit(),
        limit(),
        0_u32..4,
    )
        .prop_map(
            |(marketing, phone, zone, consent, premium, stopped, deadline, valid_until, sent)| Drawn {
                marketing,
                phone,
                zone,
                consent,
                premium,
                stopped,
                deadline,
                valid_until,
                sent,
            },
        )
}

/// Whether marketing may go by the clocks alone, as `docs/rules.md` has it.
fn is_open(policy: &Policy, place: &Place, at: Timestamp) -> bool {
    place.zones.iter().all(|zone| {
        let local = zone.to_datetime(at);
        match policy.quiet_hours {
            QuietHours::Off => true,
            QuietHours::Allowed(from, to) => from <= local.time() && local.time() < to,
            QuietHours::ByTerritory => {
                let american = place.territory.code == "US";
                let closes = if american { 21 } else { 20 };
                (8..closes).contains(&local.hour())
                    && (american || local.date().weekday() != jiff::civil::Weekday::Sunday)
                    && !place.territory.is_holiday(local.date())
            }
        }
    })
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 4_000, failure_persistence: None, ..ProptestConfig::default() })]
    /// Every decision has its ground, none is missed, and what was put off goes when it is due.
    #[test]
    fn whole_policies_decide_by_their_rules(
        policy in policies(),
        drawn in subjects(),
        second in 946_684_800_i64..4_000_000_000,
        // Beside the zone's next change of clocks.
        near in proptest::option::of(-100_000_i64..100_000),
    ) {
        let phone = Phone::from_e164(drawn.phone);
        let place = Place::of(drawn.zone.as_deref(), &phone, None);
        let at = |second: i64| Timestamp::from_second(second).unwrap();
        let now = near
            .and_then(|near| Some(at(place.zone().following(at(second)).next()?.timestamp().as_second() + near)))
            .unwrap_or(at(second));
        let limit = |seconds: Option<i64>| seconds.map(|seconds| at(now.as_second() + seconds));
        let (deadline, valid_until) = (limit(drawn.deadline), limit(drawn.valid_until));
        let sent = [drawn.sent];
        let subject = Subject {
            class: if drawn.marketing { Class::Marketing } else { Class::Transactional },
            phone: &phone,
            zone: drawn.zone.as_deref(),
            purpose: "marketing",
            consent: drawn.consent,
            premium: drawn.premium,
            stopped: drawn.stopped,
            deadline,
            valid_until,
            sent: &sent,
        };
        let begins = |prefix: &String| drawn.phone.starts_with(prefix.as_str());
        let blocked = drawn.stopped == Stopped::All || policy.blocked_prefixes.iter().any(begins);
        let elsewhere = !policy.allowed_prefixes.is_empty() && !policy.allowed_prefixes.iter().any(begins);
        let capped = policy.caps.iter().any(|cap| cap.purpose.is_none() && drawn.sent >= cap.messages);
        let passed = |limit: Option<Timestamp>, at: Timestamp| limit.is_some_and(|limit| limit <= at);
        let open = !drawn.marketing || is_open(&policy, &place, now);

        // In their order.
        let expected = [
            (blocked, Reason::Blocked),
            (drawn.marketing && !drawn.consent.is_given(), Reason::NoConsent),
            (drawn.marketing && drawn.stopped == Stopped::Marketing, Reason::Stopped),
            (elsewhere || (drawn.premium && !policy.allow_premium), Reason::DestinationNotAllowed),
            (drawn.marketing && capped, Reason::CapReached),
            (passed(deadline, now), Reason::DeadlinePassed),
            (passed(valid_until, now), Reason::ValidityPassed),
        ]
        .into_iter()
        .find_map(|(holds, reason)| holds.then_some(reason));
        match (decide(&policy, &subject, now), expected) {
            (Decision::Suppress(reason), Some(expected)) => {
                prop_assert_eq!(reason, expected);
                prop_assert!(!matches!(reason, Reason::DeadlinePassed | Reason::ValidityPassed));
            }
            (Decision::Expire(reason), Some(expected)) => {
                prop_assert_eq!(reason, expected);
                prop_assert!(matches!(reason, Reason::DeadlinePassed | Reason::ValidityPassed));
            }
            (Decision::Send, None) => prop_assert!(open, "{} {now} {policy:?}", place.territory.code),
            (Decision::Defer { until, reason }, None) => {
                prop_assert_eq!(reason, Reason::QuietHours);
                prop_assert!(!open && until > now);
                prop_assert!(!passed(deadline, until) && !passed(valid_until, until));
                // Zones whose hours never meet are looked at again in a day.
                if is_open(&policy, &place, until) {
                    prop_assert_eq!(decide(&policy, &subject, until), Decision::Send);
                } else {
                    prop_assert!(place.zones.len() > 1);
                }
            }
            (Decision::Expire(reason), None) => {
                // It would have to wait for longer than it is worth.
                prop_assert_eq!(reason, Reason::QuietHours);
                prop_assert!(!open && (deadline.is_some() || valid_until.is_some()));
                let last = deadline.into_iter().chain(valid_until).min().unwrap();
                let step = (last.as_second() - now.as_second()) / 50;
                for sample in 0..50 {
                    prop_assert!(!is_open(&policy, &place, at(now.as_second() + sample * step)));
                }
            }
            (decision, expected) => prop_assert!(false, "{decision:?}, expected {expected:?}"),
        }
    }
}
