//! The connections to one gateway: HTTP/1.1, a request at a time on each (RFC 9112, 9.3), kept while both sides want to.
//!
//! They are hyper's own, without a client that pools them, for two reasons. Who asks drives its connection itself, so that
//! a request passes no pool and wakes no other task, which was half of what it cost. And hyper gives back a request of which nothing
//! was written, as one that goes out on a kept connection which the gateway has just closed: that nothing was sent is
//! then certain, and it goes out on the next one.

use std::{
    collections::VecDeque,
    future::poll_fn,
    pin::{Pin, pin},
    sync::{Mutex, MutexGuard},
    task::Poll,
    time::Duration,
};

use bytes::Bytes;
use http_body_util::{BodyExt as _, Full};
use hyper::{
    Request, Uri,
    body::Incoming,
    client::conn::http1::{Builder, Connection, SendRequest},
};
use hyper_rustls::{FixedServerNameResolver, HttpsConnector, HttpsConnectorBuilder, MaybeHttpsStream};
use hyper_util::{client::legacy::connect::HttpConnector, rt::TokioIo};
use rustls::{ClientConfig, pki_types::ServerName};
use tokio::{
    net::TcpStream,
    time::{Instant, Sleep, sleep, timeout},
};
use tower::ServiceExt as _;

/// More of an answer is not read: nothing that we look for stands so far behind.
const MAX_ANSWER: usize = 64 * 1024;
const CONNECT_TIMEOUT: Duration = Duration::from_secs(5);
/// So long a connection without a request is kept. Gateways close theirs after 5 to 75 s; we notice that when we next want
/// to use it, and what is older than this is not tried.
const KEPT_FOR: Duration = Duration::from_secs(60);

type Asking = Request<Full<Bytes>>;

/// What became of a request.
#[derive(Debug)]
pub(super) enum Asked {
    /// `body` is absent where the answer broke off.
    Answered { status: u16, body: Option<Vec<u8>> },
    /// Certainly nothing of it reached the gateway.
    NotSent,
    /// It may have been written, and no answer came.
    Lost,
}

pub(super) struct Connections {
    connector: HttpsConnector<HttpConnector>,
    to: Uri,
    /// For an answer, once there is a connection.
    patience: Duration,
    most: usize,
    /// The one that was used last is at the back, and is used first.
    kept: Mutex<VecDeque<(Instant, Box<Open>)>>,
}

impl Connections {
    /// At most `most` are kept.
    pub(super) fn new(
        to: Uri,
        tls: ClientConfig,
        name: Option<ServerName<'static>>,
        patience: Duration,
        most: usize,
    ) -> Connections {
        let mut tcp = HttpConnector::new();
        tcp.enforce_http(false);
        tcp.set_nodelay(true);
        // Of several addresses each gets its share.
        tcp.set_connect_timeout(Some(CONNECT_TIMEOUT.min(patience)));
        let builder = HttpsConnectorBuilder::new().with_tls_config(tls).https_or_http();
        let builder = match name {
            Some(name) => builder.with_server_name_resolver(FixedServerNameResolver::new(name)),
            None => builder,
        };
        Connections {
            connector: builder.enable_http1().wrap_connector(tcp),
            to,
            patience,
            most,
            kept: Mutex::default(),
        }
    }

    pub(super) async fn ask(&self, mut request: Asking) -> Asked {
        loop {
            let kept = self.take();
            let is_new = kept.is_none();
            let mut open = match kept {
                Some(open) => open,
                None => match self.open().await {
                    Some(open) => open,
                    None => return Asked::NotSent,
                },
            };
            match open.ask(request, self.patience).await {
                Ok(answer) => {
                    if answer.is_whole && open.driver.is_some() {
                        self.keep(open);
                    }
                    return Asked::Answered {
                        status: answer.status,
                        body: answer.body,
                    };
                }
                Err(Some(back)) if !is_new => request = back,
                Err(Some(_)) => return Asked::NotSent,
                Err(None) => return Asked::Lost,
            }
        }
    }

    /// How long a request takes at most.
    pub(super) fn longest(&self) -> Duration {
        self.connecting() + self.patience
    }

    fn connecting(&self) -> Duration {
        CONNECT_TIMEOUT.min(self.patience)
    }

    /// Ends those that are kept.
    pub(super) fn close(&self) {
        self.kept().clear();
    }

    async fn open(&self) -> Option<Box<Open>> {
        let connected = async {
            let stream = self.connector.clone().oneshot(self.to.clone()).await.ok()?;
            let (sender, driver) = Builder::new()
                .max_buf_size(2 * MAX_ANSWER)
                // Head and body are short: one piece is sent for less than two are.
                .writev(false)
                .handshake(stream)
                .await
                .ok()?;
            Some(Box::new(Open {
                sender,
                driver: Some(driver),
                alarm: Box::pin(sleep(self.patience)),
            }))
        };
        timeout(self.connecting(), connected).await.ok()?
    }

