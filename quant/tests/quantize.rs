//! The quantizers that search: the same bits at every level, small errors, and nothing that breaks
//! them.

mod support;

use siskin_quant::GgmlType;
use siskin_quant::formats::{RowError, dequantize_row};
use siskin_quant::table::KernelTable;
use siskin_quant::types::Act;
use support::{Random, tables};

/// A type, and the mean squared errors of ggml's quantizer on the values of [`weights`]: without
/// importances, and with those of [`importances`], which then weigh the errors. Measured with
/// ggml 0.25.3 through `ggml_quantize_chunk`, by tools/peers/quantize_errors.py.
const SEARCHED: [(GgmlType, f64, f64); 9] = [
    (GgmlType::Q4_0, 3.6175e-6, 5.6816e-7),
    (GgmlType::Q4_1, 3.0519e-6, 3.8845e-7),
    (GgmlType::Q5_0, 8.7975e-7, 1.3718e-7),
    (GgmlType::Q5_1, 7.0318e-7, 9.0809e-8),
    (GgmlType::Q2_K, 4.3397e-5, 5.0807e-6),
    (GgmlType::Q3_K, 1.1357e-5, 1.6876e-6),
    (GgmlType::Q4_K, 2.5206e-6, 4.0148e-7),
    (GgmlType::Q5_K, 6.4482e-7, 1.0426e-7),
    (GgmlType::Q6_K, 1.5335e-7, 2.4538e-8),
];

/// Values in a row.
const COLUMNS: usize = 1280;

/// Rows of values that are distributed about as weights are.
fn weights(rows: usize) -> Vec<f32> {
    let mut random = Random(7);
    let mut value = || (0..4).map(|_| random.float()).sum::<f32>() * 0.02;
    (0..rows * COLUMNS).map(|_| value()).collect()
}

/// Importances of the columns, some a thousand times others.
fn importances() -> Vec<f32> {
    let mut random = Random(11);
    (0..COLUMNS).map(|_| random.float().abs().powi(4) + 0.001).collect()
}

fn quantize(table: &KernelTable, ty: GgmlType, x: &[f32], importance: Option<&[f32]>) -> Vec<u8> {
    let mut out = vec![0xaa; ty.row_bytes(x.len()).unwrap()];
    table.quantize(ty, x, importance, &mut out).unwrap();
    out
}

fn dequantize(ty: GgmlType, row: &[u8], n: usize) -> Vec<f32> {
    let mut out = vec![f32::NAN; n];
    dequantize_row(ty, row, &mut out).unwrap();
    out
}

/// What the values become.
fn through(table: &KernelTable, ty: GgmlType, x: &[f32], importance: Option<&[f32]>) -> Vec<f32> {
    dequantize(ty, &quantize(table, ty, x, importance), x.len())
}

fn error(x: &[f32], y: &[f32], importance: &[f32]) -> f64 {
    let square = |(x, y): (&f32, &f32)| f64::from(x - y).powi(2);
    let weigh = |(error, i): (f64, &f32)| error * f64::from(*i);
    let errors = x.iter().zip(y).map(square).zip(importance.iter().cycle());
    errors.map(weigh).sum::<f64>() / x.len() as f64
}

