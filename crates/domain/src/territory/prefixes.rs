//! The longest prefix of a phone, found digit by digit: it is asked for each message, more than once.

/// A tree of digits. The root comes first.
#[derive(Debug)]
pub(super) struct Prefixes(Vec<Node>);

#[derive(Clone, Debug, Default)]
struct Node {
    /// By digit; 0, the root, is nobody's child.
    next: [u16; 10],
    value: Option<usize>,
}

impl Default for Prefixes {
    fn default() -> Prefixes {
        Prefixes(vec![Node::default()])
    }
}

impl Prefixes {
    /// `+262`; the error says what is wrong with it.
    pub(super) fn insert(&mut self, prefix: &str, value: usize) -> Result<(), String> {
        let wrong = || format!("`{prefix}` is no prefix of its own: expected one such as `+262`, once");
        let digits = prefix
            .strip_prefix('+')
            .filter(|digits| !digits.is_empty())
            .ok_or_else(wrong)?;
        let mut at = 0;
        for digit in digits.chars() {
            let digit = digit.to_digit(10).ok_or_else(wrong)? as usize;
            at = match self.0[at].next[digit] {
                0 => {
                    let fresh = self.0.len();
                    self.0[at].next[digit] = u16::try_from(fresh).map_err(|_| "too many prefixes".to_owned())?;
                    self.0.push(Node::default());
                    fresh
                }
                there => usize::from(there),
            };
        }
        match self.0[at].value.replace(value) {
            None => Ok(()),
            Some(_) => Err(wrong()),
        }
    }

    /// The value of the longest prefix that a number in E.164 begins with.
    pub(super) fn longest(&self, e164: &str) -> Option<usize> {
        let mut found = None;
        let mut node = self.0.first()?;
        for byte in e164.strip_prefix('+')?.bytes() {
            let digit = usize::from(byte.wrapping_sub(b'0'));
            match node.next.get(digit) {
                None | Some(0) => break,
                Some(next) => node = self.0.get(usize::from(*next))?,
            }
            found = node.value.or(found);
        }
        found
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_longest_prefix_wins() {
        let mut prefixes = Prefixes::default();
        for (prefix, value) in [("+262", 1), ("+262639", 2), ("+1", 3)] {
            prefixes.insert(prefix, value).unwrap();
        }
        assert_eq!(prefixes.longest("+262692123456"), Some(1));
        assert_eq!(prefixes.longest("+262639123456"), Some(2));
        assert_eq!(prefixes.longest("+26263"), Some(1));
        assert_eq!(prefixes.longest("+12125550123"), Some(3));
        for none in ["+26", "262692123456", "", "+x"] {
            assert_eq!(prefixes.longest(none), None, "{none}");
        }
        assert!(prefixes.insert("+262", 4).is_err());
        assert!(prefixes.insert("262", 4).is_err());
        assert!(prefixes.insert("+", 4).is_err());
    }
}
