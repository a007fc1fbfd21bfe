//! One module a gRPC service. Adding a method: the proto, its handler here, and its line in the authorization test.

mod events;
mod messages;

use api::Api;
use tokio_util::sync::CancellationToken;
use tonic::{codec::CompressionEncoding, service::Routes};

use crate::{
    MAX_MESSAGE_BYTES,
    proto::{event_service_server::EventServiceServer, message_service_server::MessageServiceServer},
};

/// For health: one status a service.
pub(crate) const NAMES: [&str; 2] = ["tamtam.v1.EventService", "tamtam.v1.MessageService"];

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
    routes
        .add_service(limited!(EventServiceServer, events))
        .add_service(limited!(MessageServiceServer, messages::Messages { api: api.clone() }))
}
