//! The connection to a running tamtam's HTTP API.

use std::{collections::BTreeMap, os::fd::AsFd, time::Duration};

use futures::{StreamExt, stream::BoxStream};
use reqwest::{Client, Method, RequestBuilder, Response, StatusCode};
use serde_json::Value;
use tokio::io::AsyncReadExt;

use crate::{
    cli::ClientArgs,
    commands::progress::Progress,
    exit::{Failure, chain},
    run::directory::key_files,
};

const CONNECT: Duration = Duration::from_secs(5);
/// An import of a large file is answered when all of it is in.
const ANSWER: Duration = Duration::from_secs(600);
const FOREVER: Duration = Duration::from_secs(365 * 86_400);
const PIECE: usize = 64 * 1024;

#[derive(Clone, Debug)]
pub struct Connection {
    client: Client,
    server: String,
    key: Option<String>,
    /// --json
    pub json: bool,
}

impl Connection {
    /// The server and the key that the arguments and the environment name.
    pub fn open(arguments: &ClientArgs, environment: &BTreeMap<String, String>) -> Result<Connection, Failure> {
        let key = match &arguments.api_key_file {
            Some(path) => {
                let text = std::fs::read_to_string(path)
                    .map_err(|error| Failure::usage(format!("--api-key-file {}: {error}", path.display())))?;
                Some(text.trim().to_owned())
            }
            None => environment
                .get("TAMTAM_API_KEY")
                .map(|key| key.trim().to_owned())
                .filter(|key| !key.is_empty())
                .or_else(|| {
                    key_files(arguments.data_dir.as_deref())
                        .iter()
                        .find_map(|path| std::fs::read_to_string(path).ok())
                        .map(|text| text.trim().to_owned())
                }),
        };
        Connection::new(&arguments.server, key, arguments.json)
    }

    pub fn new(server: &str, key: Option<String>, json: bool) -> Result<Connection, Failure> {
        let server = server.trim_end_matches('/').to_owned();
        if !server.starts_with("http://") && !server.starts_with("https://") {
            return Err(Failure::usage(format!(
                "--server `{server}`: expected a URL such as http://127.0.0.1:8080"
            )));
        }
        let client = Client::builder()
            .connect_timeout(CONNECT)
            .timeout(ANSWER)
            // The server is ours: a proxy for the outside world is not for it.
            .no_proxy()
            .build()
            .map_err(Failure::no)?;
        Ok(Connection {
            client,
            server,
            key,
            json,
        })
    }

    pub async fn get(&self, path: &str, query: &[(&str, String)]) -> Result<Value, Failure> {
        self.value(self.request(Method::GET, path).query(query)).await
    }

    pub async fn post(&self, path: &str, body: &Value) -> Result<Value, Failure> {
        self.value(self.request(Method::POST, path).json(body)).await
    }

    /// A request without a body.
    pub async fn post_query(&self, path: &str, query: &[(&str, String)]) -> Result<Value, Failure> {
        self.value(self.request(Method::POST, path).query(query)).await
    }

    pub async fn delete(&self, path: &str) -> Result<Value, Failure> {
        self.value(self.request(Method::DELETE, path)).await
    }

    pub async fn delete_with(&self, path: &str, body: &Value) -> Result<Value, Failure> {
        self.value(self.request(Method::DELETE, path).json(body)).await
    }

    /// A body of another type than JSON.
    pub async fn post_as(
        &self,
        path: &str,
        query: &[(&str, String)],
        content_type: &str,
        body: Vec<u8>,
    ) -> Result<Value, Failure> {
        let request = self
            .request(Method::POST, path)
            .query(query)
            .header("content-type", content_type)
            .body(body);
        self.value(request).await
    }

