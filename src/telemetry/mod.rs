//! What operators see of the process: its log, its access lines, its metrics.
//!
//! In: events and numbers from everywhere. Out: lines and a page of counters, none of which holds a key: fields stand
//! on an allow list, and every line passes a mask on its way to the writer. Nothing here ever makes a core wait.

pub mod access;
mod clock;
mod line;
mod logging;
pub mod metrics;
pub mod panic;
mod request_id;
mod sink;
mod sparing;

pub use self::access::{AccessLines, AccessLog};
pub use self::logging::{Guard, LogSettings, Output, init};
pub use self::metrics::Metrics;
pub use self::request_id::{RequestId, RequestIds};
pub use self::sink::LostLines;
pub use self::sparing::Sparing;
