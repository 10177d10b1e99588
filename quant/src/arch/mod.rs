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

/// Bytes of the rows that a kernel of one column computes together, up to which they are best fetched
/// into the first-level cache beforehand; larger ones into the second.
pub fn near_bytes() -> usize {
    #[cfg(target_arch = "x86_64")]
    return x86_64::near_bytes();
    #[cfg(not(target_arch = "x86_64"))]
    return 0;
}
