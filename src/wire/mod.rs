//! Bytes on the wire: what a message may look like, and what must never be seen in one.

pub mod ahead;
pub mod answer;
pub mod body;
pub mod chunks;
pub mod deadline;
pub mod field;
pub mod frame;
#[cfg(any(test, feature = "fuzzing"))]
pub(crate) mod fuzzing;
pub mod gate;
pub(crate) mod gather;
pub mod head;
pub mod hpack;
pub mod incoming;
pub mod inspect;
pub mod mask;
pub mod peek;
pub mod problem;
pub mod reply;
pub mod server;
pub mod site;
pub mod spare;
