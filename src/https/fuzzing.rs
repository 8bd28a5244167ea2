//! The fuzz target of this folder.

pub use super::records::fuzzing::records;
