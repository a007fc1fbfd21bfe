//! Dead letters: list and replay.
