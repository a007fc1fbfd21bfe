//! Why a contact is in or out, clause by clause.

use jiff::Timestamp;
use serde_json::{Map, Value};

use super::{Audiences, Expression, MAX_NESTED_AUDIENCES, Past, evaluate::Context, tree::Node};
use crate::Contact;

/// Parts of an explanation; below what comes beyond, an audience's own parts are left out.
const MAX_PARTS: usize = 5_000;

/// A part of an expression, and whether it holds for a contact.
#[derive(Clone, Debug, PartialEq)]
pub struct Explained {
    /// As the language has it; a named audience stands with its definition below it.
    pub text: String,
    pub holds: bool,
    /// What it is made of: the sides of `and` and `or`, what `not` negates, an audience's own condition.
    pub parts: Vec<Explained>,
}

impl Expression {
    /// The same answer as [`Expression::matches`], with that of each part.
    pub fn explain(
        &self,
        contact: &Contact,
        past: &Past<'_>,
        event: Option<&Map<String, Value>>,
        audiences: Audiences<'_>,
        now: Timestamp,
    ) -> Explained {
        let context = Context::new(contact, past, event, audiences, now);
        let mut left = MAX_PARTS;
        explain(&context, self.root(), 0, &mut left)
    }
}

/// `left`: how many parts may still be told.
fn explain(context: &Context<'_>, node: &Node, nested: usize, left: &mut usize) -> Explained {
    *left = left.saturating_sub(1);
    let parts = match node {
        _ if *left == 0 => Vec::new(),
        Node::And(nodes) | Node::Or(nodes) => nodes.iter().map(|node| explain(context, node, nested, left)).collect(),
        Node::Not(inner) if !matches!(**inner, Node::Is(..) | Node::Did(_)) => {
            vec![explain(context, inner, nested, left)]
        }
        Node::Member(name) if nested < MAX_NESTED_AUDIENCES => (context.audiences)(name)
            .map(|audience| explain(context, audience.root(), nested + 1, left))
            .into_iter()
            .collect(),
        _ => Vec::new(),
    };
    Explained {
        text: node.to_string(),
        holds: context.node(node, nested),
        parts,
    }
}
