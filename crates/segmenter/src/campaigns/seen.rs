//! Which phones a walk has met: surely not, or perhaps (a Bloom filter: B. H. Bloom, Space/time trade-offs in hash coding
//! with allowable errors, 1970).
//!
//! Nearly every phone of an audience is met once, and looking for each in the table of those that are taken costs as much
//! as writing it there. What the filter has surely not met is written at once. It takes 8 MiB whatever the audience: after
//! a million phones one in 90,000 is looked for in vain, after ten million one in 25; more only cost more.

use std::sync::Mutex;

/// 2^26 bits.
const BITS: u32 = 26;
/// Bits a phone sets: four bytes of its hash each.
const MARKS: usize = 4;

/// One walk's filter.
#[derive(Debug)]
pub(super) struct Seen {
    /// `None`: the walk did not begin at the beginning, and knows nothing of those before it.
    bits: Mutex<Option<Vec<u64>>>,
}

impl Seen {
    pub(super) fn new(from_the_beginning: bool) -> Seen {
        Seen {
            bits: Mutex::new(from_the_beginning.then(|| vec![0; 1 << (BITS - 6)])),
        }
    }

    /// Marks a phone by its keyed hash, which is random; `false`: it was surely not met before.
    pub(super) fn met(&self, hash: &[u8]) -> bool {
        let mut bits = self.bits.lock().unwrap_or_else(std::sync::PoisonError::into_inner);
        let Some(bits) = &mut *bits else { return true };
        let mut met = true;
        for mark in hash.as_chunks::<4>().0.iter().take(MARKS) {
            let place = u32::from_le_bytes(*mark) >> (32 - BITS);
            let (word, bit) = ((place / 64) as usize, 1_u64 << (place % 64));
            if let Some(word) = bits.get_mut(word) {
                met &= *word & bit != 0;
                *word |= bit;
            }
        }
        met
    }
}

#[cfg(test)]
mod tests {
    use domain::{Phone, phone::PhoneKey};

    use super::*;

    #[test]
    fn what_was_met_is_known_and_hardly_anything_else() {
        let key = PhoneKey::new(&[7; 32]);
        let hash = |number: u32| key.hash(&Phone::from_e164(format!("+2626{number:08}")));
        let seen = Seen::new(true);
        let in_vain = (0..100_000).filter(|number| seen.met(&hash(*number))).count();
        assert!(in_vain < 10, "{in_vain}");
        assert!((0..100_000).all(|number| seen.met(&hash(number))));
        // Half a walk knows nothing.
        assert!(Seen::new(false).met(&hash(0)));
    }
}
