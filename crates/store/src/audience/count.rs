//! How many an expression matches.
//!
//! Who did something, or did not, is counted from the history alone, which the index on type and time answers without
//! looking at contacts: `strangers` says who of them is no contact. Everything else is counted by joining.

use domain::audience::{
    Expression,
    tree::{Did, Node},
};
use jiff::Timestamp;

use super::{
    Named,
    sql::{Sql, is_plain},
};
use crate::{Store, StoreError};

impl Store {
    /// How many contacts match at `now`.
    pub async fn audience_count(
        &self,
        expression: &Expression,
        audiences: &Named,
        now: Timestamp,
    ) -> Result<i64, StoreError> {
        let indexed = self.audience_indexed(expression, audiences, now).await?;
        let mut sql = Sql::new(audiences, &indexed, now);
        match expression.root() {
            Node::Did(did) if is_plain(did) => {
                sql.push("select ");
                doers(&mut sql, did);
            }
            Node::Not(node) if matches!(&**node, Node::Did(did) if is_plain(did)) => {
                sql.push("select (select count(*) from contacts) - (");
                if let Node::Did(did) = &**node {
                    doers(&mut sql, did);
                }
                sql.push(")");
            }
            _ => {
                sql.push("select count(*) from ").matching(expression, None);
            }
        }
        let (text, arguments) = sql.finish()?;
        let mut tx = self.begin().await?;
        tx.audience_settings("60s").await?;
        // Not kept as a prepared statement: it is planned with its values, which is what makes it fast.
        let count = sqlx::query_scalar_with(sqlx::AssertSqlSafe(text), arguments)
            .persistent(false)
            .fetch_one(&mut *tx.inner)
            .await?;
        tx.commit().await?;
        Ok(count)
    }
}

/// Strangers that are looked up one by one, a few microseconds each; of more, all that they did is gone through once more.
const FEW: i64 = 2_000;

/// How many contacts did it: all who did, less those who are no contact.
fn doers(sql: &mut Sql<'_>, did: &Did) {
    sql.push("(select count(*) from (").doers(did).push(") g) - case");
    sql.push(" when (select count(*) from (select from strangers limit ")
        .bind(FEW);
    sql.push(") f) < ").bind(FEW);
    // With its limit the inner question stays one of each stranger.
    sql.push(" then (select count(*) from strangers s where (select true from history h where h.contact_id = s.contact_id and ");
    sql.done(did).push(" limit 1) and ").push(NOBODY);
    sql.push(") else (select count(*) from strangers s join (").doers(did);
    sql.push(") g on g.contact_id = s.contact_id where ")
        .push(NOBODY)
        .push(") end");
}

const NOBODY: &str = "not exists (select from contacts c where c.id = s.contact_id)";
