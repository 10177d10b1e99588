//! Files in parts: all are opened, whichever is named, and what does not fit is refused by name.

use std::path::{Path, PathBuf};

use siskin::gguf::{Builder, ByteOrder, GgufFile, split_name};
use siskin::{Error, GgmlType};

/// What one part says of itself.
#[derive(Clone, Copy)]
struct Part {
    no: u32,
    count: u32,
    total: u32,
    order: ByteOrder,
    tensor: &'static str,
}

fn part(no: u32, tensor: &'static str) -> Part {
    Part { no, count: 3, total: 3, order: ByteOrder::Little, tensor }
}

fn good() -> [Part; 3] {
    [part(0, "a"), part(1, "b"), part(2, "c")]
}

fn write(path: &Path, part: Part) {
    let mut b = Builder::with_format(3, part.order).expect("version 3");
    if part.no == 0 {
        b.put("general.architecture", "llama").expect("a key");
    }
    b.put("split.no", &(part.no as u16)).expect("a key");
    b.put("split.count", &(part.count as u16)).expect("a key");
    b.put("split.tensors.count", &(part.total as i32)).expect("a key");
    b.tensor(part.tensor, GgmlType::I8, &[4]).expect("a tensor");
    let mut writer = b.create(path).expect("a file");
    writer.tensor(part.tensor, &[part.no as u8; 4]).expect("data");
    writer.commit().expect("a file");
}

fn write_all(folder: &Path, parts: &[Part]) -> Vec<PathBuf> {
    let path = |i: usize| folder.join(split_name("model-q4", i as u64 + 1, 3));
    let paths: Vec<PathBuf> = (0..parts.len()).map(path).collect();
    paths.iter().zip(parts).for_each(|(path, part)| write(path, *part));
    paths
}

#[test]
fn every_part_opens_the_whole() {
    let folder = tempfile::tempdir().expect("a folder");
    for path in write_all(folder.path(), &good()) {
        let file = GgufFile::open(&path).expect("all parts");
        assert_eq!(file.n_parts(), 3);
        assert_eq!(file.metadata().str("general.architecture").expect("a string"), Some("llama"));
        for (i, name) in ["a", "b", "c"].iter().enumerate() {
            let tensor = file.tensor(name).expect("a tensor");
            assert_eq!(tensor.part, i);
            assert_eq!(file.tensor_data(tensor), [i as u8; 4]);
            let (map, range) = file.tensor_map(tensor);
            assert_eq!(&map[range], [i as u8; 4]);
        }
        let sizes = std::fs::read_dir(folder.path()).expect("a folder");
        let bytes: u64 = sizes.map(|f| f.expect("a file").metadata().expect("size").len()).sum();
        assert_eq!(file.file_bytes(), bytes);
    }
}

#[test]
fn parts_that_do_not_fit_are_refused_with_the_part_named() {
    let change = |i: usize, f: fn(&mut Part)| {
        let mut parts = good();
        f(&mut parts[i]);
        parts
    };
    let cases = [
        (
            "a tensor in two parts",
            change(2, |p| p.tensor = "a"),
            "00003",
            "tensor a is there twice",
        ),
        ("a part of another count", change(1, |p| p.count = 4), "00002", "split.count is 4"),
        ("a part under another's name", change(1, |p| p.no = 2), "00002", "split.no is 2"),
        ("too few tensors", change(0, |p| p.total = 5), "00001", "split.tensors.count is 5"),
        ("another byte order", change(2, |p| p.order = ByteOrder::Big), "00003", "byte order"),
    ];
    for (name, parts, file, want) in cases {
        let folder = tempfile::tempdir().expect("a folder");
        let paths = write_all(folder.path(), &parts);
        match GgufFile::open(&paths[0]) {
            Err(Error::Gguf { path, reason, .. }) => {
                assert!(path.to_string_lossy().contains(file), "{name}: {}", path.display());
                assert!(reason.contains(want), "{name}: {reason}");
            }
            other => panic!("{name}: {other:?}"),
        }
    }
}

#[test]
fn a_missing_part_is_named() {
    let folder = tempfile::tempdir().expect("a folder");
    let paths = write_all(folder.path(), &good());
    std::fs::remove_file(&paths[1]).expect("removed");
    for path in [&paths[0], &paths[2]] {
        let error = GgufFile::open(path).expect_err("a part is missing").to_string();
        assert!(error.contains("part 2 of 3 is missing"), "{error}");
        assert!(error.contains("model-q4-00002-of-00003.gguf"), "{error}");
    }
}

#[test]
fn a_part_that_was_renamed_says_what_its_name_must_be() {
    let folder = tempfile::tempdir().expect("a folder");
    for name in ["model.gguf", "model-00002-of-00003.gguf", "model-00001-of-00004.gguf"] {
        let path = folder.path().join(name);
        write(&path, part(0, "a"));
        let error = GgufFile::open(&path).expect_err("the wrong name").to_string();
        assert!(error.contains("part 1 of 3"), "{name}: {error}");
        assert!(error.contains("NAME-00001-of-00003.gguf"), "{name}: {error}");
    }
}

#[test]
fn a_whole_file_may_have_the_name_of_a_part() {
    let folder = tempfile::tempdir().expect("a folder");
    let path = folder.path().join("model-00001-of-00002.gguf");
    Builder::new().create(&path).expect("a file").commit().expect("a file");
    assert_eq!(GgufFile::open(&path).expect("a whole file").n_parts(), 1);
}
