//! What people configure with `tamtam apply`: gateways, templates, audiences, triggers, policy. Types, reading from TOML
//! with the line of each error, and the snapshot that running services work from.
