//! How fast the SMPP client and the simulator are together: `cargo run --release -p gateways --example throughput -- 300000`.
//!
//! Each has a thread of its own, and what each takes of a core is told too: that depends little on what else the machine does.

use std::{io::Write as _, sync::Arc, time::Instant};

use domain::{Phone, sms::Encoding};
use gateways::{Outcome, Submission};
use jiff::Timestamp;
use tokio::net::TcpListener;
use tokio_util::sync::CancellationToken;
use uuid::Uuid;

/// The time that this thread had a core, in seconds; none where the system does not tell.
fn core_seconds() -> Option<f64> {
    let told = std::fs::read_to_string("/proc/thread-self/schedstat").ok()?;
    let nanoseconds: u64 = told.split_ascii_whitespace().next()?.parse().ok()?;
    Some(nanoseconds as f64 / 1e9)
}

/// Callers that each wait for their answer.
const CALLERS: u32 = 2_000;

fn main() -> Result<(), Box<dyn std::error::Error>> {
    let messages: u32 = std::env::args().nth(1).map_or(Ok(300_000), |text| text.parse())?;
    // A thread each, as if they were two machines of one core.
    let (address, told) = std::sync::mpsc::channel();
    let stop = CancellationToken::new();
    let until = stop.clone();
    let simulator = std::thread::spawn(move || {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
        runtime.block_on(async move {
            let (http, smpp) = (
                TcpListener::bind("127.0.0.1:0").await?,
                TcpListener::bind("127.0.0.1:0").await?,
            );
            let _ = address.send(smpp.local_addr()?.to_string());
            let script = simulator::Script {
                receipts: false,
                ..Default::default()
            };
            let config = simulator::Config { http, smpp, script };
            simulator::run(config, until).await.map_err(std::io::Error::other)
        })?;
        Ok::<_, std::io::Error>(core_seconds())
    });
    let resource = resources::Gateway {
        window: 1_000,
        binds: 2,
        ..resources::Gateway::smpp("main", &told.recv()?, "tamtam")
    };
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    let (taken, took) = runtime.block_on(async move {
        let gateway = gateways::open(&resource, None, Arc::new(Timestamp::now), None)?;
        while !gateway.is_up() {
            tokio::time::sleep(std::time::Duration::from_millis(10)).await;
        }
        let begun = Instant::now();
        let callers: Vec<_> = (0..CALLERS)
            .map(|caller| {
                let gateway = gateway.clone();
                tokio::spawn(async move {
                    let mut taken = 0_u32;
                    for number in (caller..messages).step_by(CALLERS as usize) {
                        let outcome = gateway
                            .submit(Submission {
                                reference: Uuid::from_u128(u128::from(number) + 1),
                                phone: Phone::from_e164(format!("+2626{number:08}")),
                                sender: "BOUTIQUE".into(),
                                text: "Votre commande est en route, elle arrive demain avant midi.".into(),
                                encoding: Encoding::Gsm7,
                                parts: 1,
                                expires_at: None,
                            })
                            .await;
                        taken += u32::from(matches!(outcome, Outcome::Accepted { .. }));
                    }
                    taken
                })
            })
            .collect();
        let mut taken = 0;
        for caller in callers {
            taken += caller.await?;
        }
        let took = begun.elapsed();
        gateway.close().await;
        Ok::<_, Box<dyn std::error::Error>>((taken, took))
    })?;
    stop.cancel();
    let client = core_seconds();
    let simulator = simulator.join().map_err(|_| "the simulator panicked")??;
    let rate = f64::from(taken) / took.as_secs_f64();
    let mut out = std::io::stdout();
    writeln!(out, "{taken} of {messages} taken in {took:.2?}: {rate:.0} a second")?;
    for (who, seconds) in [("the simulator", simulator), ("the client", client)] {
        if let Some(seconds) = seconds {
            let rate = f64::from(taken) / seconds;
            writeln!(out, "{who} had a core for {seconds:.2} s: {rate:.0} a second of it")?;
        }
    }
    Ok(())
}
