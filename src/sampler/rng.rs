//! The random numbers of sampling.

/// xoshiro256++ (Blackman and Vigna, 2019), its state filled by splitmix64 from a 64-bit seed.
///
/// The algorithm is part of what Siskin promises: a seed gives the same numbers, and so the same
/// text, on every machine and in every later version.
#[derive(Clone, Debug)]
pub struct Rng([u64; 4]);

impl Rng {
    /// The generator that `seed` names.
    pub fn new(seed: u64) -> Rng {
        let mut state = seed;
        let mut splitmix64 = || {
            state = state.wrapping_add(0x9e37_79b9_7f4a_7c15);
            let mut z = state;
            z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
            z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
            z ^ (z >> 31)
        };
        Rng([splitmix64(), splitmix64(), splitmix64(), splitmix64()])
    }

    /// The next 64 random bits.
    pub fn next_u64(&mut self) -> u64 {
        let s = &mut self.0;
        let out = s[0].wrapping_add(s[3]).rotate_left(23).wrapping_add(s[0]);
        let t = s[1] << 17;
        s[2] ^= s[0];
        s[3] ^= s[1];
        s[1] ^= s[2];
        s[0] ^= s[3];
        s[2] ^= t;
        s[3] = s[3].rotate_left(45);
        out
    }

    /// A number of `[0, 1)`: the upper 53 bits of the next 64, times 2^-53.
    pub fn next_f64(&mut self) -> f64 {
        (self.next_u64() >> 11) as f64 * (1.0 / (1u64 << 53) as f64)
    }

    /// A seed that nobody chose, for a request that names none.
    pub(super) fn entropy() -> u64 {
        use std::hash::{BuildHasher, Hasher};
        // The standard library's hash maps are keyed from the system's random source.
        let mut hasher = std::hash::RandomState::new().build_hasher();
        if let Ok(now) = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH) {
            hasher.write_u128(now.as_nanos());
        }
        hasher.finish()
    }
}
