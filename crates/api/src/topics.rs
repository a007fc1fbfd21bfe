//! Reading a topic from outside.
