//! Importance matrices that know which columns are used together, and what quantizers make of it.

mod support;

use std::ops::ControlFlow;
use std::path::Path;

use siskin::GgmlType;
use siskin::gguf::{Builder, GgufFile};
use siskin::model::{InputSums, SKETCH, sketch_signs};
use siskin_convert::write::write;
use siskin_convert::{FileType, Imatrix, Plan, PlanOptions, WriteOptions};
use siskin_quant::formats::dequantize_row;
use siskin_quant::table::KernelTable;

use support::{Memory, weights};

/// Inputs of a few directions and a little of its own for each column.
fn inputs(tokens: usize, columns: usize) -> Vec<f32> {
    const DIRECTIONS: usize = 5;
    let directions = weights(3, DIRECTIONS * columns);
    let (shares, own) = (weights(5, DIRECTIONS * tokens), weights(9, tokens * columns));
    let mut x = own;
    for (x, shares) in x.chunks_mut(columns).zip(shares.chunks(DIRECTIONS)) {
        for (share, direction) in shares.iter().zip(directions.chunks(columns)) {
            x.iter_mut().zip(direction).for_each(|(x, d)| *x += 40.0 * share * d);
        }
    }
    x
}

/// What a session would have collected of them.
fn collected(tensors: &[&str], x: &[f32], columns: usize) -> InputSums {
    let tensors = tensors.iter().map(|name| name.to_string()).collect();
    let (mut sums, mut sketch) = (vec![0.0; columns], vec![[0.0f32; SKETCH]; columns]);
    for x in x.chunks(columns) {
        let mut projected = [0.0; SKETCH];
        for (column, x) in x.iter().enumerate() {
            sums[column] += f64::from(*x).powi(2);
            projected.iter_mut().zip(sketch_signs(column)).for_each(|(p, sign)| *p += x * sign);
        }
        for (row, x) in sketch.iter_mut().zip(x) {
            row.iter_mut().zip(projected).for_each(|(y, p)| *y += x * p);
        }
    }
    InputSums { tensors, sums, sketch, tokens: (x.len() / columns) as u64 }
}

fn imatrix<const N: usize>(inputs: [InputSums; N]) -> Imatrix {
    let mut imatrix = Imatrix::new("imatrix", 512);
    imatrix.add_collected(inputs).unwrap();
    imatrix
}

fn tensors(path: &Path) -> Vec<String> {
    GgufFile::open(path).unwrap().tensors().iter().map(|t| t.name.clone()).collect()
}

/// The mean square of the errors of the products of a file's tensor with inputs.
fn product_error(source: &Memory, path: &Path, name: &str, x: &[f32]) -> f64 {
    let file = GgufFile::open(path).unwrap();
    let tensor = file.tensors().iter().find(|t| t.name == name).unwrap();
    let at = source.tensors.iter().position(|t| t.name == name).unwrap();
    let want = &source.values[at];
    let mut got = vec![0.0; want.len()];
    dequantize_row(tensor.ty, file.tensor_data(tensor), &mut got).unwrap();
    let columns = tensor.shape[0] as usize;
    let (mut sum, mut n) = (0.0, 0);
    for (want, got) in want.chunks(columns).zip(got.chunks(columns)) {
        for x in x.chunks(columns) {
            let error = |((w, g), x): ((&f32, &f32), &f32)| f64::from(*x) * f64::from(g - w);
            sum += want.iter().zip(got).zip(x).map(error).sum::<f64>().powi(2);
            n += 1;
        }
    }
    sum / f64::from(n)
}

#[test]
fn errors_of_products_become_smaller_at_the_same_size() {
    let folder = tempfile::tempdir().unwrap();
    let source = Memory::small();
    let table = KernelTable::detect().unwrap();
    let name = "blk.0.ffn_up.weight";
    let columns = source.tensors.iter().find(|t| t.name == name).unwrap().cols();
    // Measured with one text, tried with another.
    let x = inputs(4096, columns);
    let (seen, new) = x.split_at(2048 * columns);
    let imatrix = std::sync::Arc::new(imatrix([collected(&[name], seen, columns)]));
    for ty in ["q4_k_m", "q3_k_m", "q4_0", "iq4_xs"] {
        let options =
            PlanOptions { imatrix: true, ..PlanOptions::new(FileType::from_name(ty).unwrap()) };
        let plan = Plan::new(&source, &options, &table).unwrap();
        let importance = plan.importance(&source.tensors, &imatrix).unwrap();
        let errors = [None, Some(imatrix.clone())].map(|sketches| {
            let path = folder.path().join("out.gguf");
            let importance = importance.clone();
            let to = WriteOptions { importance, sketches, overwrite: true, ..Default::default() };
            let go_on = &mut |_: siskin_convert::Progress<'_>| ControlFlow::Continue(());
            let written = write(&source, &plan, &table, &path, &to, go_on).unwrap();
            (product_error(&source, &path, name, &new[..64 * columns]), written.data_bytes)
        });
        let [(plain, size), (with, same)] = errors;
        assert!(with < 0.5 * plain, "{ty}: {with:e}, {plain:e} without");
        assert_eq!(size, same);
    }
}

