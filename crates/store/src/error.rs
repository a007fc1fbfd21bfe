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
}

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
            sqlx::Error::Database(refused) => refused
                .code()
                .is_some_and(|code| ["08", "40", "53", "57", "58"].contains(&&code[..2.min(code.len())])),
            _ => false,
        };
        if transient {
            StoreError::Unavailable(error)
        } else {
            StoreError::Refused(error)
        }
    }
}
