//! What a written file promises.

mod support;

use std::fs;
use std::ops::{ControlFlow, Range};
use std::path::Path;

use siskin::GgmlType;
use siskin::gguf::{Builder, GgufFile};
use siskin_convert::budget::{Budget, Size};
use siskin_convert::write::{Split, write};
use siskin_convert::{
    Error, Facts, FileType, GgufSource, Plan, PlanOptions, Progress, Result, Source, TensorDesc,
    TensorRule, WriteOptions,
};

use support::{Memory, table, weights};

fn go_on(_: Progress<'_>) -> ControlFlow<()> {
    ControlFlow::Continue(())
}

fn options(file_type: &str) -> PlanOptions {
    PlanOptions::new(FileType::from_name(file_type).expect(file_type))
}

fn quantize(source: &dyn Source, file_type: &str, out: &Path, to: &WriteOptions) -> Result<Plan> {
    let plan = Plan::new(source, &options(file_type), &table())?;
    write(source, &plan, &table(), out, to, &mut go_on)?;
    Ok(plan)
}

/// The names in a folder.
fn names(folder: &Path) -> Vec<String> {
    let entries = fs::read_dir(folder).expect("a folder");
    let mut names: Vec<_> =
        entries.map(|e| e.expect("an entry").file_name().to_string_lossy().into_owned()).collect();
    names.sort();
    names
}

fn error(result: Result<Plan>) -> String {
    result.expect_err("an error").to_string()
}

#[test]
fn the_bytes_do_not_depend_on_the_threads() {
    let folder = tempfile::tempdir().expect("a folder");
    let source = Memory::small();
    for file_type in ["q4_k_m", "q3_k_s", "q8_0", "bf16"] {
        let bytes = |threads| {
            let out = folder.path().join(format!("{file_type}-{threads}.gguf"));
            let to = WriteOptions { threads: Some(threads), ..WriteOptions::default() };
            quantize(&source, file_type, &out, &to).expect("written");
            fs::read(out).expect("bytes")
        };
        let one = bytes(1);
        assert!(bytes(2) == one && bytes(8) == one, "{file_type}");
    }
}

#[test]
fn what_is_written_is_what_was_planned() {
    let folder = tempfile::tempdir().expect("a folder");
    let out = folder.path().join("a.gguf");
    let source = Memory::small();
    let plan = quantize(&source, "q8_0", &out, &WriteOptions::default()).expect("written");
    let file = GgufFile::open(&out).expect("a file");
    assert_eq!(file.metadata().u32("general.file_type").expect("a number"), Some(7));
    assert_eq!(file.tensors().len(), source.tensors.len());
    for ((tensor, ty), values) in source.tensors.iter().zip(&plan.types).zip(&source.values) {
        let found = file.tensor(&tensor.name).expect("a tensor");
        assert_eq!((&found.shape, found.ty), (&tensor.shape, *ty), "{}", tensor.name);
        let mut want = vec![0; found.n_bytes as usize];
        table().quantize(*ty, values, None, &mut want).expect("whole blocks");
        assert!(file.tensor_data(found) == want, "{}", tensor.name);
    }
}

#[test]
fn a_file_in_parts_has_the_same_tensors() {
    let folder = tempfile::tempdir().expect("a folder");
    let source = Memory::small();
    let (one, parts) = (folder.path().join("one.gguf"), folder.path().join("parts.gguf"));
    quantize(&source, "q4_k_m", &one, &WriteOptions::default()).expect("written");
    let to = WriteOptions { split: Split::Bytes(40_000), ..WriteOptions::default() };
    quantize(&source, "q4_k_m", &parts, &to).expect("written");
    let first = names(folder.path()).into_iter().find(|n| n.starts_with("parts-00001"));
    let parts = GgufFile::open(folder.path().join(first.expect("a first part"))).expect("a file");
    let one = GgufFile::open(&one).expect("a file");
    assert!(parts.n_parts() > 2, "{}", parts.n_parts());
    for tensor in one.tensors() {
        let other = parts.tensor(&tensor.name).expect("a tensor");
        assert!(one.tensor_data(tensor) == parts.tensor_data(other), "{}", tensor.name);
    }
    // And back to one file.
    let again = folder.path().join("again.gguf");
    let source = GgufSource::new(parts).expect("a source");
    quantize(&source, "q4_k_m", &again, &WriteOptions::default()).expect("written");
    let (again, one) = (fs::read(again), fs::read(folder.path().join("one.gguf")));
    assert!(again.expect("bytes") == one.expect("bytes"));
}

#[test]
fn a_file_that_is_there_stays_unless_it_may_be_replaced() {
    let folder = tempfile::tempdir().expect("a folder");
    let out = folder.path().join("a.gguf");
    fs::write(&out, "precious").expect("written");
    let source = Memory::small();
    let refused = error(quantize(&source, "q8_0", &out, &WriteOptions::default()));
    assert!(refused.contains("a.gguf") && refused.contains("--force"), "{refused}");
    assert_eq!(fs::read(&out).expect("bytes"), b"precious");
    let to = WriteOptions { overwrite: true, ..WriteOptions::default() };
    quantize(&source, "q8_0", &out, &to).expect("written");
    assert!(GgufFile::open(&out).is_ok());
}