    /// A long body of another type than JSON, told as it goes. An answer of several lines is given to `line`, one by one,
    /// while the body is still being sent; of one that is a single value this is the only line.
    pub async fn upload(
        &self,
        path: &str,
        query: &[(&str, String)],
        content_type: &str,
        body: Upload,
        mut progress: Progress,
        line: impl FnMut(Value) -> Result<(), Failure>,
    ) -> Result<(), Failure> {
        progress.set_total(body.length);
        let (tell, mut sent) = tokio::sync::mpsc::unbounded_channel();
        let stream = body.pieces.inspect(move |piece| {
            if let Ok(piece) = piece {
                let _ = tell.send(piece.len() as u64);
            }
        });
        let request = self
            .request(Method::POST, path)
            .query(query)
            .header("content-type", content_type)
            // As long as it goes on: the server itself gives up on a sender that sends nothing.
            .timeout(FOREVER)
            .body(reqwest::Body::wrap_stream(stream));
        let answer = self.lines(request, line);
        tokio::pin!(answer);
        loop {
            tokio::select! {
                answered = &mut answer => break answered?,
                Some(bytes) = sent.recv() => progress.add(bytes),
            }
        }
        while let Ok(bytes) = sent.try_recv() {
            progress.add(bytes);
        }
        progress.finish();
        Ok(())
    }

    /// Sends it and gives the answer's lines to `line`.
    async fn lines(
        &self,
        request: RequestBuilder,
        mut line: impl FnMut(Value) -> Result<(), Failure>,
    ) -> Result<(), Failure> {
        let mut read = |text: &[u8]| {
            let value = serde_json::from_slice(text)
                .map_err(|_| Failure::no(format!("{} did not answer with JSON: is it a tamtam?", self.server)))?;
            line(value)
        };
        let mut pieces = self.send(request).await?.bytes_stream();
        let mut open = Vec::new();
        while let Some(piece) = pieces.next().await {
            open.extend_from_slice(&piece.map_err(|error| self.unreachable(&error))?);
            while let Some(end) = open.iter().position(|byte| *byte == b'\n') {
                let whole: Vec<u8> = open.drain(..=end).collect();
                read(&whole)?;
            }
        }
        match open.is_empty() {
            true => Ok(()),
            false => read(&open),
        }
    }

    /// An answer that is read as it comes.
    pub async fn stream(&self, path: &str, query: &[(&str, String)]) -> Result<Response, Failure> {
        let request = self
            .request(Method::GET, path)
            .query(query)
            // It goes on for as long as somebody reads.
            .timeout(FOREVER);
        self.send(request).await
    }

    fn request(&self, method: Method, path: &str) -> RequestBuilder {
        let request = self.client.request(method, format!("{}{path}", self.server));
        match &self.key {
            Some(key) => request.bearer_auth(key),
            None => request,
        }
    }

    async fn value(&self, request: RequestBuilder) -> Result<Value, Failure> {
        let response = self.send(request).await?;
        let bytes = response.bytes().await.map_err(|error| self.unreachable(&error))?;
        if bytes.is_empty() {
            return Ok(Value::Null);
        }
        serde_json::from_slice(&bytes)
            .map_err(|_| Failure::no(format!("{} did not answer with JSON: is it a tamtam?", self.server)))
    }

    /// Sends it; an answer that is no success becomes a failure with what the server said.
    async fn send(&self, request: RequestBuilder) -> Result<Response, Failure> {
        let response = request.send().await.map_err(|error| self.unreachable(&error))?;
        let status = response.status();
        if status.is_success() {
            return Ok(response);
        }
        let body: Value = response
            .bytes()
            .await
            .ok()
            .and_then(|bytes| serde_json::from_slice(&bytes).ok())
            .unwrap_or_default();
        let message = said(status, &body, self.key.is_some());
        let failure = match status {
            StatusCode::SERVICE_UNAVAILABLE | StatusCode::BAD_GATEWAY | StatusCode::GATEWAY_TIMEOUT => {
                Failure::unreachable(message)
            }
            _ => Failure::no(message),
        };
        Err(Failure {
            status: Some(status.as_u16()),
            ..failure
        })
    }

    fn unreachable(&self, error: &reqwest::Error) -> Failure {
        Failure::unreachable(format!(
            "no tamtam answers at {}: {} (is `tamtam up` running? --server names another)",
            self.server,
            chain(error)
        ))
    }
}

