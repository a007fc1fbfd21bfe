//! One module a gRPC service. Adding a method: the proto, its handler here, and its roles in the guard's table.

mod campaigns;
mod contacts;
mod events;
mod messages;

use api::Api;
use tokio_util::sync::CancellationToken;
use tonic::{codec::CompressionEncoding, service::Routes};

use crate::{
    MAX_MESSAGE_BYTES,
    proto::{
        audience_service_server::AudienceServiceServer, campaign_service_server::CampaignServiceServer,
        contact_service_server::ContactServiceServer, event_service_server::EventServiceServer,
        message_service_server::MessageServiceServer,
    },
};

/// For health: one status a service.
pub(crate) const NAMES: [&str; 5] = [
    "tamtam.v1.EventService",
    "tamtam.v1.ContactService",
    "tamtam.v1.MessageService",
    "tamtam.v1.CampaignService",
    "tamtam.v1.AudienceService",
];

macro_rules! limited {
    ($server:ident, $service:expr) => {
        $server::new($service)
            .max_decoding_message_size(MAX_MESSAGE_BYTES)
            .max_encoding_message_size(MAX_MESSAGE_BYTES)
            .accept_compressed(CompressionEncoding::Gzip)
            .send_compressed(CompressionEncoding::Gzip)
    };
}

pub(crate) fn add(routes: Routes, api: &Api, shutdown: &CancellationToken) -> Routes {
    let events = events::Events {
        api: api.clone(),
        shutdown: shutdown.clone(),
    };
    let campaigns = campaigns::Campaigns {
        api: api.clone(),
        shutdown: shutdown.clone(),
    };
    routes
        .add_service(limited!(EventServiceServer, events))
        .add_service(limited!(ContactServiceServer, contacts::Contacts { api: api.clone() }))
        .add_service(limited!(MessageServiceServer, messages::Messages { api: api.clone() }))
        .add_service(limited!(CampaignServiceServer, campaigns))
        .add_service(limited!(
            AudienceServiceServer,
            campaigns::Audiences { api: api.clone() }
        ))
}
