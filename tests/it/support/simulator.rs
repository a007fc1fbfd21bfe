//! The simulator, in this process.

use std::time::{Duration, Instant};

use serde_json::{Value, json};
use simulator::{Script, Stats};
use tokio::{net::TcpListener, task::JoinHandle};
use tokio_util::sync::CancellationToken;

/// Asks again and again until there is an answer; 90 s at most, for a machine that does much else.
pub async fn eventually<T, F: Future<Output = Option<T>>>(what: &str, mut ask: impl FnMut() -> F) -> T {
    let begun = Instant::now();
    loop {
        if let Some(answer) = ask().await {
            return answer;
        }
        assert!(begun.elapsed() < Duration::from_secs(90), "waited in vain for: {what}");
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
}

pub struct Simulator {
    /// `http://HOST:PORT`
    pub http: String,
    /// `HOST:PORT`
    pub smpp: String,
    client: reqwest::Client,
    stop: CancellationToken,
    task: JoinHandle<()>,
}

impl Simulator {
    pub async fn start(script: Script) -> Simulator {
        let http = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let smpp = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let stop = CancellationToken::new();
        Simulator {
            http: format!("http://{}", http.local_addr().unwrap()),
            smpp: smpp.local_addr().unwrap().to_string(),
            client: reqwest::Client::builder()
                .no_proxy()
                .timeout(Duration::from_secs(10))
                .build()
                .unwrap(),
            stop: stop.clone(),
            task: tokio::spawn(async move {
                let config = simulator::Config { http, smpp, script };
                simulator::run(config, stop).await.unwrap();
            }),
        }
    }

    pub async fn stop(self) {
        self.stop.cancel();
        drop(self.client);
        self.task.await.unwrap();
    }

    async fn get(&self, path: &str) -> Value {
        let answer = self.client.get(format!("{}{path}", self.http)).send().await.unwrap();
        answer.json().await.unwrap()
    }

    async fn post(&self, path: &str, body: &Value) {
        let request = self.client.post(format!("{}{path}", self.http)).json(body);
        let answer = request.send().await.unwrap();
        assert!(answer.status().is_success(), "{path}: {}", answer.text().await.unwrap());
    }

    pub async fn stats(&self) -> Stats {
        serde_json::from_value(self.get("/stats").await).unwrap()
    }

    pub async fn script(&self, script: Script) {
        self.post("/script", &serde_json::to_value(script).unwrap()).await;
    }

    /// What phones show, from the first on.
    pub async fn messages(&self) -> Vec<Value> {
        let (mut all, mut after) = (Vec::new(), 0);
        loop {
            let mut page = self.get(&format!("/messages?after={after}&limit=10000")).await;
            after = page["next"].as_u64().unwrap();
            match page["messages"].take() {
                Value::Array(messages) if !messages.is_empty() => all.extend(messages),
                _ => return all,
            }
        }
    }

    /// What phones show after number `after`, all of it.
    pub async fn messages_after(&self, mut after: u64) -> Vec<Value> {
        let mut all = Vec::new();
        loop {
            let page = self.get(&format!("/messages?limit=10000&after={after}")).await;
            let messages = page["messages"].as_array().unwrap();
            if messages.is_empty() {
                return all;
            }
            all.extend_from_slice(messages);
            after = page["next"].as_u64().unwrap();
        }
    }

    /// A person sends a text.
    pub async fn reply(&self, system_id: &str, from: &str, to: &str, text: &str) {
        let reply = json!({ "system_id": system_id, "from": from, "to": to, "text": text });
        self.post("/inbound", &reply).await;
    }
}
