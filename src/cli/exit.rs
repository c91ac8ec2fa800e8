//! Exit codes, as `--help` documents them.

/// Done, or Healthy.
pub const OK: u8 = 0;
/// Something was wrong with the request, the access or the input.
pub const ERROR: u8 = 1;
/// The release was rolled back.
pub const ROLLED_BACK: u8 = 2;
/// It cannot go on without a person.
pub const HALTED: u8 = 3;
/// The manifest cannot be acted on.
pub const INVALID: u8 = 4;
/// It waits for a person.
pub const WAITS_FOR_PERSON: u8 = 5;
/// The time is up.
pub const TIMEOUT: u8 = 6;
/// The operator rejected a command.
pub const REJECTED: u8 = 7;