/// Rows that are hard on a quantizer, with names.
fn hostile_rows() -> Vec<(&'static str, Vec<f32>)> {
    let mut random = Random(3);
    let mut row = |f: &mut dyn FnMut(usize, f32) -> f32| -> Vec<f32> {
        (0..512).map(|i| f(i, random.float())).collect()
    };
    vec![
        ("zeros", row(&mut |_, _| 0.0)),
        ("negative zeros", row(&mut |_, _| -0.0)),
        ("a constant", row(&mut |_, _| 0.7)),
        ("a negative constant", row(&mut |_, _| -0.7)),
        ("one value", row(&mut |i, _| if i == 77 { 1.0 } else { 0.0 })),
        ("an outlier", row(&mut |i, x| if i % 256 == 5 { 3000.0 } else { x })),
        ("above zero", row(&mut |_, x| x + 1.5)),
        ("below zero", row(&mut |_, x| x - 1.5)),
        ("denormals", row(&mut |_, x| x * 1e-39)),
        ("small", row(&mut |_, x| x * 1e-9)),
        ("below the smallest scale", row(&mut |_, x| x * 1e-7)),
        ("large", row(&mut |_, x| x * 1e7)),
        ("huge", row(&mut |_, x| x * 3e38)),
        ("every size", row(&mut |i, x| x * 10f32.powi(i as i32 % 60 - 30))),
        ("two values", row(&mut |i, _| if i % 3 == 0 { -0.25 } else { 0.5 })),
        ("half a block", row(&mut |i, x| if i % 256 < 128 { x } else { 0.0 })),
    ]
}

#[test]
fn every_level_writes_the_same_bytes() {
    let tables = tables();
    let (mut rows, importance) = (hostile_rows(), importances());
    rows.push(("weights", weights(1)));
    for ty in GgmlType::ALL.iter().copied().filter(|ty| tables[0].can_quantize(*ty)) {
        for (name, x) in &rows {
            for importance in [None, Some(&importance[..x.len()])] {
                let want = quantize(&tables[0], ty, x, importance);
                for table in &tables[1..] {
                    let got = quantize(table, ty, x, importance);
                    assert!(got == want, "{ty} of {name} by {}", table.level());
                }
            }
        }
    }
}

#[test]
fn a_block_does_not_depend_on_what_is_quantized_with_it() {
    let table = KernelTable::detect().unwrap();
    let (x, importance) = (weights(3), importances());
    for ty in GgmlType::ALL.iter().copied().filter(|ty| table.can_quantize(*ty)) {
        let len = ty.block_len();
        for importance in [None, Some(&importance[..])] {
            let together = quantize(&table, ty, &x, importance);
            let rows: Vec<u8> =
                x.chunks(COLUMNS).flat_map(|x| quantize(&table, ty, x, importance)).collect();
            assert!(together == rows, "{ty}: row by row");
            let blocks: Vec<u8> = x
                .chunks(len)
                .enumerate()
                .flat_map(|(i, x)| {
                    let column = i * len % COLUMNS;
                    quantize(&table, ty, x, importance.map(|i| &i[column..column + len]))
                })
                .collect();
            assert!(together == blocks, "{ty}: block by block");
        }
    }
}

#[test]
fn errors_are_below_those_of_ggml() {
    let table = KernelTable::detect().unwrap();
    let (x, importance) = (weights(16), importances());
    for (ty, ggml, ggml_weighted) in SEARCHED {
        let plain = error(&x, &through(&table, ty, &x, None), &[1.0]);
        let weighted = error(&x, &through(&table, ty, &x, Some(&importance)), &importance);
        assert!(plain < ggml, "{ty}: {plain:e}, ggml {ggml:e}");
        assert!(weighted < ggml_weighted, "{ty}: {weighted:e}, ggml {ggml_weighted:e}");
    }
}

#[test]
fn values_of_the_type_itself_come_back() {
    let table = KernelTable::detect().unwrap();
    let (first, importance) = (weights(8), importances());
    for (ty, ..) in SEARCHED {
        let x = through(&table, ty, &first, None);
        let lost = error(&first, &x, &[1.0]);
        for importance in [None, Some(&importance[..])] {
            // A few sub-blocks do not have the least or the greatest code, and so no trace of where
            // their grid begins.
            let again = error(&x, &through(&table, ty, &x, importance), &[1.0]);
            assert!(again < 0.05 * lost, "{ty}: lost {again:e} after {lost:e}");
        }
    }
}

