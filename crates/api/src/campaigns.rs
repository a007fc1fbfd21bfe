//! Campaigns: create, launch, pause, resume, cancel, status.
