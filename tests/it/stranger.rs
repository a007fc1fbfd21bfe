//! The dispatcher before an SMPP server that this project did not write: the npm package `smpp`.

use std::{
    collections::BTreeMap,
    io::{BufRead as _, BufReader},
    process::{Child, Command, Stdio},
    sync::{Arc, Mutex},
};

use domain::{Class, State, sms};
use events::{Outbound, Topic};
use serde_json::Value;

use crate::{
    dispatcher_stand::{Stand, eventually, outbound},
    oracle,
};

/// The server, until it is dropped.
struct Stranger {
    child: Child,
    port: u16,
    heard: Arc<Mutex<Vec<Value>>>,
}

impl Stranger {
    fn start() -> Stranger {
        let mut child = Command::new("node")
            .arg("smsc.cjs")
            .current_dir(oracle::installed())
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()
            .expect("node is needed: `make test` installs it");
        let mut lines = BufReader::new(child.stdout.take().unwrap()).lines();
        let first: Value = serde_json::from_str(&lines.next().unwrap().unwrap()).unwrap();
        let heard = Arc::new(Mutex::new(Vec::new()));
        let sink = heard.clone();
        std::thread::spawn(move || {
            for line in lines.map_while(Result::ok) {
                sink.lock().unwrap().push(serde_json::from_str(&line).unwrap());
            }
        });
        Stranger {
            child,
            port: u16::try_from(first["port"].as_u64().unwrap()).unwrap(),
            heard,
        }
    }

    /// What it told that has this field.
    fn heard(&self, field: &str) -> Vec<Value> {
        let heard = self.heard.lock().unwrap();
        heard.iter().filter(|event| !event[field].is_null()).cloned().collect()
    }
}

impl Drop for Stranger {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_strangers_smpp_server_reads_what_was_written_and_its_receipts_are_kept() {
    let stranger = tokio::task::spawn_blocking(Stranger::start).await.unwrap();
    let stand = Stand::new(&format!(
        "[[gateway]]\nname = \"main\"\nkind = \"smpp\"\naddress = \"127.0.0.1:{}\"\nsystem_id = \"tamtam\"\npassword = \"secret\"\n\
         bind = \"transceiver\"\nrate = 1000\n[policy]\nquiet_hours = \"off\"\n",
        stranger.port
    ))
    .await;
    let texts = [
        "Bonjour".to_owned(),
        "5 € {[~]} à l'été, ÄÖÜ ñ".to_owned(),
        "Ça vous dirait ? « ж » 😀".to_owned(),
        "Réduction {50 €} jusqu'à dimanche. ".repeat(12),
        "Ça vous dirait ? « ж » 😀 ".repeat(10),
    ];
    let records: Vec<Outbound> = texts
        .iter()
        .cycle()
        .take(40)
        .enumerate()
        .map(|(number, text)| {
            let measured = sms::measure(text);
            Outbound {
                text: text.clone(),
                encoding: measured.encoding.as_str().into(),
                parts: measured.parts,
                ..outbound(number, Class::Transactional)
            }
        })
        .collect();
    let parts: usize = records.iter().map(|record| usize::from(record.parts)).sum();
    stand.append(&records).await;
    let dispatcher = stand.start_real();
    // One part was throttled, and came again: a whole message later, or with the rest of its own.
    eventually("every part is there", || stranger.heard("to").len() == parts).await;
    stand
        .until(&records, |row| {
            row.state == State::Accepted && row.gateway.as_deref() == Some("main")
        })
        .await;
    eventually("every receipt is acknowledged", || {
        stranger.heard("receipt").len() == parts
    })
    .await;
    dispatcher.stop().await;
    eventually("it is told that we go", || stranger.heard("unbind").len() == 1).await;

    assert!(stranger.heard("error").is_empty(), "{:?}", stranger.heard("error"));
    let bind = &stranger.heard("bind")[0];
    assert_eq!(
        (&bind["bind"], &bind["system_id"], &bind["password"]),
        (&"bind_transceiver".into(), &"tamtam".into(), &"secret".into())
    );
    for receipt in stranger.heard("receipt") {
        assert_eq!(receipt["status"], 0, "{receipt}");
    }
    let mut read: BTreeMap<String, BTreeMap<u64, String>> = BTreeMap::new();
    for part in stranger.heard("to") {
        assert_eq!((&part["from"], &part["registered"]), (&"BOUTIQUE".into(), &1.into()));
        let text = part["text"].as_str().unwrap().to_owned();
        let before = read
            .entry(part["to"].as_str().unwrap().to_owned())
            .or_default()
            .insert(part["part"][1].as_u64().unwrap(), text);
        assert_eq!(before, None, "a part came twice: {part}");
    }
    for record in &records {
        let phone = record.phone.e164().trim_start_matches('+');
        let text: String = read[phone].values().map(String::as_str).collect();
        assert_eq!(text, record.text);
    }
    assert_eq!(stand.all(Topic::Callbacks).await.len(), parts);
    assert_eq!(stand.store.audit(None, None).await.unwrap().violations, 0);
}
