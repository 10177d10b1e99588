//! The quantizers of the IQ, TQ and MXFP4 types: errors beside ggml's, and what comes back exactly.
//! What they share with all others is tested in quantize.rs.

use siskin_quant::GgmlType;
use siskin_quant::formats::dequantize_row;
use siskin_quant::table::KernelTable;

/// A type and the errors of ggml's quantizer on the values of [`weights`], relative to those of
/// zeros: without importances (for the types that ggml refuses to quantize so, with all of them
/// 1), and with [`importances`], which then weigh the errors. Measured through
/// `ggml_quantize_chunk` of llama.cpp in llama-cpp-python 0.3.36.
const GGML: [(GgmlType, f64, f64); 12] = [
    (GgmlType::IQ4_NL, 1.1742e-2, 8.7265e-3),
    (GgmlType::IQ4_XS, 1.1982e-2, 9.0411e-3),
    (GgmlType::MXFP4, 2.3085e-2, 2.4983e-2),
    (GgmlType::TQ1_0, 5.5527e-1, 5.7485e-1),
    (GgmlType::TQ2_0, 5.5527e-1, 5.7485e-1),
    (GgmlType::IQ3_S, 6.9353e-2, 2.8233e-2),
    (GgmlType::IQ3_XXS, 1.1364e-1, 3.3782e-2),
    (GgmlType::IQ2_S, 2.5777e-1, 1.0673e-1),
    (GgmlType::IQ2_XS, 2.2164e-1, 1.1748e-1),
    (GgmlType::IQ2_XXS, 3.3573e-1, 1.7602e-1),
    (GgmlType::IQ1_S, 3.8285e-1, 1.9980e-1),
    (GgmlType::IQ1_M, 2.3295e-1, 1.0849e-1),
];

/// The largest share of ggml's errors that is let pass: what is recorded leaves more room.
const SHARE: f64 = 0.97;

const ROWS: usize = 16;
const COLUMNS: usize = 1024;

/// Numbers from 0 to 1.
fn noise() -> impl FnMut() -> f64 {
    let mut state = 0x9e37_79b9_u32;
    move || {
        state ^= state << 13;
        state ^= state >> 17;
        state ^= state << 5;
        f64::from(state >> 8) / f64::from(1 << 24)
    }
}

/// Rows of heavy-tailed values, of columns of different size, and the columns' importances.
fn weights() -> (Vec<f32>, Vec<f32>) {
    let mut next = noise();
    let scales: Vec<f64> = (0..COLUMNS).map(|_| 0.02 + 0.3 * next().powi(6)).collect();
    let importance = (0..COLUMNS).map(|_| (0.01 + 8.0 * next().powi(8)) as f32).collect();
    let values = (0..ROWS * COLUMNS).map(|i| {
        let sum = next() + next() + next() - 1.5;
        (sum * scales[i % COLUMNS] * (1.0 + 3.0 * next().powi(4))) as f32
    });
    (values.collect(), importance)
}

/// What the values become.
fn through(ty: GgmlType, x: &[f32], importance: Option<&[f32]>) -> Vec<f32> {
    let mut row = vec![0xaa; ty.row_bytes(x.len()).unwrap()];
    KernelTable::detect().unwrap().quantize(ty, x, importance, &mut row).unwrap();
    let mut y = vec![f32::NAN; x.len()];
    dequantize_row(ty, &row, &mut y).unwrap();
    y
}

/// The weighted squared error, relative to that of zeros.
fn error(x: &[f32], y: &[f32], importance: &[f32]) -> f64 {
    let (mut error, mut power) = (0.0, 0.0);
    for ((x, y), w) in x.iter().zip(y).zip(importance.iter().cycle()) {
        let (x, y, w) = (f64::from(*x), f64::from(*y), f64::from(*w));
        error += w * (x - y) * (x - y);
        power += w * x * x;
    }
    error / power
}

#[test]
fn errors_are_below_those_of_ggml() {
    let (x, importance) = weights();
    for (ty, ggml, ggml_weighted) in GGML {
        let plain = error(&x, &through(ty, &x, None), &[1.0]);
        let weighted = error(&x, &through(ty, &x, Some(&importance)), &importance);
        assert!(plain < SHARE * ggml, "{ty}: {plain:e}, ggml {ggml:e}");
        assert!(weighted < SHARE * ggml_weighted, "{ty}: {weighted:e}, ggml {ggml_weighted:e}");
    }
}

/// A type's own values, when quantized to it again, are the same, or as near as the search for the
/// grid types' scales finds them.
#[test]
fn values_of_the_type_itself_come_back() {
    let (x, importance) = weights();
    for (ty, ..) in GGML {
        let most = match ty {
            GgmlType::IQ4_NL | GgmlType::IQ4_XS | GgmlType::MXFP4 => 1e-12,
            GgmlType::TQ1_0 | GgmlType::TQ2_0 => 1e-12,
            _ => 2e-2,
        };
        for importance in [None, Some(&importance[..])] {
            let y = through(ty, &x, importance);
            let again = error(&y, &through(ty, &y, importance), &[1.0]);
            assert!(again <= most, "{ty}: {again:e}");
        }
    }
}

/// The weights of a ternary model are its scale, its negative and zero.
#[test]
fn ternary_weights_come_back_exactly() {
    let mut next = noise();
    for d in [1.0f32, 0.037_109_375, 6e-5, 60000.0] {
        let x: Vec<f32> = (0..1024).map(|_| d * ((next() * 3.0) as i32 - 1) as f32).collect();
        let importance: Vec<f32> = (0..256).map(|_| next() as f32).collect();
        for ty in [GgmlType::TQ1_0, GgmlType::TQ2_0] {
            for importance in [None, Some(&importance[..])] {
                let y = through(ty, &x, importance);
                let stored = through(GgmlType::F16, &x, None);
                assert!(y == stored, "{ty} of {d}");
            }
        }
    }
}

/// Blocks with any codes and scales, not only those that a quantizer would choose.
#[test]
fn values_of_any_block_of_iq4_and_mxfp4_come_back() {
    let mut next = noise();
    for (ty, scale_bytes) in [(GgmlType::IQ4_NL, 2), (GgmlType::IQ4_XS, 2), (GgmlType::MXFP4, 1)] {
        let (len, bytes) = (ty.block_len(), ty.block_bytes());
        for n in 0..40 {
            let mut block: Vec<u8> = (0..bytes).map(|_| (next() * 256.0) as u8).collect();
            // A scale near 1: as f16, or as an exponent.
            let scale: &[u8] = if scale_bytes == 2 { &[n, 0x3c] } else { &[100 + n] };
            block[..scale_bytes].copy_from_slice(scale);
            let mut x = vec![0.0; len];
            dequantize_row(ty, &block, &mut x).unwrap();
            let lost = error(&x, &through(ty, &x, None), &[1.0]);
            // Some sub-blocks of IQ4_XS have a largest code that no quantizer gives one.
            let most = if ty == GgmlType::IQ4_XS { 1e-3 } else { 1e-12 };
            assert!(lost <= most, "{ty} block {n}: {lost:e}");
        }
    }
}
