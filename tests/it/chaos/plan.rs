//! What goes wrong in a run: a pure function of its seed.

/// A role that is a process of its own.
pub const ROLES: [&str; 6] = [
    "dispatcher",
    "segmenter",
    "renderer",
    "receipt-collector",
    "ingest",
    "console",
];

/// Which gateways there are; with both, one takes over from the other.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Gateways {
    Smpp,
    Http,
    Both,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Fault {
    /// SIGKILL in the middle of work, and a new start.
    Kill(&'static str),
    /// SIGTERM, and a new start.
    Stop(&'static str),
    /// The database dies without a word and comes back.
    RestartDatabase,
    /// No connection to the database for so long.
    CutDatabase { ms: u64 },
    /// The broker dies with SIGKILL and comes back.
    RestartBroker,
    /// The gateway's connections break; new ones too, for so long.
    GatewayDown { ms: u64 },
    /// The gateway is down when the campaign is launched, and for so long after.
    GatewayDownAtLaunch { ms: u64 },
    /// From here on the gateway throttles this part of what it gets (HTTP: 429).
    Refuses { percent: u32 },
    /// From here on it closes the connection instead of every n-th answer.
    CutMidResponse { every: u64 },
    /// From here on it answers every n-th message with bytes that mean nothing.
    Garbage { every: u64 },
    /// From here on it takes so long to answer.
    Slow { ms: u64 },
    /// It throttles everything for so long.
    Storm { ms: u64 },
    /// From here on receipts of this part of the messages come before the answer to their submission.
    EarlyReceipts { percent: u32 },
    /// From one dispatcher to four, and to two: one of them is killed, one stopped.
    Rebalance,
}

impl Fault {
    pub fn name(self) -> String {
        match self {
            Fault::Kill(role) => format!("{role} killed"),
            Fault::Stop(role) => format!("{role} stopped"),
            Fault::RestartDatabase => "database killed".into(),
            Fault::CutDatabase { ms } => format!("database cut off for {} s", ms / 1_000),
            Fault::RestartBroker => "broker killed".into(),
            Fault::GatewayDown { .. } => "gateway down".into(),
            Fault::GatewayDownAtLaunch { .. } => "gateway down at launch".into(),
            Fault::Refuses { percent } => format!("gateway refuses {percent} % with 429"),
            Fault::CutMidResponse { .. } => "connection closed mid-response".into(),
            Fault::Garbage { .. } => "gateway answers garbage".into(),
            Fault::Slow { .. } => "slow gateway".into(),
            Fault::Storm { .. } => "throttling storm".into(),
            Fault::EarlyReceipts { .. } => "receipts before responses".into(),
            Fault::Rebalance => "dispatchers 1, 4, 2".into(),
        }
    }
}

/// How large a run is: messages in all, and of each gateway its rate and its window.
#[derive(Clone, Copy, Debug)]
pub struct Scale {
    pub messages: u64,
    pub rate: u64,
    pub window: u64,
}

/// How many outcomes these faults can make ambiguous at most: what a cut finds in flight, as often as there is a cut, and
/// what a dispatcher that dies has claimed ahead. 0: none of them takes an answer away.
pub fn most_unknown(faults: &[Fault], gateways: Gateways, scale: Scale) -> u64 {
    let Scale { messages, rate, window } = scale;
    let (smpp, http) = match gateways {
        Gateways::Smpp => (1, 0),
        Gateways::Http => (0, 1),
        Gateways::Both => (1, 1),
    };
    let dispatchers = if faults.contains(&Fault::Rebalance) { 4 } else { 1 };
    // How long an answer takes: what the faults hold it back, and a busy machine.
    let answer_ms: u64 = 100
        + faults
            .iter()
            .map(|fault| match fault {
                Fault::Slow { ms } => ms * 2,
                Fault::EarlyReceipts { .. } => 200,
                _ => 0,
            })
            .sum::<u64>();
    let in_flight = window.min(1 + rate * answer_ms / 1_000);
    // Of each gateway, a fifth of a second's rate at most is claimed ahead. What was answered is unknown, too, until that is
    // written: half a second where many worlds share a machine.
    let at_death = (smpp + http) * (window + rate / 5 + rate / 2);
    // A request to a closed HTTP gateway is written before the connection ends. Five failures open the breaker, each with
    // what was tried before it was heard of; then few are tried.
    let tries = dispatchers * http * (5 * window.min(rate / 4) + 10);
    let of = |fault: &Fault| match fault {
        Fault::Kill("dispatcher") | Fault::Stop("dispatcher") => at_death,
        Fault::Rebalance => 2 * at_death,
        // The dispatcher lives; what it could not write by then may be another's to settle.
        Fault::RestartDatabase | Fault::CutDatabase { .. } | Fault::RestartBroker => at_death,
        Fault::GatewayDown { .. } => dispatchers * (smpp + http) * in_flight + tries,
        Fault::GatewayDownAtLaunch { .. } => tries,
        // Transactional messages come again, and are counted again. Over HTTP a connection carries one message at a time.
        Fault::CutMidResponse { every } | Fault::Garbage { every } => {
            (messages * 3 / 2 / every + 1) * (smpp * in_flight).max(http)
        }
        Fault::Kill(_)
        | Fault::Stop(_)
        | Fault::Refuses { .. }
        | Fault::Slow { .. }
        | Fault::Storm { .. }
        | Fault::EarlyReceipts { .. } => 0,
    };
    faults.iter().map(of).sum()
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Step {
    /// When so many thousandths of the messages have reached the gateway.
    pub at: u64,
    pub fault: Fault,
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Plan {
    pub seed: u64,
    pub gateways: Gateways,
    pub steps: Vec<Step>,
}

/// Kinds of faults: with so many seeds in a row each of them happens at least once.
pub const KINDS: u64 = 19;
const STEPS: u64 = 3;

impl Plan {
    /// The first fault is the seed's in turn, the others are drawn.
    pub fn of(seed: u64, has_broker: bool) -> Plan {
        let mut dice = Dice(seed);
        let gateways = [Gateways::Smpp, Gateways::Http, Gateways::Both][dice.below(3) as usize];
        let mut kinds = vec![seed % KINDS];
        while (kinds.len() as u64) < STEPS {
            let kind = dice.below(KINDS);
            if !kinds.contains(&kind) {
                kinds.push(kind);
            }
        }
        let faults = kinds
            .into_iter()
            .map(|kind| fault(kind, has_broker, &mut dice))
            .collect::<Vec<_>>();
        let mut steps: Vec<Step> = faults
            .into_iter()
            .map(|fault| Step {
                at: match fault {
                    Fault::GatewayDownAtLaunch { .. } => 0,
                    _ => 20 + dice.below(680),
                },
                fault,
            })
            .collect();
        steps.sort_by_key(|step| step.at);
        Plan { seed, gateways, steps }
    }
}

fn fault(kind: u64, has_broker: bool, dice: &mut Dice) -> Fault {
    match kind {
        // First the ones that cost least, so that few seeds are quick.
        0 => Fault::Kill("dispatcher"),
        1 => Fault::Rebalance,
        2 => Fault::CutMidResponse {
            every: 20 + dice.below(60),
        },
        3 => Fault::EarlyReceipts {
            percent: 20 + dice.below(60) as u32,
        },
        4 => Fault::RestartDatabase,
        5 => Fault::Kill("renderer"),
        6 => Fault::Storm {
            ms: 500 + dice.below(2_000),
        },
        7 => Fault::Kill("receipt-collector"),
        8 => Fault::Slow {
            ms: 50 + dice.below(150),
        },
        9 => Fault::Kill("segmenter"),
        10 => Fault::Garbage {
            every: 20 + dice.below(60),
        },
        11 => Fault::GatewayDownAtLaunch {
            ms: 1_000 + dice.below(4_000),
        },
        12 => Fault::Kill("console"),
        13 => Fault::Refuses { percent: 1 },
        14 => Fault::Kill("ingest"),
        15 => Fault::GatewayDown {
            ms: 200 + dice.below(3_000),
        },
        16 => Fault::CutDatabase { ms: 10_000 },
        17 if has_broker => Fault::RestartBroker,
        // On the other bus the database is the broker.
        17 => Fault::RestartDatabase,
        _ => Fault::Stop("dispatcher"),
    }
}

/// SplitMix64: the same numbers for a seed for ever.
struct Dice(u64);

impl Dice {
    fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9E37_79B9_7F4A_7C15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xBF58_476D_1CE4_E5B9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94D0_49BB_1331_11EB);
        z ^ (z >> 31)
    }

    fn below(&mut self, end: u64) -> u64 {
        self.next() % end
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use super::*;

    #[test]
    fn the_same_seed_gives_the_same_faults() {
        for seed in 0..1_000 {
            for has_broker in [false, true] {
                assert_eq!(Plan::of(seed, has_broker), Plan::of(seed, has_broker));
            }
        }
        // And for ever: what a seed of an old report meant can be found out.
        assert_eq!(format!("{:?}", Plan::of(7, true)), GOLDEN);
        assert_ne!(Plan::of(1, true).steps, Plan::of(1 + KINDS, true).steps);
    }

    const GOLDEN: &str = r#"Plan { seed: 7, gateways: Smpp, steps: [Step { at: 214, fault: Kill("ingest") }, Step { at: 303, fault: Kill("receipt-collector") }, Step { at: 525, fault: CutDatabase { ms: 10000 } }] }"#;

    #[test]
    fn only_what_takes_an_answer_away_makes_it_ambiguous() {
        let scale = Scale {
            messages: 240,
            rate: 60,
            window: 50,
        };
        let most = |faults: &[Fault], gateways| most_unknown(faults, gateways, scale);
        let harmless = [
            Fault::Kill("renderer"),
            Fault::Stop("console"),
            Fault::Refuses { percent: 1 },
            Fault::Slow { ms: 200 },
            Fault::Storm { ms: 2_500 },
            Fault::EarlyReceipts { percent: 80 },
        ];
        assert_eq!(most(&harmless, Gateways::Both), 0);
        let launch = [Fault::GatewayDownAtLaunch { ms: 5_000 }];
        assert_eq!(most(&launch, Gateways::Smpp), 0);
        assert_eq!(most(&launch, Gateways::Http), 85);
        let kill = Fault::Kill("dispatcher");
        assert_eq!(most(&[kill], Gateways::Smpp), 92);
        assert_eq!(most(&[kill, Fault::Rebalance], Gateways::Smpp), 92 * 3);
        // Every fortieth of 360, seven in flight; more where answers are slow; one each over HTTP.
        let cut = Fault::CutMidResponse { every: 40 };
        assert_eq!(most(&[cut], Gateways::Smpp), 70);
        assert_eq!(most(&[cut, Fault::Slow { ms: 100 }], Gateways::Smpp), 10 * 19);
        assert_eq!(most(&[cut], Gateways::Http), 10);
        // A dispatcher that calls everything unknown is found out.
        assert!(most(&[kill], Gateways::Both) < scale.messages);
    }

    #[test]
    fn as_many_seeds_as_there_are_kinds_meet_every_kind() {
        for first in [1, 100, 12_345] {
            let names: BTreeSet<String> = (first..first + KINDS)
                .flat_map(|seed| Plan::of(seed, true).steps)
                .map(|step| step.fault.name())
                .collect();
            assert_eq!(names.len() as u64, KINDS, "{names:?}");
        }
    }
}
