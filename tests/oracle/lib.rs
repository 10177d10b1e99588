//! Differential tests: what Siskin reads of a GGUF file against what gguf-rs 0.1.8 reads.
//!
//! `cargo test --manifest-path tests/oracle/Cargo.toml` runs them; the real models at hand are read
//! as well. Where the two are known to differ is listed in the tests.
#![cfg(test)]

#[path = "../gguf/folder.rs"]
mod folder;

use std::collections::BTreeMap;
use std::io::Cursor;
use std::path::{Path, PathBuf};

use gguf_rs::{GGUFContainer, GGUFModel};
use serde_json::Value as Json;
use siskin::GgmlType;
use siskin::gguf::{Builder, ByteOrder, GgufFile, TensorInfo, Value, ValueType};

/// Types whose tensors gguf-rs gives a wrong size: it takes all types but F32, F16 and the first
/// quantized ones for blocks of 256.
const WRONG_SIZES: &[GgmlType] = &[
    GgmlType::Q8_1,
    GgmlType::IQ4_NL,
    GgmlType::I8,
    GgmlType::I16,
    GgmlType::I32,
    GgmlType::I64,
    GgmlType::F64,
    GgmlType::BF16,
    GgmlType::MXFP4,
];

/// Types that gguf-rs does not know. At the first, 40, it panics.
const UNKNOWN: &[GgmlType] = &[GgmlType::NVFP4, GgmlType::Q1_0, GgmlType::Q2_0];

/// What gguf-rs reads. The byte order is given: for big-endian files it expects the magic turned
/// round, which no other program writes.
fn theirs(bytes: &[u8], order: ByteOrder) -> Result<GGUFModel, String> {
    let order = match order {
        ByteOrder::Little => gguf_rs::ByteOrder::LE,
        ByteOrder::Big => gguf_rs::ByteOrder::BE,
    };
    let reader = Box::new(Cursor::new(bytes[4..].to_vec()));
    GGUFContainer::new(order, reader, u64::MAX).decode().map_err(|e| e.to_string())
}

/// A value as gguf-rs presents it: integers lose their width, strings what is not UTF-8.
fn json(value: Value<'_>) -> Json {
    match value {
        Value::U8(x) => x.into(),
        Value::I8(x) => x.into(),
        Value::U16(x) => x.into(),
        Value::I16(x) => x.into(),
        Value::U32(x) => x.into(),
        Value::I32(x) => x.into(),
        Value::U64(x) => x.into(),
        Value::I64(x) => x.into(),
        Value::F32(x) => x.into(),
        Value::F64(x) => x.into(),
        Value::Bool(x) => x.into(),
        Value::String(x) => String::from_utf8_lossy(x).into(),
        Value::Array(x) => x.iter().map(json).collect(),
    }
}

/// Whether gguf-rs can read the file at all.
fn has_what_it_lacks(file: &GgufFile) -> bool {
    let nested =
        |v: Value<'_>| matches!(v, Value::Array(x) if x.element_type() == ValueType::Array);
    file.tensors().iter().any(|t| UNKNOWN.contains(&t.ty))
        || file.metadata().iter().any(|(_, v)| nested(v))
}

fn same_tensor(ours: &TensorInfo, theirs: &gguf_rs::Tensor, data: u64) {
    assert_eq!(ours.name, theirs.name);
    assert_eq!(ours.ty as u32, theirs.kind, "{}", ours.name);
    // A tensor without dimensions is one number.
    let shape = if theirs.shape.is_empty() { &[1][..] } else { &theirs.shape };
    assert_eq!(ours.shape, shape, "{}", ours.name);
    assert_eq!(ours.offset, data + theirs.offset, "{}", ours.name);
    if !WRONG_SIZES.contains(&ours.ty) {
        assert_eq!(ours.n_bytes, theirs.size, "{} {}", ours.name, ours.ty);
    }
}

