//! Conversions between f32 and the 16-bit floats, without branches, so that a loop over them
//! becomes vector instructions in every build.
//!
//! `half` asks at run time whether the CPU converts by itself, once per value, which keeps a loop
//! from being vectorized. These agree with it, and with F16C and NEON, on every input.

/// The value of an IEEE half. Exact; a signalling NaN becomes quiet and keeps its payload.
#[inline(always)]
pub const fn f16_to_f32(bits: u16) -> f32 {
    /// Adds 112 to the exponent: the difference between the biases, 127 - 15.
    const REBIAS: u32 = 112 << 23;
    /// 2^-14, the smallest normal half.
    const MIN_NORMAL: u32 = 113 << 23;

    let sign = (bits as u32 & 0x8000) << 16;
    let magnitude = bits as u32 & 0x7fff;
    let shifted = magnitude << 13;
    let normal = shifted + REBIAS;
    // The mantissa behind an implicit one, which the subtraction takes away exactly.
    let subnormal = (f32::from_bits(shifted + MIN_NORMAL) - f32::from_bits(MIN_NORMAL)).to_bits();
    let special = (shifted + 2 * REBIAS) | if magnitude > 0x7c00 { 0x0040_0000 } else { 0 };
    let value = if magnitude < 0x0400 { subnormal } else { normal };
    f32::from_bits(sign | if magnitude >= 0x7c00 { special } else { value })
}

/// The nearest IEEE half, ties to even. A NaN keeps the upper bits of its payload and is quiet.
#[inline(always)]
pub const fn f32_to_f16(value: f32) -> u16 {
    /// Takes 112 from the exponent, modulo 2^32.
    const REBIAS: u32 = (112u32 << 23).wrapping_neg();
    /// 0.5: added to a value below 2^-14, its last place is 2^-24, the smallest half.
    const ROUND_SUBNORMAL: u32 = 126 << 23;

    let bits = value.to_bits();
    let sign = (bits >> 16) as u16 & 0x8000;
    let magnitude = bits & 0x7fff_ffff;
    let odd = (magnitude >> 13) & 1;
    let normal = magnitude.wrapping_add(REBIAS + 0x0fff + odd) >> 13;
    let subnormal = (f32::from_bits(magnitude) + f32::from_bits(ROUND_SUBNORMAL))
        .to_bits()
        .wrapping_sub(ROUND_SUBNORMAL);
    let nan = 0x7e00 | ((magnitude >> 13) & 0x03ff);
    let finite = if magnitude < 113 << 23 { subnormal } else { normal };
    // 65520 and above round to infinity; the carry of `normal` has that covered up to 2^16.
    let finite = if magnitude >= 143 << 23 { 0x7c00 } else { finite };
    sign | if magnitude > 0x7f80_0000 { nan } else { finite } as u16
}

/// The value of a bfloat16: the upper half of a single. Exact.
#[inline(always)]
pub const fn bf16_to_f32(bits: u16) -> f32 {
    f32::from_bits((bits as u32) << 16)
}

/// The nearest bfloat16, ties to even. A NaN keeps the upper bits of its payload and is quiet.
#[inline(always)]
pub const fn f32_to_bf16(value: f32) -> u16 {
    let bits = value.to_bits();
    let rounded = bits.wrapping_add(0x7fff + ((bits >> 16) & 1)) >> 16;
    let nan = (bits >> 16) | 0x0040;
    (if bits & 0x7fff_ffff > 0x7f80_0000 { nan } else { rounded }) as u16
}

#[cfg(test)]
mod tests {
    use super::*;
    use half::{bf16, f16};

    #[test]
    fn every_half_has_the_value_that_half_gives_it() {
        for bits in 0..=u16::MAX {
            assert_eq!(
                f16_to_f32(bits).to_bits(),
                f16::from_bits(bits).to_f32_const().to_bits(),
                "f16 {bits:#06x}"
            );
            let bf = bf16_to_f32(bits);
            assert_eq!(bf.to_bits(), (bits as u32) << 16, "bf16 {bits:#06x}");
        }
    }

    #[test]
    fn floats_round_to_16_bits_as_half_rounds_them() {
        // All exponents, with mantissas at, next to and between the ties of both formats.
        let mantissas = [0, 1, 0x0fff, 0x1000, 0x1001, 0x1fff, 0x2000, 0x3000, 0x3001, 0x7fff]
            .into_iter()
            .chain([0x8000, 0x8001, 0xffff, 0x1_8000, 0x40_0000, 0x7f_efff, 0x7f_f000, 0x7f_ffff])
            .chain((0..1000).map(|i: u32| i.wrapping_mul(0x9e37_79b9) >> 9));
        for mantissa in mantissas {
            for sign_and_exponent in 0..512 {
                let x = f32::from_bits(sign_and_exponent << 23 | mantissa);
                let bits = x.to_bits();
                assert_eq!(f32_to_f16(x), f16::from_f32_const(x).to_bits(), "f16 of {bits:#010x}");
                assert_eq!(
                    f32_to_bf16(x),
                    bf16::from_f32_const(x).to_bits(),
                    "bf16 of {bits:#010x}"
                );
            }
        }
    }
}
