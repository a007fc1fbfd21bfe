//! The conservation check.
