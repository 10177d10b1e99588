//! What the tests of kernels share.

// Each test is a crate of its own and uses a part.
#![allow(dead_code)]

use siskin_quant::table::KernelTable;

/// A generator of test values.
pub struct Random(pub u64);

impl Random {
    pub fn next(&mut self) -> u64 {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        self.0
    }

    pub fn float(&mut self) -> f32 {
        (self.next() >> 40) as f32 / (1u64 << 23) as f32 - 1.0
    }

    pub fn floats(&mut self, n: usize) -> Vec<f32> {
        (0..n).map(|_| self.float()).collect()
    }

    pub fn bytes(&mut self, n: usize) -> Vec<u8> {
        (0..n).map(|_| self.next() as u8).collect()
    }
}

/// Equal bits, or both NaN.
pub fn assert_same(got: &[f32], want: &[f32], what: &str) {
    assert_eq!(got.len(), want.len(), "{what}");
    for (i, (g, w)) in got.iter().zip(want).enumerate() {
        assert!(
            g.to_bits() == w.to_bits() || g.is_nan() && w.is_nan(),
            "{what}: value {i} is {g:e}, not {w:e}"
        );
    }
}

/// The kernels of every level that this CPU has, from slow to fast.
pub fn tables() -> Vec<KernelTable> {
    let names = KernelTable::level_names();
    names.into_iter().map(|name| KernelTable::for_level(name).unwrap()).collect()
}

/// A level that is not found is a level that nothing here compares.
#[test]
pub fn the_best_level_is_the_one_that_the_machine_is_known_to_have() {
    let Ok(best) = std::env::var("SISKIN_TEST_LEVEL") else { return };
    assert_eq!(KernelTable::level_names().pop(), Some(best.as_str()));
}
