//! Publishing over gRPC, as an internal system does: batch after batch on one stream, without waiting for each answer.

use futures::StreamExt;
use ingest::proto::{Event, PublishRequest, event_service_client::EventServiceClient};
use jiff::Timestamp;
use prost_types::{Struct, Value, value::Kind};
use tonic::{Request, metadata::MetadataValue};

use super::purchases::Order;
use crate::{
    commands::progress::Progress,
    exit::{Failure, chain},
};

const BATCH: usize = 500;

/// Publishes orders; returns when all are acknowledged, that is durable. One that is refused is a failure.
pub async fn publish(
    grpc: &str,
    key: &str,
    orders: &[Order],
    today: Timestamp,
    progress: &mut Progress,
) -> Result<(), Failure> {
    let unreachable = |error: &dyn std::error::Error| Failure::unreachable(format!("gRPC {grpc}: {}", chain(error)));
    let mut client = EventServiceClient::connect(grpc.to_owned())
        .await
        .map_err(|error| unreachable(&error))?;
    let batches: Vec<PublishRequest> = orders
        .chunks(BATCH)
        .map(|chunk| PublishRequest {
            events: chunk.iter().map(|order| event(order, today)).collect(),
        })
        .collect();
    let mut request = Request::new(futures::stream::iter(batches));
    let bearer = MetadataValue::try_from(format!("Bearer {key}")).map_err(Failure::no)?;
    request.metadata_mut().insert("authorization", bearer);
    let mut answers = client
        .publish_stream(request)
        .await
        .map_err(|error| unreachable(&error))?
        .into_inner();
    while let Some(answer) = answers.next().await {
        let answer = answer.map_err(|error| unreachable(&error))?;
        if let Some(error) = answer.results.iter().find_map(|result| result.error.as_ref()) {
            return Err(Failure::no(format!(
                "an event was refused: {}: {}",
                error.field, error.message
            )));
        }
        progress.add(u64::from(answer.accepted));
    }
    Ok(())
}

fn event(order: &Order, today: Timestamp) -> Event {
    let time = if order.today { today } else { order.time };
    let number = |number: f64| Some(Kind::NumberValue(number));
    let text = |text: &str| Some(Kind::StringValue(text.into()));
    let fields = [
        ("category", text(order.category)),
        ("items", number(f64::from(order.cds))),
        ("amount", number(order.amount)),
        ("currency", text("EUR")),
    ];
    Event {
        id: order.id.clone(),
        source: "shop".into(),
        r#type: "order.placed".into(),
        contact_id: order.contact_id.clone(),
        time: Some(ingest::convert::to_timestamp(time)),
        data: Some(Struct {
            fields: fields
                .into_iter()
                .map(|(name, kind)| (name.to_owned(), Value { kind }))
                .collect(),
        }),
    }
}