/// What the server said was wrong: problem details (RFC 9457) with a `field` and, where a file has several mistakes,
/// `errors`, each with its line.
fn said(status: StatusCode, body: &Value, with_key: bool) -> String {
    let text = |value: &Value| value.as_str().filter(|text| !text.is_empty()).map(str::to_owned);
    let mut message = match text(&body["detail"]).or_else(|| text(&body["title"])) {
        Some(message) => message,
        None => format!("the server answered {status}"),
    };
    if let Some(field) = text(&body["field"]) {
        message = format!("{field}: {message}");
    }
    for detail in body["errors"].as_array().into_iter().flatten() {
        let line = detail["line"]
            .as_u64()
            .map(|line| format!("line {line}: "))
            .unwrap_or_default();
        let told = text(&detail["message"]).unwrap_or_default();
        message.push_str(&format!("\n  {line}{told}"));
    }
    if status == StatusCode::UNAUTHORIZED && !with_key {
        message.push_str(
            "\n  no key was found: expected TAMTAM_API_KEY, --api-key-file, or the data directory of `tamtam up` (--data-dir)",
        );
    }
    message
}

/// A part of a path: everything but letters, digits, `-`, `_`, `.` and `~` escaped (RFC 3986, section 2.3).
pub fn segment(text: &str) -> String {
    text.bytes()
        .map(|byte| match byte {
            b'a'..=b'z' | b'A'..=b'Z' | b'0'..=b'9' | b'-' | b'_' | b'.' | b'~' => char::from(byte).to_string(),
            byte => format!("%{byte:02X}"),
        })
        .collect()
}

/// What is uploaded, piece by piece: no file is held in memory.
pub struct Upload {
    /// In bytes; 0 where nobody knows.
    pub length: u64,
    pieces: BoxStream<'static, std::io::Result<bytes::Bytes>>,
}

impl Upload {
    pub fn bytes(body: Vec<u8>) -> Upload {
        let body = bytes::Bytes::from(body);
        let length = body.len();
        let pieces = (0..length).step_by(PIECE);
        let pieces = pieces.map(move |from| Ok(body.slice(from..length.min(from + PIECE))));
        Upload {
            length: length as u64,
            pieces: futures::stream::iter(pieces).boxed(),
        }
    }

    /// A file named by an argument, or standard input where it is `-`.
    pub async fn open(path: &std::path::Path) -> Result<Upload, Failure> {
        let standard_input = path.as_os_str() == "-";
        let refused = |error: std::io::Error| match standard_input {
            true => Failure::usage(format!("standard input: {error}")),
            false => Failure::usage(format!("{}: {error}", path.display())),
        };
        let file = match standard_input {
            true => {
                let own = std::io::stdin().as_fd().try_clone_to_owned().map_err(refused)?;
                tokio::fs::File::from_std(std::fs::File::from(own))
            }
            false => tokio::fs::File::open(path).await.map_err(refused)?,
        };
        let about = file.metadata().await.map_err(refused)?;
        if about.is_dir() {
            return Err(refused(std::io::ErrorKind::IsADirectory.into()));
        }
        let pieces = futures::stream::unfold(Some(file), async |file| {
            let mut file = file?;
            let mut piece = bytes::BytesMut::with_capacity(PIECE);
            match file.read_buf(&mut piece).await {
                Ok(0) => None,
                Ok(_) => Some((Ok(piece.freeze()), Some(file))),
                Err(error) => Some((Err(error), None)),
            }
        });
        Ok(Upload {
            length: if about.is_file() { about.len() } else { 0 },
            pieces: pieces.boxed(),
        })
    }
}

/// A file named by an argument, or standard input where it is `-`.
pub fn read_file(path: &std::path::Path) -> Result<Vec<u8>, Failure> {
    use std::io::Read;
    if path.as_os_str() == "-" {
        let mut bytes = Vec::new();
        return std::io::stdin()
            .read_to_end(&mut bytes)
            .map(|_| bytes)
            .map_err(|error| Failure::usage(format!("standard input: {error}")));
    }
    std::fs::read(path).map_err(|error| Failure::usage(format!("{}: {error}", path.display())))
}

