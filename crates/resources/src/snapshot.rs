//! All resources at one moment, and the campaigns that are not simply running: what a service looks at while it works.

use std::{
    collections::{BTreeMap, HashMap},
    sync::Arc,
};

use domain::CampaignState;
use uuid::Uuid;

use crate::{Audience, Gateway, Kind, Policy, Resource, Template, Trigger};

/// Cheap to clone in parts: what did not change between two snapshots is the same `Arc`.
#[derive(Clone, Debug, Default)]
pub struct Snapshot {
    /// The store's generation of resources: grows whenever one changes. What a service compiles from them it keeps by this.
    pub version: u64,
    pub gateways: BTreeMap<String, Arc<Gateway>>,
    pub templates: BTreeMap<String, Arc<Template>>,
    pub audiences: BTreeMap<String, Arc<Audience>>,
    pub triggers: BTreeMap<String, Arc<Trigger>>,
    pub policy: Arc<Policy>,
    /// Each resource's own version, by kind and name.
    pub versions: BTreeMap<(Kind, String), i64>,
    /// The campaigns that are paused or cancelled; messages of all others go on.
    pub campaigns: HashMap<Uuid, CampaignState>,
}

impl Snapshot {
    /// Adds a resource as the store has it, replacing one of the same kind and name.
    pub fn insert(&mut self, resource: Resource, version: i64) {
        self.versions
            .insert((resource.kind(), resource.name().to_owned()), version);
        match resource {
            Resource::Gateway(gateway) => {
                self.gateways.insert(gateway.name.clone(), Arc::new(gateway));
            }
            Resource::Template(template) => {
                self.templates.insert(template.name.clone(), Arc::new(template));
            }
            Resource::Audience(audience) => {
                self.audiences.insert(audience.name.clone(), Arc::new(audience));
            }
            Resource::Trigger(trigger) => {
                self.triggers.insert(trigger.name.clone(), Arc::new(trigger));
            }
            Resource::Policy(policy) => self.policy = Arc::new(policy),
        }
    }

    /// The version of one resource, 0 where there is none.
    pub fn version_of(&self, kind: Kind, name: &str) -> i64 {
        self.versions.get(&(kind, name.to_owned())).copied().unwrap_or(0)
    }

    pub fn is_paused(&self, campaign: Uuid) -> bool {
        self.campaigns.get(&campaign) == Some(&CampaignState::Paused)
    }

    pub fn is_cancelled(&self, campaign: Uuid) -> bool {
        self.campaigns.get(&campaign) == Some(&CampaignState::Cancelled)
    }
}
