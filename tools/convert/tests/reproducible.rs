//! The bytes that every type and mix is quantized to are the same on every machine: those of
//! tests/data/quantized.json, at every level that the CPU at hand has, or at the one that
//! `SISKIN_TEST_LEVEL` names: under qemu each takes a minute.
//!
//! `SISKIN_RECORD=1 cargo test -p siskin-convert --test reproducible` records them anew.

mod support;

use std::collections::BTreeMap;
use std::fs;
use std::ops::ControlFlow;
use std::path::Path;
use std::sync::Arc;

use sha2::{Digest, Sha256};
use siskin::GgmlType;
use siskin::model::{InputSums, SKETCH, sketch_signs};
use siskin_convert::calibrate::{Amount, Calibrator};
use siskin_convert::write::write;
use siskin_convert::{
    FILE_TYPES, FileType, GgufSource, Imatrix, Plan, PlanOptions, Source, WriteOptions,
};
use siskin_quant::table::KernelTable;

use support::{Memory, weights};

const COLS: usize = 512;

fn hex(bytes: &[u8]) -> String {
    Sha256::digest(bytes).iter().map(|b| format!("{b:02x}")).collect()
}

/// The importance of columns: mostly small, some large, some nothing.
fn importance(n: usize) -> Vec<f32> {
    weights(77, n).iter().map(|x| if *x < -0.04 { 0.0 } else { x * x * x.abs() }).collect()
}

/// The input of some tensors, whose columns have these importances and three directions in common.
fn input(tensors: &[&str], importance: &[f32]) -> InputSums {
    let shares = weights(99, 3 * importance.len());
    let shares = shares.as_chunks::<3>().0;
    let mut projected = [[0.0; SKETCH]; 3];
    for (column, share) in shares.iter().enumerate() {
        for (sums, share) in projected.iter_mut().zip(share) {
            sums.iter_mut().zip(sketch_signs(column)).for_each(|(sum, sign)| *sum += share * sign);
        }
    }
    let tensors = tensors.iter().map(|name| name.to_string()).collect();
    let mut input = InputSums { tensors, sums: Vec::new(), sketch: Vec::new(), tokens: 5000 };
    for (column, (own, share)) in importance.iter().zip(shares).enumerate() {
        let mut row = sketch_signs(column).map(|sign| own * sign);
        for (sums, share) in projected.iter().zip(share) {
            row.iter_mut().zip(sums).for_each(|(y, sum)| *y += share * sum);
        }
        let shared: f32 = share.iter().map(|share| share * share).sum();
        input.sums.push(f64::from(own + shared));
        input.sketch.push(row);
    }
    input
}

fn imatrix(inputs: impl IntoIterator<Item = InputSums>) -> Imatrix {
    let mut imatrix = Imatrix::new("imatrix", 512);
    imatrix.add_collected(inputs).expect("finite sums");
    imatrix
}

/// A digest for each type, of rows with and without importance, and one of rows with feedback.
fn types(table: &KernelTable) -> BTreeMap<String, String> {
    // Ordinary rows, one of a few large values, one of zeros, one of the same value.
    let mut values = weights(5, 7 * COLS);
    values[COLS..2 * COLS].iter_mut().step_by(37).for_each(|x| *x *= 1e4);
    values[2 * COLS..3 * COLS].fill(0.0);
    values[3 * COLS..4 * COLS].fill(-0.125);
    let importance = importance(COLS);
    let quantized = GgmlType::ALL.iter().copied().filter(|ty| table.can_quantize(*ty));
    let digest = |ty: GgmlType| {
        let mut out = vec![0; ty.row_bytes(values.len()).expect("whole blocks")];
        let mut all = Vec::new();
        for importance in [None, Some(&importance[..])] {
            table.quantize(ty, &values, importance, &mut out).expect("quantized");
            all.extend_from_slice(&out);
        }
        (ty.name().to_string(), hex(&all))
    };
    let mut digests: BTreeMap<_, _> = quantized.clone().map(digest).collect();
    let known = imatrix([input(&["w"], &importance)]);
    let feedback = known.feedback("w").expect("a sketch").expect("enough tokens");
    for ty in quantized.filter(|ty| table.can_recode(*ty)) {
        let mut out = vec![0; ty.row_bytes(values.len()).expect("whole blocks")];
        let importance = Some(&importance[..]);
        table.quantize_with_feedback(ty, &values, importance, &feedback, &mut out).expect("bytes");
        digests.insert(format!("{} with feedback", ty.name()), hex(&out));
    }
    digests
}

