//! The gRPC services, in front of a real bus and a real database.

use std::collections::BTreeMap;

use api::Role;
use bus::ReadLimits;
use events::{Envelope, Topic};
use ingest::{
    convert::to_struct,
    proto::{
        CampaignRequest, Contact, CountAudienceRequest, CreateCampaignRequest, EraseContactRequest, Event,
        GetContactRequest, GetMessageRequest, PublishRequest, SendMessageRequest, UpsertContactsRequest,
        audience_service_client::AudienceServiceClient, campaign_service_client::CampaignServiceClient,
        contact_service_client::ContactServiceClient, create_campaign_request::AudienceOf,
        event_service_client::EventServiceClient, message_service_client::MessageServiceClient,
    },
};
use prost::Message;
use tokio_util::sync::CancellationToken;
use tonic::{Code, Request, Status, codegen::http::uri::PathAndQuery, transport::Channel};

use crate::support::server::Server;

/// A request with a role's key.
fn with_key<T>(server: &Server, role: Role, message: T) -> Request<T> {
    keyed(Some(server.key(role)), message)
}

fn keyed<T>(key: Option<&str>, message: T) -> Request<T> {
    let mut request = Request::new(message);
    if let Some(key) = key {
        let value = format!("Bearer {key}").parse().unwrap();
        request.metadata_mut().insert("authorization", value);
    }
    request
}

/// Every method of the protos, from what reflection answers with.
fn methods() -> Vec<String> {
    let set = prost_types::FileDescriptorSet::decode(ingest::proto::DESCRIPTORS).unwrap();
    set.file
        .iter()
        .flat_map(|file| file.service.iter().map(move |service| (file.package(), service)))
        .flat_map(|(package, service)| {
            let name = format!("/{package}.{}", service.name());
            service
                .method
                .iter()
                .map(move |method| format!("{name}/{}", method.name()))
        })
        .collect()
}

/// Calls a method with an empty message, whatever its type.
async fn call(channel: &Channel, method: &str, key: Option<&str>) -> Result<(), Status> {
    let mut grpc = tonic::client::Grpc::new(channel.clone());
    grpc.ready().await.unwrap();
    let codec = tonic_prost::ProstCodec::<(), ()>::default();
    let path: PathAndQuery = method.parse().unwrap();
    grpc.unary(keyed(key, ()), path, codec).await.map(|_| ())
}

#[tokio::test]
async fn every_method_refuses_a_call_without_key_and_of_a_wrong_role() {
    let server = Server::start().await;
    let roles: BTreeMap<&str, &[Role]> = ingest::ROLES.into_iter().collect();
    let methods = methods();
    assert!(methods.len() >= 15, "{methods:?}");
    for method in &methods {
        let allowed = roles
            .get(method.as_str())
            .unwrap_or_else(|| panic!("{method} has no roles in the guard's table"));
        let refused = call(&server.grpc, method, None).await.unwrap_err();
        assert_eq!(refused.code(), Code::Unauthenticated, "{method} without a key");
        let unknown = format!("tt_{}", "0".repeat(64));
        let refused = call(&server.grpc, method, Some(&unknown)).await.unwrap_err();
        assert_eq!(refused.code(), Code::Unauthenticated, "{method} with an unknown key");
        for role in Role::ALL {
            let code = call(&server.grpc, method, Some(server.key(role)))
                .await
                .err()
                .map(|status| status.code());
            let may = role == Role::Admin || allowed.contains(&role);
            assert_eq!(
                code != Some(Code::PermissionDenied),
                may,
                "{method} as {role}: {code:?}"
            );
            assert_ne!(code, Some(Code::Unimplemented), "{method}");
        }
    }
    assert_eq!(
        roles.len(),
        methods.len(),
        "the guard's table names a method that is not there"
    );
}

fn event(id: &str, data: serde_json::Value) -> Event {
    let serde_json::Value::Object(data) = data else {
        panic!()
    };
    Event {
        id: id.into(),
        source: "shop".into(),
        r#type: "order.placed".into(),
        contact_id: "nobody-yet".into(),
        time: None,
        data: Some(to_struct(data)),
    }
}

