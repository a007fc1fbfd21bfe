//! Publishing business events.