#[test]
fn hostile_values_give_finite_blocks() {
    let table = KernelTable::detect().unwrap();
    let zeros = vec![0.0; 512];
    let spread: Vec<f32> = (0..512).map(|i| 10f32.powi(i % 50 - 30)).collect();
    // Floats hold what they can.
    let searched = |ty: &GgmlType| table.can_quantize(*ty) && ty.info().act == Act::Q8;
    for ty in GgmlType::ALL.iter().copied().filter(searched) {
        for (name, x) in hostile_rows() {
            let plain = quantize(&table, ty, &x, None);
            for (what, importance) in [("zeros", &zeros), ("spread", &spread)] {
                let y = through(&table, ty, &x, Some(importance));
                assert!(y.iter().all(|y| y.is_finite()), "{ty} of {name}, importances {what}");
            }
            let y = dequantize(ty, &plain, x.len());
            assert!(y.iter().all(|y| y.is_finite()), "{ty} of {name}");
            assert!(!name.contains("zeros") || y.iter().all(|y| *y == 0.0), "{ty} of {name}");
        }
    }
}

#[test]
fn what_a_type_can_hold_exactly_it_does() {
    let table = KernelTable::detect().unwrap();
    for (ty, ..) in SEARCHED {
        for (name, x) in hostile_rows() {
            let y = through(&table, ty, &x, None);
            match name {
                "zeros" | "negative zeros" | "denormals" => {
                    assert!(y.iter().all(|y| *y == 0.0), "{ty} of {name}");
                }
                "a constant" | "a negative constant" | "one value" => {
                    let worst = x.iter().zip(&y).fold(0.0, |m: f32, (x, y)| m.max((x - y).abs()));
                    assert!(worst < 2e-3, "{ty} of {name}: off by {worst}");
                }
                _ => {}
            }
        }
    }
}

#[test]
fn values_that_are_none_do_not_panic() {
    let table = KernelTable::detect().unwrap();
    let hostile = [f32::NAN, f32::INFINITY, -f32::INFINITY, f32::MAX, f32::MIN, 1e-45, -1e-40, 0.0];
    for ty in GgmlType::ALL.iter().copied().filter(|ty| table.can_quantize(*ty)) {
        for a in hostile {
            for b in hostile {
                let x: Vec<f32> = (0..512).map(|i| if i % 3 == 0 { a } else { b }).collect();
                quantize(&table, ty, &x, None);
                quantize(&table, ty, &x, Some(&x));
            }
        }
    }
}

#[test]
fn importances_of_zero_are_none_and_their_scale_does_not_matter() {
    let table = KernelTable::detect().unwrap();
    let (x, importance) = (weights(1), importances());
    let scaled: Vec<f32> = importance.iter().map(|i| i * 1024.0).collect();
    for ty in GgmlType::ALL.iter().copied().filter(|ty| table.can_quantize(*ty)) {
        let ones = quantize(&table, ty, &x, Some(&vec![1.0; COLUMNS]));
        assert!(quantize(&table, ty, &x, Some(&vec![0.0; COLUMNS])) == ones, "{ty}");
        let want = quantize(&table, ty, &x, Some(&importance));
        assert!(quantize(&table, ty, &x, Some(&scaled)) == want, "{ty}");
    }
}

#[test]
fn sizes_that_do_not_fit_are_refused() {
    let table = KernelTable::detect().unwrap();
    let (x, importance) = (weights(2), importances());
    for (ty, ..) in SEARCHED {
        let mut out = vec![0; ty.row_bytes(x.len()).unwrap()];
        let (bytes, values, len) = (out.len(), x.len(), ty.block_len());
        assert_eq!(table.quantize(ty, &x, Some(&importance), &mut out), Ok(()));
        let refused = |columns: usize| Err(RowError::Importance { ty, columns, values });
        for columns in [0, 1, len - 1, 3 * len] {
            let importance = &importance[..columns];
            assert_eq!(table.quantize(ty, &x, Some(importance), &mut out), refused(columns));
        }
        let size = RowError::Size { ty, bytes: bytes - 1, values };
        assert_eq!(table.quantize(ty, &x, None, &mut out[1..]), Err(size));
        assert_eq!(table.quantize(ty, &[], None, &mut []), Ok(()));
    }
}