#[tokio::test]
async fn a_bad_event_is_told_and_the_rest_of_its_batch_goes_on() {
    let server = Server::start().await;
    let year_9999 = prost_types::Timestamp {
        seconds: 253_402_300_799,
        nanos: 0,
    };
    let batch = vec![
        event("", serde_json::json!({})),
        event("good-1", serde_json::json!({"amount": 12.5})),
        event("large", serde_json::json!({"text": "x".repeat(2 << 20)})),
        Event {
            time: Some(year_9999),
            ..event("late", serde_json::json!({}))
        },
        Event {
            r#type: "tamtam.timer.v1".into(),
            ..event("ours", serde_json::json!({}))
        },
        event("good-2", serde_json::json!({})),
    ];
    let mut client = EventServiceClient::new(server.grpc.clone()).max_encoding_message_size(16 << 20);
    let answer = client
        .publish(with_key(&server, Role::Events, PublishRequest { events: batch }))
        .await
        .unwrap()
        .into_inner();
    let told: Vec<(String, String)> = answer
        .results
        .iter()
        .map(|result| {
            let error = result.error.clone().unwrap_or_default();
            (error.code, error.field)
        })
        .collect();
    let expected = [
        ("missing", "id"),
        ("", ""),
        ("too_large", "data"),
        ("out_of_range", "time"),
        ("reserved", "type"),
        ("", ""),
    ];
    assert_eq!(told, expected.map(|(code, field)| (code.to_owned(), field.to_owned())));
    assert_eq!((answer.accepted, answer.rejected), (2, 4));
    // What was accepted is on the bus, in its order, and nothing else.
    let mut ids = Vec::new();
    for bounds in server.log.bounds(Topic::Events).await.unwrap() {
        let limits = ReadLimits {
            records: 100,
            bytes: 1 << 20,
            wait: std::time::Duration::from_secs(5),
        };
        if bounds.first < bounds.end {
            for record in server.log.read(bounds.partition, bounds.first, limits).await.unwrap() {
                ids.push(Envelope::from_headers(&record.headers).unwrap().id);
            }
        }
    }
    assert_eq!(ids, ["good-1", "good-2"]);
}

const TEMPLATES: &str = r#"
[[template]]
name = "hello"
class = "transactional"
sender = "BOUTIQUE"
text = "Bonjour"

[[template]]
name = "other"
class = "marketing"
sender = "BOUTIQUE"
text = "Soldes"

[[audience]]
name = "north"
where = 'region = "north"'
"#;

#[tokio::test]
async fn a_message_that_was_asked_for_is_known_at_once_and_once() {
    let server = Server::start().await;
    server.apply(TEMPLATES).await;
    let mut client = MessageServiceClient::new(server.grpc.clone());
    let ask = |template: &str| SendMessageRequest {
        idempotency_key: "k1".into(),
        contact_id: "42".into(),
        template: template.into(),
        values: None,
        deadline: None,
    };
    let first = client
        .send(with_key(&server, Role::Events, ask("hello")))
        .await
        .unwrap()
        .into_inner();
    let again = client
        .send(with_key(&server, Role::Events, ask("hello")))
        .await
        .unwrap()
        .into_inner();
    assert_eq!(first.message_id, again.message_id);
    let other = client
        .send(with_key(&server, Role::Events, ask("other")))
        .await
        .unwrap_err();
    assert_eq!(other.code(), Code::FailedPrecondition);
    let unknown = client
        .send(with_key(&server, Role::Events, ask("nothing")))
        .await
        .unwrap_err();
    assert_eq!(unknown.code(), Code::InvalidArgument);

    let get = |id: String| with_key(&server, Role::Read, GetMessageRequest { message_id: id });
    let message = client.get(get(first.message_id)).await.unwrap().into_inner();
    assert_eq!(
        (message.state.as_str(), message.class.as_str()),
        ("queued", "transactional")
    );
    let missing = client.get(get(uuid::Uuid::nil().to_string())).await.unwrap_err();
    assert_eq!(missing.code(), Code::NotFound);
    let jobs: i64 = server
        .log
        .bounds(Topic::Jobs)
        .await
        .unwrap()
        .iter()
        .map(|bounds| bounds.end - bounds.first)
        .sum();
    assert_eq!(jobs, 1);
}

