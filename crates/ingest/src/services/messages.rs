//! `MessageService`.

use api::{Api, ApiError, messages::NewMessage};
use store::messages::MessageRow;
use tonic::{Request, Response, Status};

use crate::{
    convert::{from_timestamp, to_map, to_timestamp},
    guard::{caller, trace},
    proto::{
        GetMessageRequest, Message, SendMessageRequest, SendMessageResponse, message_service_server::MessageService,
    },
    status::status,
};

#[derive(Debug)]
pub(crate) struct Messages {
    pub api: Api,
}

#[tonic::async_trait]
impl MessageService for Messages {
    async fn send(&self, request: Request<SendMessageRequest>) -> Result<Response<SendMessageResponse>, Status> {
        let (caller, trace) = (caller(&request)?, trace(&request));
        let request = request.into_inner();
        let values = to_map(request.values.as_ref()).map_err(|_| {
            status(ApiError::invalid(
                "values",
                "a number that is not finite: expected finite numbers",
            ))
        })?;
        let deadline = request
            .deadline
            .map(|time| {
                from_timestamp(time).ok_or_else(|| status(ApiError::invalid("deadline", "no instant: expected a time")))
            })
            .transpose()?;
        let message = NewMessage {
            idempotency_key: request.idempotency_key,
            contact_id: request.contact_id,
            template: request.template,
            values,
            deadline,
        };
        let id = self
            .api
            .message_send(&caller, message, trace.as_deref())
            .await
            .map_err(status)?;
        Ok(Response::new(SendMessageResponse {
            message_id: id.to_string(),
        }))
    }

    async fn get(&self, request: Request<GetMessageRequest>) -> Result<Response<Message>, Status> {
        let caller = caller(&request)?;
        let id = request.get_ref().message_id.parse();
        let id = id.map_err(|_| status(ApiError::invalid("message_id", "expected a message's id (a UUID)")))?;
        let row = self.api.message_get(&caller, id).await.map_err(status)?;
        Ok(Response::new(message(row)))
    }
}

fn message(row: MessageRow) -> Message {
    Message {
        id: row.message_id.to_string(),
        contact_id: row.contact_id,
        state: row.state.as_str().into(),
        reason: row.reason.map(|reason| reason.as_str().into()).unwrap_or_default(),
        class: row.class.as_str().into(),
        template: row.template,
        gateway: row.gateway.unwrap_or_default(),
        parts: row.parts.into(),
        cost_micros: row.cost_micros,
        planned_at: Some(to_timestamp(row.planned_at)),
        accepted_at: row.accepted_at.map(to_timestamp),
        settled_at: row.settled_at.map(to_timestamp),
    }
}
