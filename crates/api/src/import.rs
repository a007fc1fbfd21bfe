//! CSV import of contacts.
