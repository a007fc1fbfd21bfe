//! A campaign as a test drafts it: what it does not say is off.

use serde_json::Map;
use store::NewCampaign;
use uuid::Uuid;

pub fn drafted(id: Uuid, name: &str, expression: &str, template: &str) -> NewCampaign {
    NewCampaign {
        id,
        parent_id: None,
        name: name.into(),
        audience: None,
        expression: expression.into(),
        template: template.into(),
        vars: Map::new(),
        at: None,
        zone: None,
        recurring: None,
        deadline: None,
        budget_micros: None,
        control_percent: 0,
    }
}
