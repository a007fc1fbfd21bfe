//! Tests that cross crates: one binary, so that it links once.

mod support;

mod store_migrations;
