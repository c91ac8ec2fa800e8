//! What the operator says of itself: metrics, health, logs. No object's name is a label.

mod http;
mod logs;
mod metrics;
mod requests;

pub use self::http::{Health, serve};
pub use self::logs::{LogFormat, init_logs};
pub use self::metrics::{Metrics, PassOutcome, Reading};
pub use self::requests::CountRequests;
