//! Writing: what cannot be read is not written, and what is not whole leaves nothing behind.

use std::fs;
use std::io::Write;
use std::path::Path;

use siskin::gguf::{AtomicFile, Builder, ByteOrder, GgufFile, Value};
use siskin::{Error, GgmlType};

use crate::sample::realistic;

fn names(folder: &Path) -> Vec<String> {
    let entries = fs::read_dir(folder).expect("a folder");
    entries.map(|e| e.expect("a file").file_name().to_string_lossy().into_owned()).collect()
}

fn one_tensor() -> Builder {
    let mut b = Builder::new();
    b.tensor("t", GgmlType::I8, &[100]).expect("a tensor");
    b
}

#[test]
fn a_file_appears_when_it_is_whole() {
    let folder = tempfile::tempdir().expect("a folder");
    let path = folder.path().join("model.gguf");
    fs::write(&path, "what was there before").expect("written");
    let mut writer = one_tensor().create(&path).expect("a file");
    for chunk in [&[1u8; 30][..], &[2; 70]] {
        assert_eq!(fs::read(&path).expect("the old file"), b"what was there before");
        writer.write(chunk).expect("written");
    }
    writer.commit().expect("renamed");
    let file = GgufFile::open(&path).expect("a good file");
    let data = file.tensor_data(file.tensor("t").expect("a tensor"));
    assert_eq!((&data[..30], &data[30..]), (&[1; 30][..], &[2; 70][..]));
    assert_eq!(names(folder.path()), ["model.gguf"]);
}

#[test]
fn nothing_is_left_of_a_file_that_was_not_finished() {
    let folder = tempfile::tempdir().expect("a folder");
    let path = folder.path().join("model.gguf");
    fs::write(&path, "old").expect("written");
    drop(one_tensor().create(&path).expect("a file"));
    let mut writer = one_tensor().create(&path).expect("a file");
    writer.write(&[1; 99]).expect("written");
    let error = writer.commit().expect_err("one byte is missing").to_string();
    assert!(error.contains("1 bytes of t are not written"), "{error}");
    let mut file = AtomicFile::create(&path).expect("a file");
    file.write_all(&[0; 1 << 20]).expect("written");
    drop(file);
    assert_eq!(names(folder.path()), ["model.gguf"]);
    assert_eq!(fs::read(&path).expect("the old file"), b"old");
}

#[test]
fn a_target_that_cannot_be_replaced_stays() {
    let folder = tempfile::tempdir().expect("a folder");
    let path = folder.path().join("model.gguf");
    fs::create_dir_all(path.join("inside")).expect("a folder");
    let mut writer = one_tensor().create(&path).expect("a temporary file");
    writer.tensor("t", &[0; 100]).expect("written");
    let error = writer.commit().expect_err("the target is a folder");
    assert!(matches!(error, Error::Io { .. }) && error.to_string().contains("model.gguf"));
    assert_eq!(names(folder.path()), ["model.gguf"]);
    assert!(one_tensor().create(folder.path().join("none").join("model.gguf")).is_err());
    assert!(AtomicFile::create("/").is_err());
}

#[test]
fn what_the_reader_refuses_is_not_written() {
    type Step = fn(&mut Builder) -> siskin::Result<()>;
    let cases: &[(&str, Step)] = &[
        ("key k is there twice", |b| b.put("k", &1u8).and_then(|()| b.put("k", "x"))),
        ("tensor t is there twice", |b| {
            b.tensor("t", GgmlType::F32, &[1])?;
            b.tensor("t", GgmlType::F16, &[2])
        }),
        ("not a multiple of 256", |b| b.tensor("t", GgmlType::Q4_K, &[100])),
        ("no elements", |b| b.tensor("t", GgmlType::F32, &[4, 0])),
        ("no dimensions", |b| b.tensor("t", GgmlType::F32, &[])),
        ("5 dimensions", |b| b.tensor("t", GgmlType::F32, &[1; 5])),
        ("more than 2^63 bytes", |b| b.tensor("t", GgmlType::F32, &[1 << 40, 1 << 40])),
        ("larger than 2^64 bytes", |b| {
            b.tensor("a", GgmlType::F32, &[1 << 60])?;
            b.tensor("b", GgmlType::F32, &[1 << 60])?;
            b.tensor("c", GgmlType::F32, &[1 << 60])?;
            b.tensor("d", GgmlType::F32, &[1 << 60])
        }),
        ("set by `alignment`", |b| b.put("general.alignment", &32u32)),
        ("not a power of two", |b| b.alignment(24)),
        ("not a power of two", |b| b.put_value("general.alignment", Value::U64(4))),
        ("not an integer", |b| b.put_value("general.alignment", Value::F32(32.0))),
        ("key general.alignment is there twice", |b| {
            b.alignment(64).and_then(|()| b.alignment(64))
        }),
        ("before the first tensor", |b| {
            b.tensor("t", GgmlType::F32, &[1])?;
            b.alignment(64)
        }),
        ("more than 4 deep", |b| b.put("k", &vec![vec![vec![vec![vec![1u8]]]]])),
    ];
    for (want, step) in cases {
        match step(&mut Builder::new()) {
            Err(Error::Invalid(reason)) => assert!(reason.contains(want), "{want}: {reason}"),
            other => panic!("{want}: {other:?}"),
        }
    }
    assert!(Builder::with_format(1, ByteOrder::Little).is_err());
}

#[test]
fn data_that_does_not_fit_its_tensor_is_refused() {
    let mut writer = one_tensor().start(Vec::new()).expect("memory");
    assert_eq!(writer.next_tensor(), Some("t"));
    let cases = [
        (writer.tensor("u", &[0; 100]), "100 of t come next"),
        (writer.tensor("t", &[0; 99]), "99 bytes of t given"),
        (writer.write(&[0; 101]), "100 are left"),
    ];
    for (result, want) in cases {
        let error = result.expect_err(want).to_string();
        assert!(error.contains(want), "{want}: {error}");
    }
    writer.write(&[0; 100]).expect("the whole tensor");
    assert_eq!(writer.next_tensor(), None);
    assert!(writer.write(&[]).is_err());
    assert!(writer.tensor("t", &[0; 100]).is_err());
    let file = GgufFile::from_bytes(writer.finish().expect("whole")).expect("a good file");
    assert_eq!(file.tensors().len(), 1);
}

#[test]
fn the_same_content_gives_the_same_bytes() {
    for (version, order) in [(2, ByteOrder::Little), (3, ByteOrder::Little), (3, ByteOrder::Big)] {
        let original = realistic(version, order, 50);
        let file = GgufFile::from_bytes(original.clone()).expect("a good file");
        assert_eq!((file.version(), file.byte_order()), (version, order));
        let mut b = Builder::with_format(version, order).expect("the same");
        b.copy(file.metadata(), |_| true).expect("the same");
        for t in file.tensors() {
            b.tensor(&t.name, t.ty, &t.shape).expect("the same");
        }
        let mut writer = b.start(Vec::new()).expect("memory");
        for t in file.tensors() {
            writer.tensor(&t.name, file.tensor_data(t)).expect("the same");
        }
        assert!(writer.finish().expect("memory") == original, "{version} {order:?}");
    }
}
