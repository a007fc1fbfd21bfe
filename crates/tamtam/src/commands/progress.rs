//! Progress of long work: a bar on a terminal, a plain line now and then elsewhere; on standard error, so that standard
//! output stays the command's own.

use std::{
    io::{IsTerminal, Write},
    time::{Duration, Instant},
};

use indicatif::{ProgressBar, ProgressStyle};

const EVERY: Duration = Duration::from_secs(2);

#[derive(Debug)]
pub struct Progress {
    what: String,
    total: u64,
    bar: Option<ProgressBar>,
    position: u64,
    said: Instant,
}

impl Progress {
    /// `total` in whatever unit `what` names.
    pub fn new(what: &str, total: u64) -> Progress {
        let bar = std::io::stderr().is_terminal().then(|| {
            let style = ProgressStyle::with_template("{msg:32} [{bar:40}] {pos}/{len} {elapsed}")
                .unwrap_or_else(|_| ProgressStyle::default_bar());
            ProgressBar::new(total).with_style(style).with_message(what.to_owned())
        });
        Progress {
            what: what.to_owned(),
            total,
            bar,
            position: 0,
            said: Instant::now(),
        }
    }

    pub fn set(&mut self, position: u64) {
        self.position = position;
        match &self.bar {
            Some(bar) => bar.set_position(position),
            None if self.said.elapsed() >= EVERY => {
                self.said = Instant::now();
                say(&format!("{}: {} of {}", self.what, position, self.total));
            }
            None => {}
        }
    }

    pub fn set_total(&mut self, total: u64) {
        self.total = total;
        if let Some(bar) = &self.bar {
            bar.set_length(total);
        }
    }

    pub fn add(&mut self, more: u64) {
        self.set(self.position + more);
    }

    pub fn finish(self) {
        match self.bar {
            Some(bar) => bar.finish(),
            None => say(&format!("{}: {} of {}, done", self.what, self.position, self.total)),
        }
    }
}

/// A plain line on standard error.
pub fn say(line: &str) {
    let _ = writeln!(std::io::stderr(), "{line}");
}
