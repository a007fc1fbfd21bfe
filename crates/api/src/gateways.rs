//! How well each gateway does, by what it did: its own success rate and latency.

use std::collections::BTreeMap;

use jiff::{SignedDuration, Timestamp};
use resources::Kind;
use store::gateway_traffic::Traffic;

use crate::{Api, ApiError, Caller, Role};

/// The period where the caller names none.
const LATELY: SignedDuration = SignedDuration::from_hours(1);
/// The longest period: it is read from the ledger row by row.
const LONGEST: SignedDuration = SignedDuration::from_hours(31 * 24);

/// What the gateways did in a period.
#[derive(Clone, Debug, PartialEq)]
pub struct GatewayReport {
    pub since: Timestamp,
    pub until: Timestamp,
    /// By name.
    pub gateways: Vec<GatewayLine>,
}

#[derive(Clone, Debug, PartialEq)]
pub struct GatewayLine {
    /// It is among the resources; one that is not was when messages went to it.
    pub configured: bool,
    pub traffic: Traffic,
}

impl Api {
    /// What was handed to each gateway in a period (absent: the last hour), and what it made of it. A gateway that was
    /// handed nothing stands there with zeros.
    pub async fn gateways(
        &self,
        caller: &Caller,
        since: Option<Timestamp>,
        until: Option<Timestamp>,
    ) -> Result<GatewayReport, ApiError> {
        caller.require(&[Role::Campaigns, Role::Read])?;
        let until = until.unwrap_or_else(|| self.clock.now());
        let since = since.unwrap_or_else(|| until.checked_sub(LATELY).unwrap_or(Timestamp::MIN));
        if since >= until {
            return Err(ApiError::invalid("since", "expected a time before `until`"));
        }
        if until.duration_since(since) > LONGEST {
            return Err(ApiError::invalid(
                "since",
                format!("expected up to {} days before `until`", LONGEST.as_hours() / 24),
            ));
        }
        let mut gateways: BTreeMap<String, GatewayLine> = BTreeMap::new();
        for row in self.store.resources_list().await? {
            if row.kind == Kind::Gateway.as_str() {
                let traffic = Traffic {
                    gateway: row.name.clone(),
                    ..Traffic::default()
                };
                let configured = true;
                gateways.insert(row.name, GatewayLine { configured, traffic });
            }
        }
        for traffic in self.store.gateway_traffic(since, until).await? {
            let configured = gateways.contains_key(&traffic.gateway);
            gateways.insert(traffic.gateway.clone(), GatewayLine { configured, traffic });
        }
        Ok(GatewayReport {
            since,
            until,
            gateways: gateways.into_values().collect(),
        })
    }
}