/// NAME=VALUE of an option; a value that is JSON's number or boolean is taken as such.
pub fn pair(text: &str) -> Result<(String, Value), String> {
    let (name, value) = text.split_once('=').ok_or("expected NAME=VALUE")?;
    if name.is_empty() {
        return Err("expected a name before `=`".into());
    }
    let value = match serde_json::from_str::<Value>(value) {
        Ok(scalar @ (Value::Number(_) | Value::Bool(_))) => scalar,
        _ => Value::String(value.to_owned()),
    };
    Ok((name.to_owned(), value))
}

/// A time of an option: RFC 3339, or a period from now such as `2h`.
pub fn time(text: &str) -> Result<jiff::Timestamp, String> {
    if let Ok(at) = text.parse::<jiff::Timestamp>() {
        return Ok(at);
    }
    let period: resources::Period = text
        .trim_start_matches('+')
        .parse()
        .map_err(|_| "expected a time such as 2026-12-24T18:00:00Z or 2026-12-24T18:00:00+04:00, or a period from now such as 2h")?;
    jiff::Timestamp::now()
        .checked_add(period.duration())
        .map_err(|error| error.to_string())
}

/// A time of an option: an instant, or a local time whose zone another option says.
#[derive(Clone, Copy, Debug)]
pub enum When {
    At(jiff::Timestamp),
    Local(jiff::civil::DateTime),
}

impl std::fmt::Display for When {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            When::At(at) => at.fmt(f),
            When::Local(local) => local.fmt(f),
        }
    }
}

/// As [`time`], or a local time such as `2026-12-24T09:00`.
pub fn local_time(text: &str) -> Result<When, String> {
    match time(text) {
        Ok(at) => Ok(When::At(at)),
        Err(error) => text
            .parse()
            .map(When::Local)
            .map_err(|_| format!("{error}, or a local time such as 2026-12-24T09:00 with --zone")),
    }
}

/// A zone of an option: an IANA name.
pub fn zone(text: &str) -> Result<String, String> {
    match jiff::tz::TimeZone::get(text) {
        Ok(_) => Ok(text.to_owned()),
        Err(_) => Err("expected an IANA zone such as Indian/Reunion".into()),
    }
}

/// A time of an option about what was: RFC 3339, or a period before now such as `7d`.
pub fn past(text: &str) -> Result<jiff::Timestamp, String> {
    if let Ok(at) = text.parse::<jiff::Timestamp>() {
        return Ok(at);
    }
    let period: resources::Period = text
        .parse()
        .map_err(|_| "expected a time such as 2026-12-24T18:00:00Z, or a period before now such as 7d")?;
    jiff::Timestamp::now()
        .checked_sub(period.duration())
        .map_err(|error| error.to_string())
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn what_the_server_said_is_told_with_lines() {
        let body = json!({"detail": "2 mistakes", "field": "body",
            "errors": [{"line": 3, "about": "trigger a", "message": "no such template"}]});
        assert_eq!(
            said(StatusCode::BAD_REQUEST, &body, true),
            "body: 2 mistakes\n  line 3: no such template"
        );
        assert!(said(StatusCode::UNAUTHORIZED, &Value::Null, false).contains("TAMTAM_API_KEY"));
    }

    #[test]
    fn options_are_read() {
        assert_eq!(pair("n=3"), Ok(("n".into(), json!(3))));
        assert_eq!(pair("until=demain"), Ok(("until".into(), json!("demain"))));
        assert!(pair("x").is_err());
        assert!(time("2h").is_ok() && time("2026-12-24T18:00:00+04:00").is_ok() && time("soon").is_err());
        assert_eq!(segment("a b/é"), "a%20b%2F%C3%A9");
        let said = |text: &str| local_time(text).map(|when| when.to_string());
        assert_eq!(said("2026-12-24T09:00"), Ok("2026-12-24T09:00:00".into()));
        assert_eq!(said("2026-12-24T09:00:00+04:00"), Ok("2026-12-24T05:00:00Z".into()));
        assert!(said("Christmas").unwrap_err().contains("--zone"));
        assert!(zone("Europe/Paris").is_ok() && zone("Mars/Olympus").is_err());
    }
}
