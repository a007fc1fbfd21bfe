//! What tests share.

pub mod bus;
pub mod database;
pub mod kafka;