#[tokio::test]
async fn a_campaign_goes_through_its_states_and_each_step_may_be_asked_for_again() {
    let server = Server::start().await;
    server.apply(TEMPLATES).await;
    let mut client = CampaignServiceClient::new(server.grpc.clone());
    let draft = |audience: AudienceOf, name: &str| CreateCampaignRequest {
        name: name.into(),
        audience_of: Some(audience),
        template: "other".into(),
        idempotency_key: "summer".into(),
        ..CreateCampaignRequest::default()
    };
    let named = || AudienceOf::Audience("north".into());
    let create = |draft| with_key(&server, Role::Campaigns, draft);
    let made = client
        .create(create(draft(named(), "Soldes")))
        .await
        .unwrap()
        .into_inner();
    let again = client
        .create(create(draft(named(), "Soldes")))
        .await
        .unwrap()
        .into_inner();
    assert_eq!((made.id.as_str(), made.state.as_str()), (again.id.as_str(), "draft"));
    let clash = client.create(create(draft(named(), "Autre"))).await.unwrap_err();
    assert_eq!(clash.code(), Code::FailedPrecondition);
    let wrong = client
        .create(create(draft(AudienceOf::Where("region = ".into()), "Soldes")))
        .await
        .unwrap_err();
    assert_eq!(wrong.code(), Code::InvalidArgument);
    assert!(wrong.message().starts_with("where:"), "{}", wrong.message());

    let id = || with_key(&server, Role::Campaigns, CampaignRequest { id: made.id.clone() });
    let state = |campaign: tonic::Response<ingest::proto::Campaign>| campaign.into_inner().state;
    assert_eq!(client.pause(id()).await.unwrap_err().code(), Code::FailedPrecondition);
    for _ in 0..2 {
        assert_eq!(state(client.launch(id()).await.unwrap()), "running");
    }
    for _ in 0..2 {
        assert_eq!(state(client.pause(id()).await.unwrap()), "paused");
    }
    for _ in 0..2 {
        assert_eq!(state(client.resume(id()).await.unwrap()), "running");
    }
    for _ in 0..2 {
        assert_eq!(state(client.cancel(id()).await.unwrap()), "cancelled");
    }
    assert_eq!(client.launch(id()).await.unwrap_err().code(), Code::FailedPrecondition);
    // Cancelled and with nothing under way: watching tells it once and ends.
    let mut watch = client.watch(id()).await.unwrap().into_inner();
    assert_eq!(watch.message().await.unwrap().unwrap().state, "cancelled");
    assert_eq!(watch.message().await.unwrap(), None);
    let log = server.store.campaign_log(made.id.parse().unwrap()).await.unwrap();
    let actions: Vec<&str> = log.iter().map(|line| line.action.as_str()).collect();
    assert_eq!(actions, ["created", "launched", "paused", "resumed", "cancelled"]);

    let count = CountAudienceRequest {
        expression: r#"region = "north""#.into(),
    };
    let mut audiences = AudienceServiceClient::new(server.grpc.clone());
    let counted = audiences.count(with_key(&server, Role::Read, count)).await.unwrap();
    assert_eq!(counted.into_inner().count, 0);
}

#[tokio::test]
async fn stopping_ends_a_stream_that_nobody_ends() {
    let server = Server::start().await;
    server.apply(TEMPLATES).await;
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = format!("http://{}", listener.local_addr().unwrap());
    let stop = CancellationToken::new();
    let config = ingest::Config {
        listener,
        api: server.api.clone(),
    };
    let running = tokio::spawn(ingest::run(config, stop.clone()));
    let channel = Channel::from_shared(address).unwrap().connect().await.unwrap();
    let mut client = CampaignServiceClient::new(channel);
    let draft = CreateCampaignRequest {
        name: "Soldes".into(),
        audience_of: Some(AudienceOf::Audience("north".into())),
        template: "other".into(),
        ..CreateCampaignRequest::default()
    };
    let made = client
        .create(with_key(&server, Role::Campaigns, draft))
        .await
        .unwrap()
        .into_inner();
    let request = with_key(&server, Role::Campaigns, CampaignRequest { id: made.id });
    let mut watch = client.watch(request).await.unwrap().into_inner();
    assert_eq!(watch.message().await.unwrap().unwrap().state, "draft");
    stop.cancel();
    let ended = tokio::time::timeout(std::time::Duration::from_secs(15), running).await;
    ended.expect("a watch keeps the server").unwrap().unwrap();
}

#[tokio::test]
async fn contacts_are_upserted_read_and_erased() {
    let server = Server::start().await;
    let mut client = ContactServiceClient::new(server.grpc.clone());
    let contact = |id: &str, fields: serde_json::Value| {
        let serde_json::Value::Object(fields) = fields else {
            panic!()
        };
        Contact {
            id: id.into(),
            fields: Some(to_struct(fields)),
        }
    };
    let batch = UpsertContactsRequest {
        contacts: vec![
            contact(
                "1",
                serde_json::json!({"phone": "0692000001", "points": 3, "marketing_consent": true,
                    "consents": [{"purpose": "newsletter", "given": true, "source": "shop"}]}),
            ),
            contact("2", serde_json::json!({"birth_date": "yesterday"})),
        ],
        region: "RE".into(),
    };
    let upserted = client
        .upsert(with_key(&server, Role::Events, batch))
        .await
        .unwrap()
        .into_inner();
    assert_eq!((upserted.created, upserted.rejected), (1, 1));
    assert_eq!(upserted.results[1].error.as_ref().unwrap().field, "birth_date");
    let get = || with_key(&server, Role::Read, GetContactRequest { id: "1".into() });
    let fields = client.get(get()).await.unwrap().into_inner().fields.unwrap();
    let map = ingest::convert::to_map(Some(&fields)).unwrap();
    let expected = serde_json::json!({"phone": "+262692000001", "points": 3, "marketing_consent": true,
        "consents": [{"purpose": "newsletter", "given": true}]});
    assert_eq!(serde_json::Value::Object(map), expected);
    let erase = with_key(&server, Role::Events, EraseContactRequest { id: "1".into() });
    client.erase(erase).await.unwrap();
    assert_eq!(client.get(get()).await.unwrap_err().code(), Code::NotFound);
}
