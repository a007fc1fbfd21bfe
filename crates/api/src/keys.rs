//! API keys.

/// Verified keys of the last moments.
#[derive(Debug, Default)]
pub(crate) struct Cache {}
