//! The API served over gRPC and HTTP in this process, with a key of each role.

use std::{collections::BTreeMap, process::Output, sync::Arc};

use ::bus::Log;
use api::{Api, Caller, Role};
use reqwest::{Method, StatusCode};
use serde_json::Value;
use stage::Clock;
use store::Store;
use tokio::net::TcpListener;
use tokio_util::sync::{CancellationToken, DropGuard};
use tonic::transport::Channel;

use super::{bus, database::database, process::run};

/// A server that ends with its test.
pub struct Server {
    pub api: Api,
    pub store: Store,
    pub log: Arc<dyn Log>,
    /// `http://127.0.0.1:PORT`
    pub http: String,
    pub grpc: Channel,
    keys: BTreeMap<Role, String>,
    client: reqwest::Client,
    _stop: DropGuard,
}

impl Server {
    pub async fn start() -> Server {
        let store = database().await;
        let log = bus::log(&store).await;
        let api = Api::new(store.clone(), log.clone(), Clock::system());
        let stop = CancellationToken::new();

        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let http = format!("http://{}", listener.local_addr().unwrap());
        let router = ingest::http::router(api.clone());
        let stopped = stop.clone().cancelled_owned();
        tokio::spawn(async move { axum::serve(listener, router).with_graceful_shutdown(stopped).await });

        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = format!("http://{}", listener.local_addr().unwrap());
        let config = ingest::Config {
            listener,
            api: api.clone(),
        };
        tokio::spawn(ingest::run(config, stop.clone()));
        let grpc = Channel::from_shared(address).unwrap().connect_lazy();

        let mut keys = BTreeMap::new();
        for role in Role::ALL {
            let (key, _) = api.key_create(&admin(), role.as_str(), role).await.unwrap();
            keys.insert(role, key);
        }
        Server {
            api,
            store,
            log,
            http,
            grpc,
            keys,
            client: reqwest::Client::builder().no_proxy().build().unwrap(),
            _stop: stop.drop_guard(),
        }
    }

    pub fn key(&self, role: Role) -> &str {
        &self.keys[&role]
    }

    /// A request to the HTTP API with a role's key.
    pub fn request(&self, method: Method, path: &str, role: Role) -> reqwest::RequestBuilder {
        self.anonymous(method, path).bearer_auth(self.key(role))
    }

    pub fn anonymous(&self, method: Method, path: &str) -> reqwest::RequestBuilder {
        self.client.request(method, format!("{}{path}", self.http))
    }

    /// As admin; the answer's status and JSON.
    pub async fn send(&self, method: Method, path: &str, body: Option<&Value>) -> (StatusCode, Value) {
        let request = self.request(method, path, Role::Admin);
        let request = match body {
            Some(body) => request.json(body),
            None => request,
        };
        answer(request).await
    }

    pub async fn get(&self, path: &str) -> Value {
        let (status, body) = self.send(Method::GET, path, None).await;
        assert_eq!(status, StatusCode::OK, "GET {path}: {body}");
        body
    }

    pub async fn post(&self, path: &str, body: &Value) -> Value {
        let (status, answer) = self.send(Method::POST, path, Some(body)).await;
        assert_eq!(status, StatusCode::OK, "POST {path}: {answer}");
        answer
    }

    /// Runs a command of the binary against this server, with a role's key. Needs a runtime of several threads.
    pub fn command(&self, role: Role, arguments: &[&str]) -> Output {
        let directory = tempfile::tempdir().unwrap();
        let arguments = [arguments, &["--server", &self.http]].concat();
        let environment = [("TAMTAM_API_KEY", self.key(role))];
        tokio::task::block_in_place(|| run(directory.path(), &arguments, &environment))
    }

    /// Runs a command as admin that must succeed; the JSON that it prints.
    pub fn json(&self, arguments: &[&str]) -> Value {
        let output = self.command(Role::Admin, &[arguments, &["--json"]].concat());
        let told = String::from_utf8_lossy(&output.stderr);
        assert!(output.status.success(), "{arguments:?}: {told}");
        serde_json::from_slice(&output.stdout).unwrap()
    }

    /// Applies resources.
    pub async fn apply(&self, toml: &str) {
        self.api.resources_apply(&admin(), toml, false).await.unwrap();
    }
}

pub fn admin() -> Caller {
    caller(Role::Admin)
}

pub fn caller(role: Role) -> Caller {
    Caller {
        name: format!("test-{role}"),
        role,
    }
}

pub async fn answer(request: reqwest::RequestBuilder) -> (StatusCode, Value) {
    let response = request.send().await.unwrap();
    let status = response.status();
    let bytes = response.bytes().await.unwrap();
    (status, serde_json::from_slice(&bytes).unwrap_or_default())
}