#[test]
fn a_sketch_is_written_once_for_each_input_and_read_for_all_its_tensors() {
    let folder = tempfile::tempdir().unwrap();
    let paths = ["a.gguf", "b.gguf"].map(|name| folder.path().join(name));
    let x = inputs(1500, 32);
    let first = collected(&["blk.0.attn_q.weight", "blk.0.attn_k.weight"], &x[..1200 * 32], 32);
    let second = collected(&["blk.0.ffn_down.weight"], &x[100 * 32..], 32);
    let imatrix = imatrix([first, second]);
    imatrix.save(&paths[0]).unwrap();
    let sketches = |path| tensors(path).into_iter().filter(|t| t.ends_with(".in_sketch"));
    let written: Vec<_> = sketches(&paths[0]).collect();
    assert_eq!(written, ["blk.0.attn_k.weight.in_sketch", "blk.0.ffn_down.weight.in_sketch"]);
    let read = Imatrix::open(&paths[0]).unwrap();
    assert_eq!(read.entries().len(), 3);
    for (name, entry) in read.entries() {
        assert!(entry.has_sketch(), "{name}");
        assert_eq!(read.feedback(name).unwrap(), imatrix.feedback(name).unwrap());
        assert!(read.feedback(name).unwrap().is_some());
    }
    read.save(&paths[1]).unwrap();
    assert!(std::fs::read(&paths[0]).unwrap() == std::fs::read(&paths[1]).unwrap());
}

#[test]
fn sketches_add_up_and_are_gone_where_one_has_none() {
    let x = inputs(2000, 32);
    let part = |x| imatrix([collected(&["w"], x, 32)]);
    let (mut a, b) = (part(&x[..900 * 32]), part(&x[900 * 32..]));
    assert_eq!(a.feedback("w").unwrap(), None, "too few tokens");
    a.merge(&b).unwrap();
    let InputSums { sketch, .. } = collected(&["w"], &x, 32);
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("a.gguf");
    a.save(&path).unwrap();
    let file = GgufFile::open(&path).unwrap();
    let tensor = file.tensors().iter().find(|t| t.name == "w.in_sketch").unwrap();
    let bytes = file.tensor_data(tensor).as_chunks().0;
    for (got, want) in bytes.iter().zip(sketch.as_flattened()) {
        assert!((f32::from_le_bytes(*got) - want).abs() < 1e-3, "{want}");
    }
    assert!(a.feedback("w").unwrap().is_some());

    let mut without = collected(&["w"], &x, 32);
    without.sketch.clear();
    a.merge(&imatrix([without])).unwrap();
    assert!(a.entries().all(|(_, entry)| !entry.has_sketch()));
    assert_eq!(a.feedback("w").unwrap(), None);
}

#[test]
fn unused_columns_and_directions_give_feedback_all_the_same() {
    let mut x = inputs(1100, 64);
    x.iter_mut().enumerate().for_each(|(i, x)| {
        if i % 64 < 40 {
            *x = 0.0;
        }
    });
    let source = imatrix([collected(&["w"], &x, 64)]);
    let feedback = source.feedback("w").unwrap().unwrap();
    let table = KernelTable::detect().unwrap();
    let values = weights(1, 3 * 64);
    let mut out = [0; 108];
    table.quantize_with_feedback(GgmlType::Q4_0, &values, None, &feedback, &mut out).unwrap();
    let mut back = [0.0; 192];
    dequantize_row(GgmlType::Q4_0, &out, &mut back).unwrap();
    assert!(back.iter().zip(&values).all(|(a, b)| (a - b).abs() < 0.05));
    // Nothing but zeros says nothing.
    assert_eq!(
        imatrix([collected(&["w"], &vec![0.0; 1100 * 64], 64)]).feedback("w").unwrap(),
        None
    );
}

#[test]
fn what_is_wrong_with_a_sketch_is_named() {
    let ones = vec![1.0; 2 * SKETCH];
    let mut broken = ones.clone();
    broken[70] = f32::NAN;
    let read = |name: &str, shape: &[u64], ty: GgmlType, values: &[f32]| {
        let mut builder = Builder::new();
        builder.tensor("w.in_sum2", GgmlType::F32, &[2, 1]).unwrap();
        builder.tensor("w.counts", GgmlType::F32, &[1, 1]).unwrap();
        builder.tensor(name, ty, shape).unwrap();
        let mut writer = builder.start(Vec::new()).unwrap();
        let bytes = |x: &[f32]| x.iter().flat_map(|x| x.to_le_bytes()).collect::<Vec<u8>>();
        writer.tensor("w.in_sum2", &bytes(&[5000.0, 5000.0])).unwrap();
        writer.tensor("w.counts", &bytes(&[5000.0])).unwrap();
        writer.tensor(name, &bytes(values)).unwrap();
        Imatrix::from_bytes(writer.finish().unwrap())
    };
    let f32 = GgmlType::F32;
    let message = read("v.in_sketch", &[64, 2], f32, &ones).unwrap_err().to_string();
    assert!(message.contains("tensor v.in_sketch: there are no sums for it"), "{message}");
    let cases: [(&[u64], &[f32]); 2] = [(&[64, 1], &ones[..64]), (&[32, 4], &ones)];
    for (shape, values) in cases {
        let message = read("w.in_sketch", shape, f32, values).unwrap_err().to_string();
        assert!(message.contains("w.in_sketch: it is not F32 of 64 times 2 values"), "{message}");
    }
    let imatrix = read("w.in_sketch", &[64, 2], f32, &broken).unwrap();
    let message = imatrix.feedback("w").unwrap_err().to_string();
    assert!(message.contains("tensor w: value 70 of its sketch is NaN"), "{message}");
    // Numbers that no sketch of these sums has.
    let absurd: Vec<f32> = (0..128).map(|i| sketch_signs(i / 64)[i % 64] * 3e38).collect();
    let imatrix = read("w.in_sketch", &[64, 2], f32, &absurd).unwrap();
    let message = imatrix.feedback("w").unwrap_err().to_string();
    assert!(message.contains("tensor w: its sketch is not of these sums: column 0"), "{message}");
}
