//! 64-bit Arm.

use crate::table::Level;

/// From slow to fast.
pub const LEVELS: &[Level] = &[];
