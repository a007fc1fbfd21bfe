//! Tests that cross crates: one binary, so that it links once.

#![expect(clippy::unwrap_used, clippy::expect_used, reason = "helpers of tests are tests")]

mod apply;
mod audience;
mod contacts;
mod import;
mod bus;
mod bus_contract;
mod bus_postgres;
mod console;
mod crash;
mod deploy;
mod layers;
mod readme;
mod dead_letters;
mod gateways;
mod grpc;
mod http;
mod support;

mod audit;
mod cli;
mod dispatcher;
mod dispatcher_stand;
mod ledger;
mod receipts;
mod renderer;
mod roles;
mod segmenter;
mod settings;
mod stage;
mod store_migrations;
mod oracle;
