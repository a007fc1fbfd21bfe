//! How far an expression reaches through the audiences that it names, and how large it is with all of them written out.
//!
//! An audience that names others is written out wherever it is named: three levels of "this one or this one or …" are
//! millions of conditions. So each audience is measured once, whatever names it, and what comes out is bounded.

use std::{collections::BTreeMap, sync::Arc};

use super::{Expression, MAX_NESTED_AUDIENCES, tree::Node};

/// Conditions of an expression with its audiences written out.
pub const MAX_EXPANDED: u64 = 2_000;

/// Why an expression's audiences are refused.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum ReachError {
    #[error("there is no audience `{0}`")]
    Unknown(String),
    #[error("audience `{0}` leads back to itself: expected no circle")]
    Circle(String),
    #[error(
        "audiences within audiences are nested too deeply at `{0}`: expected at most {MAX_NESTED_AUDIENCES} levels"
    )]
    Deep(String),
    #[error(
        "with the audiences that it leads to it has {0} conditions: expected at most {MAX_EXPANDED}; an audience counts wherever it is named"
    )]
    Large(u64),
}

/// What is known of an audience.
#[derive(Clone, Copy, Debug)]
struct Reach {
    /// Levels of audiences below it.
    depth: usize,
    /// Conditions, those of the audiences below it included.
    conditions: u64,
}

/// An audience by name: `Ok(None)` where its text is none of the language, which is told at its own place.
pub type Find<'a> = &'a dyn Fn(&str) -> Result<Option<Arc<Expression>>, ReachError>;

struct Walk<'a> {
    find: Find<'a>,
    known: BTreeMap<String, Reach>,
    /// The audiences that lead to where the walk is.
    path: Vec<String>,
}

impl Expression {
    /// Checks that every audience which it leads to is there, that none leads back to itself, and that the whole is neither
    /// too deep nor too large. `of`: the audience that this is the definition of.
    pub fn check_reach(&self, of: Option<&str>, find: Find<'_>) -> Result<(), ReachError> {
        let mut walk = Walk {
            find,
            known: BTreeMap::new(),
            path: of.map(str::to_owned).into_iter().collect(),
        };
        let reach = walk.expression(self)?;
        match reach.conditions <= MAX_EXPANDED {
            true => Ok(()),
            false => Err(ReachError::Large(reach.conditions)),
        }
    }
}

impl Walk<'_> {
    fn expression(&mut self, expression: &Expression) -> Result<Reach, ReachError> {
        let mut reach = Reach {
            depth: 0,
            conditions: 0,
        };
        let mut members: BTreeMap<String, u64> = BTreeMap::new();
        expression.root().walk(&mut |node| match node {
            Node::Member(name) => *members.entry(name.clone()).or_default() += 1,
            Node::Is(..) | Node::Did(_) | Node::Received(_) => reach.conditions += 1,
            Node::And(_) | Node::Or(_) | Node::Not(_) => {}
        });
        for (name, times) in members {
            let inner = self.audience(&name)?;
            reach.depth = reach.depth.max(inner.depth + 1);
            if reach.depth > MAX_NESTED_AUDIENCES {
                return Err(ReachError::Deep(name));
            }
            let more = inner.conditions.saturating_mul(times);
            reach.conditions = reach.conditions.saturating_add(more);
        }
        Ok(reach)
    }

    fn audience(&mut self, name: &str) -> Result<Reach, ReachError> {
        if let Some(reach) = self.known.get(name) {
            return Ok(*reach);
        }
        if self.path.iter().any(|above| above == name) {
            return Err(ReachError::Circle(name.to_owned()));
        }
        // A circle through more audiences than may be nested, or a chain of them: it ends here either way.
        if self.path.len() > MAX_NESTED_AUDIENCES {
            return Err(ReachError::Deep(name.to_owned()));
        }
        let reach = match (self.find)(name)? {
            Some(expression) => {
                self.path.push(name.to_owned());
                let reach = self.expression(&expression)?;
                self.path.pop();
                reach
            }
            None => Reach {
                depth: 0,
                conditions: 1,
            },
        };
        self.known.insert(name.to_owned(), reach);
        Ok(reach)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::audience::parse;

    fn check(text: &str, of: Option<&str>, audiences: &BTreeMap<String, String>) -> Result<(), ReachError> {
        let find = |name: &str| match audiences.get(name) {
            Some(text) => Ok(parse(text).ok().map(Arc::new)),
            None => Err(ReachError::Unknown(name.to_owned())),
        };
        parse(text).unwrap().check_reach(of, &find)
    }

    fn chain(levels: usize) -> BTreeMap<String, String> {
        let mut audiences = BTreeMap::from([("a1".to_owned(), "age < 30".to_owned())]);
        audiences.extend((2..=levels).map(|level| (format!("a{level}"), format!("in audience a{}", level - 1))));
        audiences
    }

    #[test]
    fn audiences_may_be_nested_as_deeply_as_they_are_looked_at() {
        let deepest = format!("in audience a{MAX_NESTED_AUDIENCES}");
        let audiences = chain(MAX_NESTED_AUDIENCES + 40);
        assert_eq!(check(&deepest, None, &audiences), Ok(()));
        let beyond = format!("not in audience a{}", MAX_NESTED_AUDIENCES + 1);
        assert!(matches!(check(&beyond, None, &audiences), Err(ReachError::Deep(_))));
        let far_beyond = format!("in audience a{}", MAX_NESTED_AUDIENCES + 40);
        assert!(matches!(check(&far_beyond, None, &audiences), Err(ReachError::Deep(_))));
        // As a definition of its own it is a level less deep than whoever names it.
        assert_eq!(check(&deepest, Some("outer"), &audiences), Ok(()));
    }

    #[test]
    fn audiences_that_multiply_are_measured_and_not_written_out() {
        let many = |name: &str, times: usize| vec![format!("in audience {name}"); times].join(" or ");
        let audiences = BTreeMap::from([
            ("a0".to_owned(), "age < 30 and city = \"x\"".to_owned()),
            ("a1".to_owned(), many("a0", 400)),
            ("a2".to_owned(), many("a1", 400)),
            ("a3".to_owned(), many("a2", 400)),
        ]);
        assert_eq!(check("in audience a1", None, &audiences), Ok(()));
        assert_eq!(
            check("in audience a3", None, &audiences),
            Err(ReachError::Large(128_000_000))
        );
    }

    #[test]
    fn circles_and_what_is_not_there_are_named() {
        let audiences = BTreeMap::from([
            ("a".to_owned(), "in audience b".to_owned()),
            ("b".to_owned(), "age < 30 or in audience a".to_owned()),
            ("broken".to_owned(), "age <".to_owned()),
        ]);
        assert_eq!(
            check("in audience b", Some("a"), &audiences),
            Err(ReachError::Circle("a".into()))
        );
        assert!(matches!(
            check("in audience a", None, &audiences),
            Err(ReachError::Circle(_))
        ));
        assert_eq!(
            check("in audience c", None, &audiences),
            Err(ReachError::Unknown("c".into()))
        );
        assert_eq!(check("in audience broken", None, &audiences), Ok(()));
    }
}