/// A digest for each file type, of a whole file.
fn files(table: &KernelTable, threads: usize) -> BTreeMap<String, String> {
    let folder = tempfile::tempdir().expect("a folder");
    let source = Memory::small();
    let weighted = source.tensors.iter().map(|t| {
        (t.shape.len() > 1 && t.name != "token_embd.weight").then(|| importance(t.cols()))
    });
    let weighted: Vec<_> = weighted.collect();
    let digest = |file_type| {
        let options = PlanOptions { imatrix: true, ..PlanOptions::new(file_type) };
        let plan = Plan::new(&source, &options, table).ok()?;
        let out = folder.path().join(file_type.name);
        let importance = weighted.clone();
        let to = WriteOptions { threads: Some(threads), importance, ..WriteOptions::default() };
        let go_on = &mut |_: siskin_convert::Progress<'_>| ControlFlow::Continue(());
        write(&source, &plan, table, &out, &to, go_on).expect("written");
        Some((format!("file {}", file_type.name), hex(&fs::read(out).expect("a file"))))
    };
    let mut files: BTreeMap<_, _> = FILE_TYPES.iter().filter_map(digest).collect();

    // Queries and values have their input in common.
    let [wide, narrow] = [256, 96].map(importance);
    let of_layer = |l| {
        let [q, v, up, down] =
            ["attn_q", "attn_v", "ffn_up", "ffn_down"].map(|part| format!("blk.{l}.{part}.weight"));
        [input(&[&q, &v], &wide), input(&[&up], &wide), input(&[&down], &narrow)]
    };
    let sketches = Arc::new(imatrix((0..2).flat_map(of_layer)));
    for name in ["q4_0", "q2_k", "q3_k_m", "q4_k_m", "q6_k", "iq4_xs"] {
        let file_type = FileType::from_name(name).expect("a file type");
        let options = PlanOptions { imatrix: true, ..PlanOptions::new(file_type) };
        let plan = Plan::new(&source, &options, table).expect("a plan");
        let importance = plan.importance(&source.tensors, &sketches).expect("all of them");
        let out = folder.path().join("sketched");
        let sketches = Some(sketches.clone());
        let to = WriteOptions {
            threads: Some(threads),
            importance,
            sketches,
            overwrite: true,
            ..WriteOptions::default()
        };
        let go_on = &mut |_: siskin_convert::Progress<'_>| ControlFlow::Continue(());
        write(&source, &plan, table, &out, &to, go_on).expect("written");
        let digest = hex(&fs::read(out).expect("a file"));
        files.insert(format!("file {name} with sketches"), digest);
    }
    files
}

/// A digest of what a model measures of itself, and of a file that is made with that.
fn calibrated(table: &KernelTable, threads: usize) -> BTreeMap<String, String> {
    let folder = tempfile::tempdir().expect("a folder");
    let out = folder.path().join("out");
    let model = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../tests/data/archs/llama.gguf");
    let source = GgufSource::open(&model).expect("a model");
    let go_on = &mut |_: siskin_convert::Progress<'_>| ControlFlow::Continue(());
    let mut digests = BTreeMap::new();
    for (name, amount) in [("quick", Amount::Quick), ("full", Amount::Full)] {
        let threads = Some(threads);
        let calibrator = Calibrator::new(&source, amount, &out, table, threads, go_on);
        let imatrix = calibrator.and_then(|c| c.run(&mut |_| ())).expect("a model that runs");
        let sums = imatrix.entries().flat_map(|(_, entry)| entry.sums());
        let sums: Vec<u8> = sums.flat_map(|sum| sum.to_le_bytes()).collect();
        digests.insert(format!("calibrated {name}"), hex(&sums));
        let saved = folder.path().join("imatrix");
        imatrix.save(&saved).expect("saved");
        digests.insert(format!("imatrix {name}"), hex(&fs::read(&saved).expect("a file")));
        fs::remove_file(&saved).expect("removed");
        let file_type = FileType::from_name("q4_0").expect("a file type");
        let options = PlanOptions { calibrated: true, ..PlanOptions::new(file_type) };
        let plan = Plan::new(&source, &options, table).expect("a plan");
        let importance = plan.importance(source.tensors(), &imatrix).expect("all of them");
        let sketches = Some(Arc::new(imatrix));
        let options = WriteOptions { threads, importance, sketches, ..WriteOptions::default() };
        write(&source, &plan, table, &out, &options, go_on).expect("written");
        let digest = hex(&fs::read(&out).expect("a file"));
        digests.insert(format!("file q4_0 calibrated {name}"), digest);
        fs::remove_file(&out).expect("removed");
    }
    digests
}

#[test]
fn bytes_are_the_same_at_every_level_and_those_recorded() {
    let data = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/data/quantized.json");
    let only = std::env::var("SISKIN_TEST_LEVEL").ok();
    let mut levels = KernelTable::level_names();
    levels.retain(|level| only.as_deref().is_none_or(|only| only == *level));
    assert!(!levels.is_empty(), "this CPU has no level {only:?}");
    let mut expected: Option<BTreeMap<String, String>> = None;
    for (i, level) in levels.iter().enumerate() {
        let table = KernelTable::for_level(level).expect("a level of this CPU");
        let mut found = types(&table);
        found.extend(files(&table, [1, 2, 8][i % 3]));
        found.extend(calibrated(&table, [2, 8, 1][i % 3]));
        let expected = expected.get_or_insert_with(|| {
            if std::env::var_os("SISKIN_RECORD").is_some() {
                let json = serde_json::to_string_pretty(&found).expect("JSON");
                fs::write(&data, json + "\n").expect("written");
            }
            serde_json::from_str(&fs::read_to_string(&data).expect("a file")).expect("JSON")
        });
        for (name, digest) in &found {
            assert_eq!(Some(digest), expected.get(name), "{name} at level {level}");
        }
        assert_eq!(found.len(), expected.len());
    }
}
