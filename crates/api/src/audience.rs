//! Counting, explaining and listing an audience.