    fn take(&self) -> Option<Box<Open>> {
        self.kept().pop_back().map(|(_, open)| open)
    }

    fn keep(&self, open: Box<Open>) {
        self.kept().push_back((Instant::now(), open));
    }

    /// Without those that have been there for too long.
    fn kept(&self) -> MutexGuard<'_, VecDeque<(Instant, Box<Open>)>> {
        // Nothing under the lock leaves the queue half changed.
        let mut kept = self.kept.lock().unwrap_or_else(|poisoned| poisoned.into_inner());
        while kept
            .front()
            .is_some_and(|(since, _)| kept.len() > self.most || since.elapsed() > KEPT_FOR)
        {
            kept.pop_front();
        }
        kept
    }
}

struct Open {
    sender: SendRequest<Full<Bytes>>,
    /// `None`: it has ended.
    driver: Option<Connection<MaybeHttpsStream<TokioIo<TcpStream>>, Full<Bytes>>>,
    /// When an answer has been waited for long enough. It is put off from request to request, which costs less than one each.
    alarm: Pin<Box<Sleep>>,
}

struct Answer {
    status: u16,
    body: Option<Vec<u8>>,
    /// Nothing of it is left on the connection.
    is_whole: bool,
}

impl Open {
    /// The request comes back where certainly nothing of it was written; where no answer comes in time, it does not.
    async fn ask(&mut self, request: Asking, patience: Duration) -> Result<Answer, Option<Asking>> {
        let Open { sender, driver, alarm } = self;
        alarm.as_mut().reset(Instant::now() + patience);
        let mut asked = pin!(async {
            if sender.ready().await.is_err() {
                return Err(Some(request));
            }
            match sender.try_send_request(request).await {
                Ok(response) => Ok(read(response.status().as_u16(), response.into_body()).await),
                Err(mut error) => Err(error.take_message()),
            }
        });
        poll_fn(|context| {
            if let Some(running) = driver
                && Pin::new(running).poll(context).is_ready()
            {
                // Dropped, it tells what was asked how it ended.
                *driver = None;
            }
            match asked.as_mut().poll(context) {
                Poll::Pending if alarm.as_mut().poll(context).is_ready() => Poll::Ready(Err(None)),
                asked => asked,
            }
        })
        .await
    }
}

async fn read(status: u16, mut body: Incoming) -> Answer {
    let mut bytes = Vec::new();
    let answer = |body, is_whole| Answer { status, body, is_whole };
    while let Some(frame) = body.frame().await {
        let Ok(frame) = frame else {
            return answer(None, false);
        };
        let Some(data) = frame.data_ref() else { continue };
        let room = MAX_ANSWER - bytes.len();
        bytes.extend_from_slice(&data[..data.len().min(room)]);
        if bytes.len() == MAX_ANSWER {
            return answer(Some(bytes), false);
        }
    }
    answer(Some(bytes), true)
}

#[cfg(test)]
mod tests {
    use tokio::{
        io::{AsyncReadExt as _, AsyncWriteExt as _},
        net::TcpListener,
    };

    use super::*;
    use crate::tls::{self, Trust};

    const LONG: Duration = Duration::from_secs(60);

    fn request() -> Asking {
        Request::builder().uri("/").body(Full::default()).unwrap()
    }

    #[tokio::test]
    async fn a_kept_connections_alarm_that_went_off_is_put_off_by_the_next_request() {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = format!("http://{}/", listener.local_addr().unwrap());
        let gateway = async {
            let (mut stream, _) = listener.accept().await.unwrap();
            for answer in [&b"HTTP/1.1 200 OK\r\ncontent-length: 2\r\n\r\nok"[..], b""] {
                let mut asked = Vec::new();
                while !asked.ends_with(b"\r\n\r\n") {
                    asked.push(stream.read_u8().await.unwrap());
                }
                stream.write_all(answer).await.unwrap();
            }
            stream
        };
        let client = async {
            let resource = resources::Gateway::http("main", &address, "vonage");
            let trusted = tls::config(&resource, Trust::Nobody).unwrap();
            let connections = Connections::new(address.parse().unwrap(), trusted, None, LONG, 1);
            let mut open = connections.open().await.unwrap();
            open.alarm.as_mut().reset(Instant::now());
            open.alarm.as_mut().await;
            let answer = open.ask(request(), LONG).await.ok().unwrap();
            assert_eq!((answer.status, answer.body.as_deref()), (200, Some(&b"ok"[..])));
            // Nothing comes to the second one, and it is not given back: it was written.
            open.ask(request(), Duration::from_millis(20)).await
        };
        let (_stream, second) = tokio::join!(gateway, client);
        assert!(matches!(second, Err(None)));
    }
}
