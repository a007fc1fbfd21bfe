//! What can go wrong with the database, sorted by what a caller can do about it.

#[derive(Debug, thiserror::Error)]
pub enum StoreError {
    /// The database does not answer, is shutting down, or asks for a retry (serialization, deadlock): try again later.
    #[error("the database is not available: {0}")]
    Unavailable(#[source] sqlx::Error),
    /// The statement itself was refused: trying again does not help.
    #[error("the database refused: {0}")]
    Refused(#[source] sqlx::Error),
    #[error("migration failed: {0}")]
    Migrate(#[from] sqlx::migrate::MigrateError),
    #[error("stored data cannot be read: {0}")]
    Corrupt(String),
}

impl StoreError {
    pub fn is_transient(&self) -> bool {
        matches!(self, StoreError::Unavailable(_))
    }

    /// PostgreSQL's own code (SQLSTATE), where it was PostgreSQL that refused. Unlike its message it never holds values.
    pub fn code(&self) -> Option<String> {
        match self {
            StoreError::Unavailable(error) | StoreError::Refused(error) => {
                Some(error.as_database_error()?.code()?.into_owned())
            }
            _ => None,
        }
    }
}

/// What a statement is refused with whatever is in it, until somebody repairs the installation: a read-only server (after
/// a fail-over), a table, column or function that is not there yet (an old schema), missing rights, a closed door.
const NOT_OURS_YET: [&str; 9] = [
    "25006", "28000", "28P01", "3D000", "42501", "42703", "42883", "42P01", "55000",
];

impl From<sqlx::Error> for StoreError {
    fn from(error: sqlx::Error) -> Self {
        let transient = match &error {
            sqlx::Error::Io(_)
            | sqlx::Error::Tls(_)
            | sqlx::Error::PoolTimedOut
            | sqlx::Error::PoolClosed
            | sqlx::Error::WorkerCrashed
            | sqlx::Error::Protocol(_) => true,
            // Classes 08 (connection), 40 (rollback), 53 (resources), 57 (operator intervention), 58 (system):
            // PostgreSQL 15 documentation, appendix A.
            sqlx::Error::Database(refused) => refused.code().is_some_and(|code| {
                ["08", "40", "53", "57", "58"].contains(&&code[..2.min(code.len())]) || NOT_OURS_YET.contains(&&*code)
            }),
            _ => false,
        };
        if transient {
            StoreError::Unavailable(error)
        } else {
            StoreError::Refused(error)
        }
    }
}
