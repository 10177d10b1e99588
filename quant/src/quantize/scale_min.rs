//! What Q4_K and Q5_K have in common: two superblocks of 8 sub-blocks of 32, with integer scales and
//! minimums of 6 bits.

use super::GROUP;
use super::affine::Affine;
use super::lanes::{Cpu, LANES, Values, code_byte, code_bytes, f16_field};
use crate::formats::k_scales::pack_scale_min;
use crate::lanes::Lanes;

/// See [`Affine::starts`].
const STARTS: &[(f32, f32)] = &[
    (-1.0, -1.0),
    (-1.0, 0.0),
    (-1.0, 0.6),
    (-1.0, 1.2),
    (0.0, -1.0),
    (0.0, 0.0),
    (0.0, 0.6),
    (0.0, 1.2),
    (0.6, -1.0),
    (0.6, 0.0),
    (0.6, 0.6),
    (0.6, 1.2),
    (1.2, -1.0),
    (1.2, 0.0),
    (1.2, 0.6),
    (1.2, 1.2),
];

/// The fields of a superblock.
pub struct ScaleMin {
    /// Scale of the scales, f16.
    pub d: [u8; 2],
    /// Scale of the minimums, f16.
    pub dmin: [u8; 2],
    /// Scales and minimums, packed.
    pub scales: [u8; 12],
    /// Codes of each 32 values.
    pub codes: [[u8; 32]; 8],
}

impl ScaleMin {
    /// Quantizes two superblocks to codes up to `top`.
    #[inline(always)]
    pub fn search<L: Lanes>(
        cpu: Cpu<L>,
        top: f32,
        x: &[f32; GROUP],
        weights: &[f32; GROUP],
    ) -> [Self; 2] {
        let values = Values::<32>::new(x, weights);
        let search = Affine { cpu, top, most: 63.0, starts: STARTS };
        let found = search.integers::<32, 8>(&values);
        let codes = code_bytes(&search.codes(&values, &found.grid()), 0.0);
        let (d, dmin) = (found.d.array(), found.dmin.array());
        let (scale, min) = (found.scale.array().map(code_byte), found.min.array().map(code_byte));
        std::array::from_fn(|b| {
            let first = b * LANES / 2;
            let bytes = |x: &[u8; LANES]| std::array::from_fn(|j| x[first + j]);
            ScaleMin {
                d: f16_field(d[first]),
                dmin: f16_field(dmin[first]),
                scales: pack_scale_min(bytes(&scale), bytes(&min)),
                codes: std::array::from_fn(|j| codes[first + j]),
            }
        })
    }
}
