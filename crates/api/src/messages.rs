//! Messages that a system asks for directly.