#[test]
fn a_weight_that_is_no_number_is_named() {
    let folder = tempfile::tempdir().expect("a folder");
    let out = folder.path().join("a.gguf");
    fs::write(&out, "precious").expect("written");
    for (value, shown) in [(f32::NAN, "NaN"), (f32::NEG_INFINITY, "-inf")] {
        for (at, name) in [(5, "blk.1.ffn_up.weight"), (1, "blk.0.attn_norm.weight")] {
            let mut source = Memory::small();
            let i = source.tensors.iter().position(|t| t.name == name).expect("a tensor");
            source.values[i][(at - 1) * 256 + 7] = value;
            let to = WriteOptions { overwrite: true, ..WriteOptions::default() };
            let error = error(quantize(&source, "q4_k_m", &out, &to));
            let row = format!("row {}, column 7", at - 1);
            for part in ["source", name, &row, shown] {
                assert!(error.contains(part), "{part}: {error}");
            }
        }
    }
    assert_eq!(fs::read(&out).expect("bytes"), b"precious");
    assert_eq!(names(folder.path()), ["a.gguf"]);
}

#[test]
fn a_value_that_f16_cannot_hold_is_named() {
    let folder = tempfile::tempdir().expect("a folder");
    let out = folder.path().join("a.gguf");
    let mut source = Memory::small();
    source.values[0][300] = 70000.0;
    let refused = error(quantize(&source, "f16", &out, &WriteOptions::default()));
    assert!(refused.contains("token_embd.weight") && refused.contains("row 1, column 44"));
    quantize(&source, "bf16", &out, &WriteOptions::default()).expect("BF16 holds it");
    assert_eq!(names(folder.path()), ["a.gguf"]);
}

#[test]
fn cancelling_leaves_nothing() {
    let folder = tempfile::tempdir().expect("a folder");
    let out = folder.path().join("a.gguf");
    let source = Memory::small();
    let plan = Plan::new(&source, &options("q8_0"), &table()).expect("a plan");
    let cancel = &mut |_: Progress<'_>| ControlFlow::Break(());
    let ended = write(&source, &plan, &table(), &out, &WriteOptions::default(), cancel);
    assert!(matches!(ended, Err(Error::Cancelled)));
    assert!(names(folder.path()).is_empty());
}

#[test]
fn quantized_tensors_are_copied_but_not_quantized_again() {
    let folder = tempfile::tempdir().expect("a folder");
    let (first, second) = (folder.path().join("a.gguf"), folder.path().join("b.gguf"));
    quantize(&Memory::small(), "q4_k_m", &first, &WriteOptions::default()).expect("written");
    let source = GgufSource::open(&first).expect("a source");
    let refused = error(quantize(&source, "q3_k_m", &second, &WriteOptions::default()));
    for part in ["a.gguf", "attn_q.weight", "--allow-requantize"] {
        assert!(refused.contains(part), "{part}: {refused}");
    }
    assert_eq!(names(folder.path()), ["a.gguf"]);
    let options = PlanOptions { requantize: true, ..options("q3_k_m") };
    let plan = Plan::new(&source, &options, &table()).expect("a plan");
    write(&source, &plan, &table(), &second, &WriteOptions::default(), &mut go_on)
        .expect("written");
    assert_eq!(
        GgufFile::open(&second).expect("a file").tensor("blk.1.attn_q.weight").map(|t| t.ty),
        Some(GgmlType::Q3_K)
    );
}

#[test]
fn tensors_can_be_given_types_by_name() {
    let source = Memory::small();
    let rules = ["blk\\.0\\.ffn_(up|down)=q5_1", "ffn=q8_0"];
    let rules = rules.map(|r| TensorRule::parse(r).expect("a rule")).to_vec();
    let plan =
        Plan::new(&source, &PlanOptions { rules, ..options("q4_k_s") }, &table()).expect("a plan");
    let of = |name: &str| {
        let i = source.tensors.iter().position(|t| t.name == name).expect("a tensor");
        plan.types[i]
    };
    assert_eq!(of("blk.0.ffn_up.weight"), GgmlType::Q5_1);
    assert_eq!(of("blk.1.ffn_down.weight"), GgmlType::Q8_0);
    assert_eq!(of("blk.1.attn_q.weight"), GgmlType::Q4_K);
    assert_eq!(of("blk.1.attn_norm.weight"), GgmlType::F32);
    for wrong in ["ffn", "ffn=q9", "(=q8_0", "ffn=q8_k"] {
        let error = TensorRule::parse(wrong).expect_err("refused").to_string();
        assert!(error.contains('`'), "{error}");
    }
    let rules = vec![TensorRule::parse("no_such=q8_0").expect("a rule")];
    let refused = Plan::new(&source, &PlanOptions { rules, ..options("q4_k_s") }, &table());
    assert!(refused.expect_err("refused").to_string().contains("no_such"));
}

