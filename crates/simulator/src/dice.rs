//! Chance that is decided by what it is about: the same seed, message and question always give the same answer.

use uuid::Uuid;

/// The dice of one part of one message.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Dice(u64);

impl Dice {
    pub(crate) fn new(seed: u64, reference: Uuid, part: u8) -> Dice {
        let (high, low) = reference.as_u64_pair();
        Dice(
            [high, low, u64::from(part)]
                .into_iter()
                .fold(mix(seed), |state, word| mix(state ^ word)),
        )
    }

    /// Whether something that happens in `percent` of cases happens here. Each `question` is asked independently.
    pub(crate) fn happens(self, question: &str, percent: f64) -> bool {
        // 53 bits are what a double holds exactly.
        percent > 0.0 && ((self.roll(question) >> 11) as f64) < percent / 100.0 * (1_u64 << 53) as f64
    }

    /// From 0 to `most`.
    pub(crate) fn up_to(self, question: &str, most: u64) -> u64 {
        match most {
            0 => 0,
            most => self.roll(question) % (most + 1),
        }
    }

    /// Exponentially distributed around `mean`: mostly less, at times much more, at most twenty times as much.
    pub(crate) fn around(self, question: &str, mean: u64) -> u64 {
        if mean == 0 {
            return 0;
        }
        // In (0, 1], so that the logarithm is finite.
        let uniform = ((self.roll(question) >> 11) + 1) as f64 / (1_u64 << 53) as f64;
        (-uniform.ln() * mean as f64).min(20.0 * mean as f64) as u64
    }

    fn roll(self, question: &str) -> u64 {
        question
            .bytes()
            .fold(self.0, |state, byte| mix(state ^ u64::from(byte)))
    }
}

/// SplitMix64's step (Steele, Lea, Flood 2014).
fn mix(state: u64) -> u64 {
    let mut word = state.wrapping_add(0x9E37_79B9_7F4A_7C15);
    word = (word ^ (word >> 30)).wrapping_mul(0xBF58_476D_1CE4_E5B9);
    word = (word ^ (word >> 27)).wrapping_mul(0x94D0_49BB_1331_11EB);
    word ^ (word >> 31)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn percentages_are_kept_and_repeat() {
        let dice = |number: u128| Dice::new(7, Uuid::from_u128(number), 1);
        let lost = (0..100_000).filter(|number| dice(*number).happens("lost", 3.0)).count();
        assert!((2_800..3_200).contains(&lost), "{lost}");
        assert_eq!(dice(5).happens("lost", 50.0), dice(5).happens("lost", 50.0));
        assert!(dice(5).happens("lost", 100.0) && !dice(5).happens("lost", 0.0));
        assert!((0..1_000).all(|number| dice(number).up_to("delay", 9) <= 9));
        let mut tail: Vec<u64> = (0..10_000).map(|number| dice(number).around("tail", 1_000)).collect();
        tail.sort_unstable();
        let mean = tail.iter().sum::<u64>() / 10_000;
        assert!((950..1_050).contains(&mean), "{mean}");
        // Half are below ln 2 of the mean; one in a thousand is beyond seven times.
        assert!((640..750).contains(&tail[5_000]), "{}", tail[5_000]);
        assert!((6_000..20_001).contains(&tail[9_990]), "{}", tail[9_990]);
        assert_eq!(dice(1).around("tail", 0), 0);
    }
}
