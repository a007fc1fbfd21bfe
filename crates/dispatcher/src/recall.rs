//! Brings back what was put off behind a slow gateway ([`crate::room`]) as soon as the gateway has little left to send.
//!
//! When it was put off, its time was reckoned from the rate that the gateway had then, in one dispatcher. The rate may be
//! raised, a replica may be added, what stood before may be cancelled, or the gateway may fail while another one serves the
//! same phones. So once a second each dispatcher looks at its gateways, and asks for as much as its own part of the rate
//! sends in a second.

use std::{sync::Arc, time::Duration};

use tokio::time::Instant;

use crate::{
    core::Core,
    gate::{Load, Standing},
};

const EVERY: Duration = Duration::from_secs(1);
/// At once; more would fill the memory that others' records need.
const MOST: u32 = 2_000;
/// For other gateways to take over from one that is down.
const ELSEWHERE: u32 = 500;

/// Until the dispatcher stops.
pub(crate) async fn run(core: Arc<Core>) {
    loop {
        tokio::select! {
            () = core.stopping.cancelled() => return,
            () = tokio::time::sleep(EVERY) => {}
        }
        let now = Instant::now();
        let gates = core.fleet.all();
        let is_up = |standing| matches!(standing, Standing::Up);
        let another = gates.iter().any(|gate| is_up(gate.standing(now)));
        let wanted: Vec<(String, u32)> = gates
            .iter()
            .filter_map(|gate| Some((gate.name.clone(), wanted(gate.standing(now), &gate.load(), another)?)))
            .collect();
        if let Err(error) = core.store.deferred_recall(&wanted, core.clock.now()).await {
            // They are due in their time anyway.
            tracing::debug!(%error, "what was put off cannot be brought back");
        }
    }
}

/// How many records a gateway would have back.
fn wanted(standing: Standing, load: &Load, another: bool) -> Option<u32> {
    match standing {
        Standing::Up => {
            let room = load.rate - load.parts as f64;
            (room > 0.0).then(|| (room.ceil() as u32).min(MOST))
        }
        Standing::Throttles => None,
        Standing::Down { .. } => another.then_some(ELSEWHERE),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_gateway_wants_what_it_sends_in_a_second() {
        let load = |parts, rate| Load {
            queued: [0, 0],
            parts,
            busy: false,
            rate,
            arrived: 0,
        };
        assert_eq!(wanted(Standing::Up, &load(0, 9.85), true), Some(10));
        assert_eq!(wanted(Standing::Up, &load(4, 9.85), true), Some(6));
        assert_eq!(wanted(Standing::Up, &load(10, 9.85), true), None);
        assert_eq!(wanted(Standing::Up, &load(0, 100_000.0), true), Some(MOST));
        assert_eq!(wanted(Standing::Throttles, &load(0, 10.0), true), None);
        let down = Standing::Down { since: Instant::now() };
        assert_eq!(wanted(down, &load(0, 10.0), true), Some(ELSEWHERE));
        assert_eq!(wanted(down, &load(0, 10.0), false), None);
    }
}
