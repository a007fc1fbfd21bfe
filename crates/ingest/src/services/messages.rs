//! `MessageService`.

use api::{Api, ApiError, messages::NewMessage};
use tonic::{Request, Response, Status};

use crate::{
    convert::{from_timestamp, to_map},
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
        let _ = (caller(&request)?, request);
        Err(Status::unimplemented("not yet"))
    }
}
