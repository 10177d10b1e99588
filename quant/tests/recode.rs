//! Codes chosen so that errors cancel: the same bits at every level, smaller errors of products, and
//! nothing that breaks them.

mod support;

use siskin_quant::GgmlType;
use siskin_quant::formats::{RowError, dequantize_row};
use siskin_quant::quantize::recode::{Feedback, RANK};
use siskin_quant::table::KernelTable;
use support::{Random, tables};

/// Values in a row.
const COLUMNS: usize = 512;
/// Rows: more than are quantized side by side, and no multiple of it.
const ROWS: usize = 19;

fn types(table: &KernelTable) -> Vec<GgmlType> {
    GgmlType::ALL.iter().copied().filter(|ty| table.can_recode(*ty)).collect()
}

fn weights() -> Vec<f32> {
    let mut random = Random(7);
    (0..ROWS * COLUMNS).map(|_| (0..4).map(|_| random.float()).sum::<f32>() * 0.02).collect()
}

/// How inputs are used: some directions that many columns have a share in, and a rest for each
/// column.
struct Inputs {
    factors: Vec<[f32; RANK]>,
    rest: Vec<f32>,
}

impl Inputs {
    fn new(strength: f32) -> Inputs {
        let mut random = Random(23);
        let mut factor = |_| {
            let mut u = [0.0; RANK];
            u[..6].iter_mut().for_each(|u| *u = strength * random.float());
            u
        };
        let factors = (0..COLUMNS).map(&mut factor).collect();
        Inputs { factors, rest: (0..COLUMNS).map(|i| 0.1 + (i % 7) as f32).collect() }
    }

    fn feedback(&self) -> Feedback {
        Feedback::new(self.factors.clone(), self.rest.clone())
    }

    /// The mean squares of columns.
    fn importance(&self) -> Vec<f32> {
        let square = |u: &[f32; RANK]| u.iter().map(|u| u * u).sum::<f32>();
        self.factors.iter().zip(&self.rest).map(|(u, rest)| square(u) + rest).collect()
    }

    /// The mean square of the errors of products.
    fn error(&self, x: &[f32], y: &[f32]) -> f64 {
        let feedback = self.feedback();
        let of_row = |(x, y): (&[f32], &[f32])| {
            feedback.error(x.iter().zip(y).map(|(x, y)| f64::from(y - x)))
        };
        x.chunks(COLUMNS).zip(y.chunks(COLUMNS)).map(of_row).sum()
    }
}

fn recode(
    table: &KernelTable,
    ty: GgmlType,
    x: &[f32],
    importance: Option<&[f32]>,
    feedback: &Feedback,
) -> Vec<u8> {
    let mut out = vec![0xaa; ty.row_bytes(x.len()).unwrap()];
    table.quantize_with_feedback(ty, x, importance, feedback, &mut out).unwrap();
    out
}

fn plain(table: &KernelTable, ty: GgmlType, x: &[f32], importance: Option<&[f32]>) -> Vec<u8> {
    let mut out = vec![0; ty.row_bytes(x.len()).unwrap()];
    table.quantize(ty, x, importance, &mut out).unwrap();
    out
}

fn values(ty: GgmlType, bytes: &[u8], n: usize) -> Vec<f32> {
    let mut out = vec![f32::NAN; n];
    dequantize_row(ty, bytes, &mut out).unwrap();
    out
}

#[test]
fn all_types_of_codes_by_themselves_can_be_recoded() {
    let table = KernelTable::detect().unwrap();
    use GgmlType::*;
    assert_eq!(
        types(&table),
        [Q4_0, Q4_1, Q5_0, Q5_1, Q2_K, Q3_K, Q4_K, Q5_K, Q6_K, IQ4_NL, IQ4_XS]
    );
}

#[test]
fn every_level_writes_the_same_bytes_and_rows_do_not_mind_each_other() {
    let (x, inputs) = (weights(), Inputs::new(1.0));
    let (feedback, importance) = (inputs.feedback(), inputs.importance());
    for ty in types(&tables()[0]) {
        for importance in [None, Some(&importance[..])] {
            let want = recode(&tables()[0], ty, &x, importance, &feedback);
            for table in &tables()[1..] {
                let got = recode(table, ty, &x, importance, &feedback);
                assert!(got == want, "{ty} by {}", table.level());
            }
            let row = |x| recode(&tables()[0], ty, x, importance, &feedback);
            let rows: Vec<u8> = x.chunks(COLUMNS).flat_map(row).collect();
            assert!(rows == want, "{ty}: row by row");
        }
    }
}

