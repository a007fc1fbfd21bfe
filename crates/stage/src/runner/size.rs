//! How many records to read at once. An idle stage gets what there is, which is little and goes on at once; one that lags
//! gets batches that double while they are full and quick, and halve when they take long.

/// A batch that takes longer makes the next ones smaller: it holds a transaction open, and what comes behind it waits.
const LONG_SECONDS: f64 = 0.5;
const QUICK_SECONDS: f64 = 0.2;
const START: usize = 64;
const LEAST: usize = 16;

#[derive(Debug)]
pub(super) struct BatchSize {
    records: usize,
    most: usize,
    /// The last read gave all that was asked for, or left more where it was.
    full: bool,
}

impl BatchSize {
    pub fn new(most: usize) -> BatchSize {
        let most = most.max(1);
        BatchSize {
            records: START.min(most),
            most,
            full: false,
        }
    }

    pub fn records(&self) -> usize {
        self.records
    }

    /// What was read of a partition; `behind`: more is known to be there, of it or of another.
    pub fn read(&mut self, records: usize, behind: bool) {
        self.full = behind || records >= self.records;
    }

    /// What a finished batch says.
    pub fn learn(&mut self, records: usize, seconds: f64) {
        if seconds > LONG_SECONDS && records >= self.records / 2 {
            self.records = (self.records / 2).max(LEAST.min(self.most));
        } else if self.full && seconds < QUICK_SECONDS {
            self.records = (self.records * 2).min(self.most);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn it_grows_while_lagging_and_shrinks_when_slow() {
        let mut size = BatchSize::new(500);
        size.read(3, false);
        size.learn(3, 0.01);
        assert_eq!(size.records(), 64, "idle");
        size.read(3, true);
        size.learn(24, 0.01);
        assert_eq!(size.records(), 128, "others are behind");
        for expected in [256, 500, 500] {
            size.read(size.records(), false);
            size.learn(64, 0.05);
            assert_eq!(size.records(), expected);
        }
        size.learn(500, 2.0);
        assert_eq!(size.records(), 250);
        size.learn(1, 2.0);
        assert_eq!(
            size.records(),
            250,
            "a small batch that was slow says nothing about size"
        );
        assert_eq!(BatchSize::new(1).records(), 1);
    }
}
