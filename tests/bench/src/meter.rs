//! Processor time between two looks at an installation, a message.

use std::collections::BTreeMap;

use crate::report::{Figures, put};

/// Seconds of processor time by part of the installation.
#[derive(Clone, Debug)]
pub struct Meter(pub BTreeMap<String, f64>);

impl Meter {
    /// Of everything, the load and the simulator too.
    pub fn all(&self) -> f64 {
        self.0.values().sum()
    }

    /// What was used since `earlier`, in µs for each of so many messages: part by part, and in all but the load and
    /// the simulator.
    pub fn since(&self, earlier: &Meter, messages: u64, figures: &mut Figures) {
        let mut sum = 0.0;
        let mut parts = Figures::new();
        for (name, seconds) in &self.0 {
            let used = (seconds - earlier.0.get(name).unwrap_or(&0.0)) * 1e6 / messages.max(1) as f64;
            put(&mut parts, format!("cpu_us_per_message_{name}"), used);
            if name != "load" && name != "simulator" {
                sum += used;
            }
        }
        put(figures, "cpu_us_per_message", sum);
        figures.append(&mut parts);
    }
}
