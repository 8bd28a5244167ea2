//! Bytes on the wire: what a message may look like, and what must never be seen in one.

pub mod problem;
