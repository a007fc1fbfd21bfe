//! What tests share.

pub mod browser;
pub mod bus;
pub mod campaign;
pub mod database;
pub mod fleet;
pub mod kafka;
pub mod process;
pub mod proxy;
pub mod publisher;
pub mod resources;
pub mod server;
pub mod simulator;
pub mod tamtam;
pub mod tls;
