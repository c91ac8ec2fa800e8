//! Asking what checks ask: I/O out, a reply back. What a reply means for a release is decided in the engine.

mod database;
mod expect;
mod hosts;
mod http;
pub mod keys;
pub mod logs;
mod loops;
mod numbers;
mod places;
mod sound;
mod words;

pub use database::wrappable;
pub use expect::{Lack, Response, compiles, elsewhere, number};
pub use hosts::AllowedHosts;
pub use http::{Client, HEADER, finding, not_allowed, told, unallowed, with_secrets};
pub use sound::{Unsound, incomparable, unsound};
pub use words::{WORDS, lacks_namespace, of_metric as unknown_word};
