//! Why somebody got a message, or not.
