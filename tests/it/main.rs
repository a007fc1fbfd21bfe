//! Tests that cross crates: one binary, so that it links once.

mod apply;
mod audience;
mod contacts;
mod import;
mod bus;
mod bus_contract;
mod bus_postgres;
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
mod renderer;
mod roles;
mod segmenter;
mod settings;
mod stage;
mod store_migrations;
mod oracle;
