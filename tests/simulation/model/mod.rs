//! The model cluster: objects, pods, controllers, and what an operator's caches show of them.

pub mod catalogue;
pub mod cluster;
pub mod controllers;
pub mod database;
pub mod gateway;
pub mod jobs;
pub mod observe;
pub mod pods;
pub mod writes;
