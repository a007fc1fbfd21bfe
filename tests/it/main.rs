//! Tests that cross crates: one binary, so that it links once.

#![expect(clippy::unwrap_used, clippy::expect_used, reason = "helpers of tests are tests")]

mod analysts;
mod apply;
mod audience;
mod bus;
mod bus_contract;
mod bus_postgres;
mod callbacks;
mod callbacks_ways;
mod chaos;
mod console;
mod console_replies;
mod contacts;
mod crash;
mod dead_letters;
mod deploy;
mod gateway_traffic;
mod gateways;
mod gateways_bad;
mod gateways_smpp;
mod grpc;
mod http;
mod import;
mod layers;
mod live;
mod readme;
mod support;

mod audit;
mod cli;
mod contract;
mod dispatcher;
mod dispatcher_crash;
mod dispatcher_load;
mod dispatcher_stand;
mod dispatcher_ways;
mod ledger;
mod messages_planned;
mod oracle;
mod policy;
mod receipts;
mod receipts_unmatched;
mod renderer;
mod replies;
mod reports;
mod roles;
mod segmenter;
mod settings;
mod simulator;
mod stage;
mod store_migrations;
mod stranger;
mod text;
mod traces;
