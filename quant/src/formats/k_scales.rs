//! The packed 6-bit scales of the K types.

/// The 8 scales and 8 minimums of Q4_K and Q5_K, 6 bits each in 12 bytes.
///
/// The first 4 of each stand in the lower bits of bytes 0 to 7; the rest have their lower 4 bits
/// in bytes 8 to 11 and their upper 2 in the upper bits of bytes 0 to 7.
#[inline(always)]
pub fn unpack_scale_min(packed: &[u8; 12]) -> ([u8; 8], [u8; 8]) {
    let (mut scale, mut min) = ([0; 8], [0; 8]);
    for j in 0..4 {
        scale[j] = packed[j] & 63;
        min[j] = packed[j + 4] & 63;
        scale[j + 4] = packed[j + 8] & 0xf | (packed[j] >> 6) << 4;
        min[j + 4] = packed[j + 8] >> 4 | (packed[j + 4] >> 6) << 4;
    }
    (scale, min)
}

/// The reverse of [`unpack_scale_min`].
pub fn pack_scale_min(scale: [u8; 8], min: [u8; 8]) -> [u8; 12] {
    let mut packed = [0; 12];
    for j in 0..4 {
        packed[j] = scale[j] | scale[j + 4] >> 4 << 6;
        packed[j + 4] = min[j] | min[j + 4] >> 4 << 6;
        packed[j + 8] = scale[j + 4] & 0xf | min[j + 4] << 4;
    }
    packed
}

/// The 16 scales of Q3_K plus 32, 6 bits each in 12 bytes: the lower 4 bits in bytes 0 to 7, the
/// upper 2 in bytes 8 to 11.
#[inline(always)]
pub fn unpack_scales_q3(packed: &[u8; 12]) -> [u8; 16] {
    let mut scale = [0; 16];
    for j in 0..4 {
        let high = packed[j + 8];
        scale[j] = packed[j] & 0xf | (high & 3) << 4;
        scale[j + 4] = packed[j + 4] & 0xf | (high >> 2 & 3) << 4;
        scale[j + 8] = packed[j] >> 4 | (high >> 4 & 3) << 4;
        scale[j + 12] = packed[j + 4] >> 4 | (high >> 6) << 4;
    }
    scale
}

/// The reverse of [`unpack_scales_q3`].
pub fn pack_scales_q3(scale: [u8; 16]) -> [u8; 12] {
    let mut packed = [0; 12];
    for j in 0..8 {
        packed[j] = scale[j] & 0xf | scale[j + 8] << 4;
    }
    for j in 0..16 {
        packed[8 + j % 4] |= (scale[j] >> 4) << (2 * (j / 4));
    }
    packed
}
