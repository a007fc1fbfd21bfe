//! A predicate over contacts and their history, under a name.

use serde::{Deserialize, Serialize};

use crate::{Problem, check_name};

#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Audience {
    pub name: String,
    /// An expression of the audience language.
    #[serde(rename = "where")]
    pub condition: String,
}

impl Audience {
    pub(crate) fn check(&self, problems: &mut Vec<Problem>) {
        check_name("name", &self.name, problems);
        if self.condition.trim().is_empty() {
            problems.push(Problem::new(
                "where",
                "expected an expression such as `age < 30 and region = \"north\"`",
            ));
        }
    }
}