#[test]
fn the_error_is_that_of_the_matrix_written_out() {
    let inputs = Inputs::new(1.0);
    let errors: Vec<f64> = weights().into_iter().take(COLUMNS).map(f64::from).collect();
    let mut want = 0.0;
    for (i, (a, u)) in errors.iter().zip(&inputs.factors).enumerate() {
        for (j, (b, v)) in errors.iter().zip(&inputs.factors).enumerate() {
            let dot: f64 = u.iter().zip(v).map(|(u, v)| f64::from(*u) * f64::from(*v)).sum();
            want += a * b * (dot + if i == j { f64::from(inputs.rest[i]) } else { 0.0 });
        }
    }
    let got = inputs.feedback().error(errors);
    assert!((got / want - 1.0).abs() < 1e-9, "{got}, not {want}");
}

#[test]
fn products_become_better() {
    let table = KernelTable::detect().unwrap();
    let (x, inputs) = (weights(), Inputs::new(1.0));
    let (feedback, importance) = (inputs.feedback(), inputs.importance());
    for ty in types(&table) {
        let importance = Some(&importance[..]);
        let before = values(ty, &plain(&table, ty, &x, importance), x.len());
        let after = values(ty, &recode(&table, ty, &x, importance, &feedback), x.len());
        let ratio = inputs.error(&x, &after) / inputs.error(&x, &before);
        // What no direction has a share in stays: most of the error, of these inputs.
        let alone = Inputs::new(0.0);
        let own = alone.error(&x, &before) / inputs.error(&x, &before);
        assert!(
            ratio < own + 0.35 * (1.0 - own),
            "{ty}: {ratio:.3} of the error, {own:.3} its own"
        );
    }
}

#[test]
fn without_common_directions_the_codes_stay() {
    let table = KernelTable::detect().unwrap();
    let (x, inputs) = (weights(), Inputs::new(0.0));
    let (feedback, importance) = (inputs.feedback(), inputs.importance());
    for ty in types(&table) {
        let want = plain(&table, ty, &x, Some(&importance));
        let got = recode(&table, ty, &x, Some(&importance), &feedback);
        assert!(got == want, "{ty}");
    }
}

#[test]
fn hard_rows_stay_within_their_range() {
    let table = KernelTable::detect().unwrap();
    let (inputs, mut random) = (Inputs::new(30.0), Random(3));
    let feedback = inputs.feedback();
    let rows: [(&str, Vec<f32>); 5] = [
        ("zeros", vec![0.0; COLUMNS]),
        ("a constant", vec![-0.7; COLUMNS]),
        ("an outlier", (0..COLUMNS).map(|i| if i == 5 { 3e4 } else { 0.01 }).collect()),
        ("denormals", random.floats(COLUMNS).iter().map(|x| x * 1e-39).collect()),
        ("huge", random.floats(COLUMNS).iter().map(|x| x * 3e38).collect()),
    ];
    for ty in types(&table) {
        for (name, x) in &rows {
            let y = values(ty, &recode(&table, ty, x, None, &feedback), COLUMNS);
            let most = x.iter().fold(0.0f32, |max, x| max.max(x.abs()));
            assert!(y.iter().all(|y| y.abs() <= 1.3 * most), "{ty} of {name}");
        }
    }
}

#[test]
fn sizes_that_do_not_fit_are_refused() {
    let table = KernelTable::detect().unwrap();
    let feedback = Inputs::new(1.0).feedback();
    let ty = GgmlType::Q4_0;
    let mut out = vec![0; ty.row_bytes(256).unwrap()];
    let mut refused = |x: &[f32], importance: Option<&[f32]>, feedback: &Feedback| {
        table.quantize_with_feedback(ty, x, importance, feedback, &mut out).unwrap_err()
    };
    let wrong = RowError::Importance { ty, columns: COLUMNS, values: 256 };
    assert_eq!(refused(&[0.0; 256], None, &feedback), wrong);
    let none = Feedback::new(Vec::new(), Vec::new());
    let wrong = RowError::Importance { ty, columns: 0, values: 256 };
    assert_eq!(refused(&[0.0; 256], None, &none), wrong);
    let wrong = RowError::Size { ty, bytes: 144, values: 512 };
    assert_eq!(refused(&[0.0; 512], None, &feedback), wrong);
}