/// Holds that both read the same of a file that Siskin accepts.
fn same(file: &GgufFile, theirs: &GGUFModel) {
    let ours: BTreeMap<String, Json> =
        file.metadata().iter().map(|(key, value)| (key.to_string(), json(value))).collect();
    assert_eq!(file.metadata().len(), theirs.metadata().len());
    for (key, value) in &ours {
        // Not as two maps: a vocabulary makes a message of megabytes.
        assert!(theirs.metadata().get(key) == Some(value), "{key} differs");
    }
    assert_eq!(format!("v{}", file.version()), theirs.get_version());
    assert_eq!(file.tensors().len(), theirs.tensors().len());
    for (a, b) in file.tensors().iter().zip(theirs.tensors()) {
        same_tensor(a, b, theirs.data_offset());
    }
}

/// A file with values of every kind that gguf-rs reads, and tensors of `types`.
fn sample(version: u32, order: ByteOrder, types: &[GgmlType]) -> Vec<u8> {
    fill(Builder::with_format(version, order).unwrap(), types).unwrap()
}

fn fill(mut b: Builder, types: &[GgmlType]) -> siskin::Result<Vec<u8>> {
    b.alignment(64)?;
    b.put("general.architecture", "llama")?;
    b.put("u8", &200u8)?;
    b.put("i8", &-100i8)?;
    b.put("u16", &60_000u16)?;
    b.put("i16", &-30_000i16)?;
    b.put("u32", &4_000_000_000u32)?;
    b.put("i32", &-2_000_000_000i32)?;
    b.put("u64", &u64::MAX)?;
    b.put("i64", &i64::MIN)?;
    b.put("f32", &1.1f32)?;
    b.put("f64", &-1e300f64)?;
    b.put("nan", &f32::NAN)?;
    b.put("bool", &true)?;
    b.put("empty", "")?;
    b.put("strings", &["a", "", "ü", "<0x0A>"][..])?;
    b.put("numbers", &[1i16, -1, 300][..])?;
    b.put("floats", &[0.5f32, -0.0, f32::INFINITY][..])?;
    b.put("flags", &[true, false][..])?;
    b.put("none", &[0u32; 0][..])?;
    for ty in types {
        b.tensor(ty.name(), *ty, &[512, 3])?;
    }
    let mut writer = b.start(Vec::new())?;
    for ty in types {
        writer.tensor(ty.name(), &vec![7; 3 * ty.row_bytes(512).unwrap()])?;
    }
    writer.finish()
}

/// The GGUF files of a folder.
fn files(folder: &Path) -> Vec<PathBuf> {
    let entries = std::fs::read_dir(folder).unwrap_or_else(|e| panic!("{}: {e}", folder.display()));
    let mut files: Vec<PathBuf> = entries
        .map(|entry| entry.unwrap().path())
        .filter(|path| path.extension().is_some_and(|e| e == "gguf"))
        .collect();
    assert!(!files.is_empty(), "no GGUF files in {}", folder.display());
    files.sort();
    files
}

/// Those of the repository, and the real models at hand.
fn fixtures() -> Vec<PathBuf> {
    let mut all = files(&Path::new(env!("CARGO_MANIFEST_DIR")).join("../data/archs"));
    all.extend(folder::models().into_iter().map(|model| model.path));
    all
}

#[test]
fn both_read_the_same_of_every_kind_of_value_in_either_order_and_version() {
    let types: Vec<_> = GgmlType::ALL.iter().copied().filter(|ty| !UNKNOWN.contains(ty)).collect();
    for version in [2, 3] {
        for order in [ByteOrder::Little, ByteOrder::Big] {
            let bytes = sample(version, order, &types);
            same(&GgufFile::from_bytes(bytes.clone()).unwrap(), &theirs(&bytes, order).unwrap());
        }
    }
}

