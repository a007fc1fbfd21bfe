//! What a campaign would send, before it is launched.