#[test]
fn the_smallest_types_want_an_importance_matrix() {
    let mut source = Memory::llama(1);
    source.tensor("blk.0.attn_q.weight", &[256, 4], weights(1, 1024));
    let refused =
        Plan::new(&source, &options("iq2_xs"), &table()).expect_err("refused").to_string();
    assert!(refused.contains("--imatrix") && refused.contains("blk.0.attn_q.weight"), "{refused}");
}

/// Far more rows than memory should be used for at a time.
struct Endless {
    tensors: Vec<TensorDesc>,
    facts: Facts,
}

impl Source for Endless {
    fn path(&self) -> &Path {
        Path::new("endless")
    }
    fn facts(&self) -> &Facts {
        &self.facts
    }
    fn tensors(&self) -> &[TensorDesc] {
        &self.tensors
    }
    fn metadata(&self, to: &mut Builder) -> Result<()> {
        Ok(to.put("general.architecture", "llama")?)
    }
    fn read(&self, _: usize, rows: Range<u64>, out: &mut [f32]) -> Result<()> {
        let values = (rows.end - rows.start) as usize * self.tensors[0].cols();
        assert_eq!(out.len(), values);
        assert!(values <= 128 * 1024, "{values} values are asked for at once");
        out.fill(0.5);
        Ok(())
    }
}

#[test]
fn a_tensor_is_read_in_slices() {
    let desc = |rows| TensorDesc {
        name: "blk.0.attn_q.weight".into(),
        shape: vec![1024, rows],
        ty: GgmlType::F32,
    };
    let folder = tempfile::tempdir().expect("a folder");
    let source = Endless { tensors: vec![desc(2000)], facts: Facts::default() };
    quantize(&source, "q8_0", &folder.path().join("a.gguf"), &WriteOptions::default())
        .expect("written");
}

#[test]
fn each_expert_has_an_importance_of_its_own() {
    let folder = tempfile::tempdir().expect("a folder");
    let out = folder.path().join("a.gguf");
    let (cols, rows, experts) = (256, 40, 3);
    let mut source = Memory::llama(1);
    let values = weights(3, cols * rows * experts);
    let shape = [cols as u64, rows as u64, experts as u64];
    source.tensor("blk.0.ffn_up_exps.weight", &shape, values.clone());
    let importance: Vec<f32> = weights(4, cols * experts).iter().map(|x| x.abs()).collect();
    let to = WriteOptions { importance: vec![Some(importance.clone())], ..Default::default() };
    let plan = Plan::new(&source, &options("q4_k_s"), &table()).expect("a plan");
    write(&source, &plan, &table(), &out, &to, &mut go_on).expect("written");
    let file = GgufFile::open(&out).expect("a file");
    let data = file.tensor_data(&file.tensors()[0]);
    let bytes = data.len() / experts;
    let parts = values.chunks_exact(cols * rows).zip(importance.chunks_exact(cols));
    for ((x, importance), found) in parts.zip(data.chunks_exact(bytes)) {
        let mut want = vec![0; bytes];
        table().quantize(plan.types[0], x, Some(importance), &mut want).expect("whole blocks");
        assert!(found == want);
    }
    // As many importances as fit neither the columns nor the experts' are refused.
    let to = WriteOptions { importance: vec![Some(vec![1.0; cols + 1])], overwrite: true, ..to };
    let refused = write(&source, &plan, &table(), &out, &to, &mut go_on).expect_err("refused");
    assert!(refused.to_string().contains("blk.0.ffn_up_exps.weight"), "{refused}");
}

#[test]
fn another_alignment_of_the_source_is_not_kept() {
    let folder = tempfile::tempdir().expect("a folder");
    let (first, out) = (folder.path().join("a.gguf"), folder.path().join("b.gguf"));
    let mut builder = Builder::new();
    builder.alignment(4096).expect("a power of two");
    builder.put("general.architecture", "llama").expect("a key");
    builder.tensor("blk.0.attn_q.weight", GgmlType::F32, &[256, 2]).expect("a tensor");
    let mut writer = builder.create(&first).expect("a file");
    writer.write(&[0; 2048]).expect("written");
    writer.commit().expect("written");
    let source = GgufSource::open(&first).expect("a source");
    let size = Size::Bytes(1400);
    let budget = Budget { size, importance: &[], sketches: None, keys: &[], threads: Some(1) };
    let (plan, _) =
        Plan::for_size(&source, &options("f32"), &budget, &table(), &|_, _| true).expect("a plan");
    write(&source, &plan, &table(), &out, &WriteOptions::default(), &mut go_on).expect("written");
    assert!(fs::metadata(&out).expect("a file").len() <= 1400);
}