#[test]
fn both_read_the_same_of_models() {
    for path in fixtures() {
        let file = GgufFile::open(&path).unwrap();
        let mut container =
            gguf_rs::get_gguf_container_array_size(path.to_str().unwrap(), u64::MAX).unwrap();
        same(&file, &container.decode().unwrap());
    }
}

#[test]
fn sizes_of_tensors_are_the_same_but_for_the_listed_types() {
    for ty in GgmlType::ALL.iter().copied().filter(|ty| !UNKNOWN.contains(ty)) {
        let bytes = sample(3, ByteOrder::Little, &[ty]);
        let theirs = theirs(&bytes, ByteOrder::Little).unwrap().tensors()[0].size;
        let right = 3 * ty.row_bytes(512).unwrap() as u64;
        assert_eq!(theirs != right, WRONG_SIZES.contains(&ty), "{ty}: {theirs}, not {right}");
    }
}

#[test]
fn types_that_gguf_rs_does_not_know_are_read_by_siskin() {
    for ty in UNKNOWN {
        let bytes = sample(3, ByteOrder::Little, &[*ty]);
        assert_eq!(GgufFile::from_bytes(bytes.clone()).unwrap().tensors()[0].ty, *ty);
        let theirs = std::panic::catch_unwind(|| theirs(&bytes, ByteOrder::Little).is_ok());
        assert!(!matches!(theirs, Ok(true)), "{ty} is known by now");
    }
}

#[test]
fn what_siskin_accepts_of_damaged_files_gguf_rs_reads_alike() {
    let types = [GgmlType::F32, GgmlType::Q4_0, GgmlType::Q6_K];
    for order in [ByteOrder::Little, ByteOrder::Big] {
        let whole = sample(3, order, &types);
        let header = GgufFile::from_bytes(whole.clone()).unwrap().tensors()[0].offset as usize;
        let mut random = 0x9e37_79b9_7f4a_7c15u64;
        let mut accepted = 0;
        for _ in 0..20_000 {
            let mut bytes = whole.clone();
            random = random.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1);
            let at = 8 + (random >> 33) as usize % (header - 8);
            bytes[at] ^= 1 << (random >> 29 & 7);
            let Ok(file) = GgufFile::from_bytes(bytes.clone()) else { continue };
            if !has_what_it_lacks(&file) {
                accepted += 1;
                same(&file, &theirs(&bytes, order).unwrap());
            }
        }
        assert!(accepted > 1000, "{accepted}");
    }
}

#[test]
fn files_that_gguf_rs_accepts_and_should_not_are_refused() {
    let whole = sample(3, ByteOrder::Little, &[GgmlType::F32, GgmlType::F16]);
    let find = |what: &[u8]| whole.windows(what.len()).position(|w| w == what).unwrap();
    let with = |at: usize, new: &[u8]| {
        let mut bytes = whole.clone();
        bytes[at..at + new.len()].copy_from_slice(new);
        bytes
    };
    // Of the first tensor: the name, the number of dimensions, two of them, the type, the offset.
    let dims = find(b"\x03\0\0\0\0\0\0\0F32\x02") + 8 + 3 + 4;
    let cases = [
        ("a key twice", with(find(b"i16"), b"u16")),
        ("a tensor twice", with(dims - 7, b"F16")),
        ("a tensor of 4 TiB", with(dims + 8, &(1u64 << 31).to_le_bytes())),
        ("tensors that overlap", with(dims + 8, &4u64.to_le_bytes())),
        ("a removed type", with(dims + 16, &31u32.to_le_bytes())),
        ("an offset that is not aligned", with(dims + 20, &1u64.to_le_bytes())),
        ("no data", whole[..whole.len() - 1].to_vec()),
    ];
    for (name, bytes) in cases {
        assert!(theirs(&bytes, ByteOrder::Little).is_ok(), "{name}: gguf-rs refuses it by now");
        assert!(GgufFile::from_bytes(bytes).is_err(), "{name}");
    }
}
