//! Migrations of SQL files on a real PostgreSQL, with everything that can break in between (INVARIANTS D1).

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, reason = "these are tests")]

mod backup;
mod commands;
mod cut;
mod down;
mod install;
mod job;
mod ledgers;
mod lent;
mod losses;
mod migrations;
mod mounted;
mod preflight;
mod rehearsal;
mod releases;
mod restore;
mod routes;
mod server;
mod sessions;
mod tls;
mod verify;
mod whole_server;
