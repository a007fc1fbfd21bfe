//! Contacts: upsert, get, erase.
