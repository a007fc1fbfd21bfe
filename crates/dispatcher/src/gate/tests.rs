use bus::Partition;
use domain::sms::Encoding;
use events::Topic;
use gateways::{Outcome, Submission};

use super::*;
use crate::{
    item::{
        Outgoing,
        sample::{claimed_row, outbound},
    },
    offsets::Token,
};

#[derive(Debug)]
struct Up;

#[async_trait::async_trait]
impl Gateway for Up {
    async fn submit(&self, _: Submission) -> Outcome {
        Outcome::Unreachable
    }

    fn is_up(&self) -> bool {
        true
    }

    async fn close(&self) {}
}

fn gate(settings: &str, now: Instant) -> Gate {
    let toml = format!(
        "[[gateway]]\nname = \"main\"\nkind = \"smpp\"\naddress = \"127.0.0.1:2775\"\nsystem_id = \"t\"\n\
         password = \"t\"\n{settings}\n"
    );
    let resource = resources::parse_toml(&toml).unwrap().pop();
    let Some(resources::Resource::Gateway(resource)) = resource else {
        panic!("a gateway")
    };
    Gate::new(Arc::new(resource), Arc::new(Up), &Share::whole(), now)
}

fn item(class: Class) -> Item {
    Box::new(Outgoing {
        token: Token {
            partition: Partition {
                topic: Topic::OutboundBulk,
                number: 0,
            },
            generation: 1,
            offset: 1,
            epoch: 1,
        },
        encoding: Encoding::Gsm7,
        phone_hash: vec![1],
        campaign: None,
        trace: stage::trace::continue_from(crate::GROUP, None, "1"),
        record: outbound(class),
        waits_since: None,
        claimed_perhaps: false,
    })
}

#[test]
fn beside_a_claim_only_a_whole_further_one_begins_within_what_may_be_claimed_ahead() {
    let now = Instant::now();
    let gate = gate("rate = 100000\nwindow = 300", now);
    let slot = slot(Class::Marketing);
    let most = u32::try_from(CLAIM_MOST).unwrap();
    for _ in 1..CLAIM_MOST {
        gate.push(item(Class::Marketing));
    }
    assert!(
        matches!(gate.take(slot, now, most), Take::Wait(None)),
        "not a whole one"
    );
    gate.push(item(Class::Marketing));
    // Four windows of 300 may be claimed ahead, and more is claimed when half of that has left.
    assert!(
        matches!(gate.take(slot, now, 601), Take::Wait(None)),
        "too much is at its claim"
    );
    let Take::Items(items) = gate.take(slot, now, most) else {
        panic!("a whole one waits")
    };
    assert_eq!(items.len(), CLAIM_MOST);
}

#[test]
fn more_than_its_window_is_claimed_ahead_of_a_gateway_that_answers_quickly() {
    let mut now = Instant::now();
    let gate = gate("rate = 100000\nwindow = 10", now);
    let slot = slot(Class::Marketing);
    let mut at_once = vec![CLAIM_MOST];
    for _ in 0..100 {
        for _ in 0..at_once[at_once.len() - 1] {
            gate.push(item(Class::Marketing));
        }
        let Take::Items(items) = gate.take(slot, now, 0) else {
            panic!("nothing to claim")
        };
        at_once.push(items.len());
        let claimed = items.into_iter().map(|item| Claimed {
            row: Arc::new(claimed_row(&item)),
            item,
            since: now,
        });
        gate.claimed(slot, claimed.collect(), Duration::from_millis(5));
        // 10,000 a second, each answered at once.
        while let Next::Go(..) = gate.next(now) {
            now += Duration::from_micros(100);
        }
    }
    let binds = gate.resource().binds.max(1) as usize;
    assert_eq!(at_once[1], 4 * 10 * binds, "four windows while nothing is known");
    let last = at_once.last().unwrap();
    assert!((380..=420).contains(last), "40 ms of 10,000 a second: {at_once:?}");
}

#[test]
fn marketing_that_was_claimed_long_ago_is_let_go_of_and_not_sent() {
    let now = Instant::now();
    let gate = gate("rate = 1000", now);
    let claim = |class: Class, since: Instant| {
        gate.push(item(class));
        let Take::Items(items) = gate.take(slot(class), since, 0) else {
            panic!("nothing to claim")
        };
        let claimed = items.into_iter().map(|item| Claimed {
            row: Arc::new(claimed_row(&item)),
            item,
            since,
        });
        gate.claimed(slot(class), claimed.collect(), Duration::ZERO);
    };
    let goes = |class: Class, at: Instant| match gate.next(at) {
        Next::Go(claimed, ..) => claimed.item.record.class == class,
        _ => false,
    };
    claim(Class::Marketing, now);
    claim(Class::Transactional, now);
    let late = now + HELD;
    // Transactional goes first, and meanwhile the hours may end.
    assert!(goes(Class::Transactional, late - Duration::from_millis(1)));
    let Next::Release(released) = gate.next(late) else {
        panic!("it is not let go of")
    };
    assert_eq!(released.len(), 1);
    assert_eq!(released[0].item.record.class, Class::Marketing);
    assert!(matches!(gate.next(late), Next::Wait(None)), "nothing is left");
    // Judged and claimed again it goes, and transactional has its time.
    claim(Class::Marketing, late);
    assert!(goes(Class::Marketing, late));
    claim(Class::Transactional, late);
    assert!(goes(Class::Transactional, late + HELD + HELD));
}
