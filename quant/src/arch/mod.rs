//! Instruction sets. A level is a row of [`LEVELS`].

use crate::table::Level;

#[cfg(target_arch = "aarch64")]
pub mod aarch64;
pub mod wide;
#[cfg(target_arch = "x86_64")]
pub mod x86_64;

/// The levels above scalar, from slow to fast.
#[cfg(target_arch = "x86_64")]
pub const LEVELS: &[Level] = x86_64::LEVELS;
/// The levels above scalar, from slow to fast.
#[cfg(target_arch = "aarch64")]
pub const LEVELS: &[Level] = aarch64::LEVELS;
/// The levels above scalar, from slow to fast.
#[cfg(not(any(target_arch = "x86_64", target_arch = "aarch64")))]
pub const LEVELS: &[Level] = &[wide::LEVEL];
