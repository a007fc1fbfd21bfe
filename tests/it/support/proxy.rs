//! A TCP proxy that a test can cut: in front of the database, of a gateway, of the callbacks' address.

use std::sync::{Arc, Mutex};

use tokio::{
    io::copy_bidirectional,
    net::{TcpListener, TcpStream},
    sync::watch,
};

/// Where it leads to, and whether it leads anywhere.
#[derive(Clone, Debug, Default)]
struct Way {
    to: String,
    is_open: bool,
}

pub struct Proxy {
    /// `HOST:PORT`, the same for as long as it lives.
    pub address: String,
    way: Arc<Mutex<Way>>,
    /// Each value ends the connections that were made before it.
    cut: watch::Sender<u64>,
    task: tokio::task::JoinHandle<()>,
}

impl Proxy {
    pub async fn start(to: &str) -> Proxy {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap().to_string();
        let way = Arc::new(Mutex::new(Way {
            to: to.to_owned(),
            is_open: true,
        }));
        let (cut, cuts) = watch::channel(0);
        let task = tokio::spawn(accept(listener, way.clone(), cuts));
        Proxy {
            address,
            way,
            cut,
            task,
        }
    }

    /// New connections lead there.
    pub fn lead_to(&self, to: &str) {
        self.way.lock().unwrap().to = to.to_owned();
    }

    /// All connections break, and new ones break at once, until it is opened.
    pub fn close(&self) {
        self.way.lock().unwrap().is_open = false;
        self.cut();
    }

    pub fn open(&self) {
        self.way.lock().unwrap().is_open = true;
    }

    /// All connections break; new ones are led on.
    pub fn cut(&self) {
        self.cut.send_modify(|cut| *cut += 1);
    }
}

impl Drop for Proxy {
    fn drop(&mut self) {
        self.task.abort();
        self.cut();
    }
}

async fn accept(listener: TcpListener, way: Arc<Mutex<Way>>, cuts: watch::Receiver<u64>) {
    while let Ok((mut near, _)) = listener.accept().await {
        let now = way.lock().unwrap().clone();
        if !now.is_open {
            continue;
        }
        let mut cuts = cuts.clone();
        cuts.mark_unchanged();
        let way = way.clone();
        tokio::spawn(async move {
            let carry = async {
                let Ok(mut far) = TcpStream::connect(&now.to).await else {
                    return;
                };
                let _ = near.set_nodelay(true);
                let _ = far.set_nodelay(true);
                // It may have been closed since it was looked at.
                if way.lock().unwrap().is_open {
                    let _ = copy_bidirectional(&mut near, &mut far).await;
                }
            };
            tokio::select! {
                () = carry => {}
                _ = cuts.changed() => {}
            }
        });
    }
}
