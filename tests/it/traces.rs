//! One message's way through the stages is one trace: from the caller's `traceparent` to the gateway's
//! report, as a collector sees it.

use std::{
    collections::HashMap,
    sync::{Arc, Mutex},
};

use opentelemetry_proto::tonic::{
    collector::trace::v1::{
        ExportTraceServiceRequest, ExportTraceServiceResponse,
        trace_service_server::{TraceService, TraceServiceServer},
    },
    trace::v1::Span,
};
use tonic::{Request, Response, Status, transport::server::TcpIncoming};

use crate::support::{
    process::eventually,
    tamtam::{Installation, KEY, PATIENCE, contacts, resources},
};

const TRACE: &str = "4bf92f3577b34da6a3ce929d0e0e4736";
const CALLER: &str = "00f067aa0ba902b7";

/// What a collector was sent.
#[derive(Clone, Default)]
struct Collector(Arc<Mutex<Vec<Span>>>);

#[tonic::async_trait]
impl TraceService for Collector {
    async fn export(
        &self,
        request: Request<ExportTraceServiceRequest>,
    ) -> Result<Response<ExportTraceServiceResponse>, Status> {
        let spans = request.into_inner().resource_spans.into_iter();
        let spans = spans
            .flat_map(|resource| resource.scope_spans)
            .flat_map(|scope| scope.spans);
        self.0.lock().unwrap().extend(spans);
        Ok(Response::new(ExportTraceServiceResponse::default()))
    }
}

fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}

#[tokio::test(flavor = "multi_thread")]
async fn a_messages_way_through_the_stages_is_one_trace() {
    let collector = Collector::default();
    let incoming = TcpIncoming::bind("127.0.0.1:0".parse().unwrap()).unwrap();
    let address = incoming.local_addr().unwrap();
    let service = TraceServiceServer::new(collector.clone());
    tokio::spawn(
        tonic::transport::Server::builder()
            .add_service(service)
            .serve_with_incoming(incoming),
    );

    let mut installation = Installation::private().await;
    let environment = &mut installation.environment;
    environment.insert("TAMTAM__TELEMETRY__OTLP_ENDPOINT".into(), format!("http://{address}"));
    let mut up = installation.start(&["up", "--simulator", "--data-dir", "data"]);
    let file = installation.file("resources.toml", &resources(up.at("simulator_smpp"), 100));
    installation.json(&up, &["apply", "-f", &file]);
    let file = installation.file("contacts.csv", &contacts(1));
    installation.json(&up, &["contacts", "import", &file]);
    let event = serde_json::json!({
        "id": "o0", "source": "shop", "type": "order.placed", "contact_id": "c0", "data": {"amount": 1},
    });
    let published = reqwest::Client::new()
        .post(format!("{}/v1/events", up.at("console")))
        .bearer_auth(KEY)
        .header("traceparent", format!("00-{TRACE}-{CALLER}-01"))
        .json(&event)
        .send()
        .await
        .unwrap();
    assert!(published.status().is_success());
    eventually("the message to be delivered", PATIENCE, || {
        let receipts = installation.tail(&up, "receipts");
        let delivered = receipts.iter().any(|record| record["data"]["state"] == "delivered");
        delivered.then_some(())
    });
    // What waits is sent before the process ends.
    assert!(up.terminate().success());

    let spans = collector.0.lock().unwrap().clone();
    let ours: HashMap<String, &Span> = spans
        .iter()
        .filter(|span| hex(&span.trace_id) == TRACE)
        .map(|span| (hex(&span.span_id), span))
        .collect();
    let named = |name: &str| {
        let found = ours.values().find(|span| span.name == name);
        let names: Vec<&str> = ours.values().map(|span| span.name.as_str()).collect();
        *found.unwrap_or_else(|| panic!("no span `{name}` in {names:?}"))
    };
    let mut parent = CALLER.to_owned();
    for name in ["ingest", "segmenter", "renderer", "dispatcher", "receipt-collector"] {
        let span = named(name);
        assert_eq!(hex(&span.parent_span_id), parent, "the parent of {name}");
        parent = hex(&span.span_id);
    }
    // Nothing of the person in any of them.
    let text = format!("{spans:?}");
    assert!(!text.contains("+262") && !text.contains("Merci"));
}
