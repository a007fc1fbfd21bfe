//! Tests that cross crates: one binary, so that it links once.

mod bus;
mod bus_contract;
mod bus_postgres;
mod apply;
mod dead_letters;
mod http;
mod support;

mod store_migrations;
mod cli;
mod roles;
mod settings;
mod renderer;
