//! Files of importance matrices: what is written is read again, and any bytes give a result or an
//! error.

use std::panic::catch_unwind;

use siskin::GgmlType;
use siskin::gguf::{Builder, ByteOrder, GgufFile};
use siskin::model::InputSums;
use siskin_convert::{Imatrix, Result};

fn collected(tensors: &[&str], sums: &[f64], tokens: u64) -> InputSums {
    let tensors = tensors.iter().map(|name| name.to_string()).collect();
    InputSums { tensors, sums: sums.to_vec(), sketch: Vec::new(), tokens }
}

fn sample() -> Imatrix {
    let mut imatrix = Imatrix::new("sample", 8);
    let inputs = [
        collected(&["blk.0.attn_q.weight", "blk.0.attn_k.weight"], &[1.5, 0.0, 64.0], 16),
        collected(&["blk.0.ffn_down.weight"], &[2.0, 4.0], 16),
    ];
    imatrix.add_collected(inputs).unwrap();
    imatrix.datasets.push("text.txt".to_string());
    imatrix
}

/// A GGUF file of F32 tensors.
fn gguf(tensors: &[(&str, &[u64], &[f32])], put: impl Fn(&mut Builder)) -> Vec<u8> {
    let mut builder = Builder::new();
    put(&mut builder);
    for (name, shape, _) in tensors {
        builder.tensor(name, GgmlType::F32, shape).unwrap();
    }
    let mut writer = builder.start(Vec::new()).unwrap();
    for (name, _, values) in tensors {
        let bytes: Vec<u8> = values.iter().flat_map(|x| x.to_le_bytes()).collect();
        writer.tensor(name, &bytes).unwrap();
    }
    writer.finish().unwrap()
}

/// A file of llama.cpp's first format.
fn legacy(entries: &[(&str, i32, &[f32])], tail: &[u8]) -> Vec<u8> {
    let mut bytes = (entries.len() as i32).to_le_bytes().to_vec();
    for (name, chunks, values) in entries {
        bytes.extend((name.len() as i32).to_le_bytes());
        bytes.extend(name.as_bytes());
        bytes.extend(chunks.to_le_bytes());
        bytes.extend((values.len() as i32).to_le_bytes());
        bytes.extend(values.iter().flat_map(|x| x.to_le_bytes()));
    }
    bytes.extend(tail);
    bytes
}

fn error(result: Result<Imatrix>) -> String {
    result.expect_err("an error").to_string()
}

#[test]
fn what_is_written_is_read_again() {
    let folder = tempfile::tempdir().unwrap();
    let paths = ["a.gguf", "b.gguf"].map(|name| folder.path().join(name));
    let imatrix = sample();
    imatrix.save(&paths[0]).unwrap();
    let read = Imatrix::open(&paths[0]).unwrap();
    assert!(read.entries().eq(imatrix.entries()));
    assert_eq!(read.datasets, ["text.txt"]);
    assert_eq!((read.chunk_size(), read.chunk_count()), (8, 2));
    read.save(&paths[1]).unwrap();
    let bytes = paths.map(|path| std::fs::read(path).unwrap());
    assert!(bytes[0] == bytes[1]);
}

#[test]
fn a_file_is_laid_out_as_llama_cpp_lays_it_out() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("a.gguf");
    sample().save(&path).unwrap();
    let file = GgufFile::open(&path).unwrap();
    let metadata = file.metadata();
    assert_eq!(metadata.str("general.type").unwrap(), Some("imatrix"));
    assert_eq!(metadata.u32("imatrix.chunk_count").unwrap(), Some(2));
    assert_eq!(metadata.u32("imatrix.chunk_size").unwrap(), Some(8));
    let datasets = metadata.array("imatrix.datasets").unwrap().unwrap();
    assert!(datasets.iter_bytes().eq([b"text.txt"]));
    let tensors: Vec<_> =
        file.tensors().iter().map(|t| (t.name.as_str(), t.shape.clone(), t.ty)).collect();
    let pair = |name: &'static [&'static str; 2], cols: u64| {
        [(name[0], vec![cols, 1], GgmlType::F32), (name[1], vec![1, 1], GgmlType::F32)]
    };
    let want = [
        pair(&["blk.0.attn_k.weight.in_sum2", "blk.0.attn_k.weight.counts"], 3),
        pair(&["blk.0.attn_q.weight.in_sum2", "blk.0.attn_q.weight.counts"], 3),
        pair(&["blk.0.ffn_down.weight.in_sum2", "blk.0.ffn_down.weight.counts"], 2),
    ];
    assert_eq!(tensors, want.concat());
}

#[test]
fn importance_is_the_mean_square_of_each_column() {
    let imatrix = sample();
    let importance = |name, cols| imatrix.importance(name, cols);
    assert_eq!(importance("blk.0.attn_q.weight", 3).unwrap().unwrap(), [1.5 / 16.0, 0.0, 4.0]);
    assert_eq!(importance("output.weight", 3).unwrap(), None);
    let message = importance("blk.0.ffn_down.weight", 3).unwrap_err().to_string();
    assert!(message.contains("sample: tensor blk.0.ffn_down.weight"), "{message}");
    assert!(message.contains("has 2 columns, the model 3"), "{message}");
}

#[test]
fn experts_have_counts_of_their_own_and_1_where_nothing_came_by() {
    let bytes = gguf(
        &[
            ("e.in_sum2", &[2, 3], &[2.0, 4.0, 0.0, 0.0, 9.0, 0.0]),
            ("e.counts", &[1, 3], &[2.0, 0.0, 3.0]),
            ("something.else", &[1], &[0.0]),
        ],
        |_| (),
    );
    let imatrix = Imatrix::from_bytes(bytes).unwrap();
    assert_eq!(imatrix.importance("e", 6).unwrap().unwrap(), [1.0, 2.0, 1.0, 1.0, 3.0, 0.0]);
    assert_eq!(imatrix.chunk_size(), 512);
    let (_, entry) = imatrix.entries().next().unwrap();
    let statistics = entry.statistics();
    assert_eq!((statistics.columns, statistics.tokens, statistics.unused), (6, 3, 1));
    assert_eq!((statistics.sum, statistics.min, statistics.max), (8.0, 0.0, 3.0));
    assert_eq!(statistics.active, 5.0 / 6.0);
}

#[test]
fn statistics_tell_even_use_from_uneven() {
    let entropy = |sums: &[f64]| {
        let mut imatrix = Imatrix::new("x", 1);
        imatrix.add_collected([collected(&["w"], sums, 1)]).unwrap();
        imatrix.entries().next().unwrap().1.statistics().entropy
    };
    assert!((entropy(&[3.0; 8]) - 1.0).abs() < 1e-12);
    assert_eq!(entropy(&[0.0, 0.0, 3.0, 0.0]), 0.0);
    assert_eq!(entropy(&[0.0; 4]), 0.0);
}

#[test]
fn a_big_endian_file_is_read() {
    let mut builder = Builder::with_format(3, ByteOrder::Big).unwrap();
    builder.tensor("w.in_sum2", GgmlType::F32, &[2, 1]).unwrap();
    builder.tensor("w.counts", GgmlType::F32, &[1, 1]).unwrap();
    let mut writer = builder.start(Vec::new()).unwrap();
    writer.write(&[3f32.to_be_bytes(), 5f32.to_be_bytes()].concat()).unwrap();
    writer.write(&2f32.to_be_bytes()).unwrap();
    let imatrix = Imatrix::from_bytes(writer.finish().unwrap()).unwrap();
    assert_eq!(imatrix.importance("w", 2).unwrap().unwrap(), [1.5, 2.5]);
}

#[test]
fn the_format_before_gguf_is_read() {
    let tail = [7i32.to_le_bytes().as_slice(), &4i32.to_le_bytes(), b"text"].concat();
    for (tail, datasets) in [(&[][..], &[][..]), (&tail, &["text".to_string()])] {
        let entries: [(&str, i32, &[f32]); 2] = [("a", 4, &[2.0, 8.0]), ("b", 0, &[3.0])];
        let imatrix = Imatrix::from_bytes(legacy(&entries, tail)).unwrap();
        assert_eq!(imatrix.importance("a", 2).unwrap().unwrap(), [0.5, 2.0]);
        assert_eq!(imatrix.importance("b", 1).unwrap().unwrap(), [3.0]);
        assert_eq!(imatrix.chunk_count(), 4);
        assert_eq!(imatrix.datasets, datasets);
    }
}

#[test]
fn merging_adds_sums_and_counts() {
    let mut imatrix = sample();
    imatrix.merge(&sample()).unwrap();
    let mut other = Imatrix::new("other", 8);
    other.add_collected([collected(&["output.weight"], &[1.0], 8)]).unwrap();
    imatrix.merge(&other).unwrap();
    let entries: Vec<_> = imatrix.entries().map(|(name, e)| (name, e.sums(), e.counts())).collect();
    let want: [(&str, &[f32], &[u64]); 4] = [
        ("blk.0.attn_k.weight", &[3.0, 0.0, 128.0], &[32]),
        ("blk.0.attn_q.weight", &[3.0, 0.0, 128.0], &[32]),
        ("blk.0.ffn_down.weight", &[4.0, 8.0], &[32]),
        ("output.weight", &[1.0], &[8]),
    ];
    assert_eq!(entries, want);
    assert_eq!(imatrix.chunk_count(), 4);
    assert_eq!(imatrix.datasets, ["text.txt", "text.txt"]);

    let mut other = Imatrix::new("other", 8);
    other.add_collected([collected(&["output.weight"], &[1.0, 2.0], 8)]).unwrap();
    let message = imatrix.merge(&other).unwrap_err().to_string();
    assert!(message.contains("other: tensor output.weight: there are 2 sums, but 1"), "{message}");
}

#[test]
fn one_count_stands_for_all_experts() {
    let experts =
        gguf(&[("e.in_sum2", &[1, 2], &[2.0, 4.0]), ("e.counts", &[1, 2], &[2.0, 3.0])], |_| ());
    let one = gguf(&[("e.in_sum2", &[2], &[1.0, 1.0]), ("e.counts", &[1], &[10.0])], |_| ());
    let [experts, one] = [experts, one].map(|bytes| Imatrix::from_bytes(bytes).unwrap());
    for (mut a, b) in [(experts.clone(), one.clone()), (one, experts)] {
        a.merge(&b).unwrap();
        let (_, entry) = a.entries().next().unwrap();
        assert_eq!((entry.sums(), entry.counts()), (&[3.0, 5.0][..], &[12, 13][..]));
    }
}

#[test]
fn what_is_wrong_is_named() {
    let sums: (&str, &[u64], &[f32]) = ("w.in_sum2", &[2, 1], &[1.0, 2.0]);
    let counts: (&str, &[u64], &[f32]) = ("w.counts", &[1, 1], &[1.0]);
    let file = |sums, counts| gguf(&[sums, counts], |_| ());
    let cases = [
        (gguf(&[counts], |_| ()), "w.in_sum2: it is missing"),
        (gguf(&[sums], |_| ()), "w.counts: it is missing"),
        (gguf(&[], |_| ()), "no tensors NAME.in_sum2"),
        (file(("w.in_sum2", &[2, 1], &[1.0, f32::NAN]), counts), "w: sum 1 is NaN"),
        (file(("w.in_sum2", &[2, 1], &[f32::INFINITY, 0.0]), counts), "w: sum 0 is inf"),
        (file(("w.in_sum2", &[2, 1], &[1.0, -2.0]), counts), "w: sum 1 is -2"),
        (file(sums, ("w.counts", &[1, 3], &[1.0; 3])), "2 sums of 3 matrices"),
        (file(sums, ("w.counts", &[1, 1], &[f32::NAN])), "w.counts: NaN is no count"),
        (file(sums, ("w.counts", &[1, 1], &[-1.0])), "w.counts: -1 is no count"),
        (
            gguf(&[sums, counts], |b| b.put("general.type", "model").unwrap()),
            "general.type is `model`",
        ),
        (
            gguf(&[sums, counts], |b| b.put("imatrix.chunk_size", &0u32).unwrap()),
            "imatrix.chunk_size is 0",
        ),
        (
            gguf(&[sums, counts], |b| b.put("imatrix.datasets", "x").unwrap()),
            "imatrix.datasets is a string",
        ),
        (Vec::new(), "4 bytes of the number of entries wanted, 0 left"),
        (legacy(&[], &[]), "it has no entries"),
        (legacy(&[("a", -1, &[1.0])], &[]), "the number of chunks is -1"),
        (legacy(&[("a", 1, &[])], &[]), "0 sums"),
        (legacy(&[("a", 1, &[f32::NAN])], &[]), "a: sum 0 is NaN"),
        (legacy(&[("a", 1, &[3e38])], &[]), "a: sum 0 is inf"),
        (legacy(&[("a", 1, &[1.0]), ("a", 1, &[1.0])], &[]), "a: it is there twice"),
        (legacy(&[("a", 1, &[1.0])], &[0; 3]), "the number of chunks wanted, 3 left"),
        (b"{\"model\": 1, \"text\": \"this is JSON\"}".to_vec(), "this is no importance matrix"),
        (vec![255; 100], "the number of entries is -1"),
    ];
    for (bytes, want) in cases {
        let message = error(Imatrix::from_bytes(bytes));
        assert!(message.contains(want), "{message}\nhas not\n{want}");
    }
    let mut imatrix = Imatrix::new("x.gguf", 1);
    let message =
        imatrix.add_collected([collected(&["w"], &[1.0, f64::NAN], 1)]).unwrap_err().to_string();
    assert_eq!(message, "x.gguf: tensor w: sum 1 is NaN, not the sum of squares");
}

#[test]
fn a_mutated_file_gives_a_result_or_an_error() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("a.gguf");
    sample().save(&path).unwrap();
    let entries: [(&str, i32, &[f32]); 2] = [("abc", 4, &[2.0, 8.0]), ("de", 1, &[3.0])];
    let check = |bytes: Vec<u8>| match Imatrix::from_bytes(bytes) {
        Ok(imatrix) => imatrix.entries().for_each(|(name, entry)| {
            let means = imatrix.importance(name, entry.sums().len()).unwrap().unwrap();
            assert!(means.iter().all(|x| x.is_finite() && *x >= 0.0));
            entry.statistics();
            let _ = imatrix.feedback(name);
        }),
        Err(error) => assert!(!error.to_string().is_empty()),
    };
    let signs = siskin::model::sketch_signs(0);
    let sketched = gguf(
        &[
            ("w.in_sum2", &[1, 1], &[3000.0]),
            ("w.counts", &[1, 1], &[2000.0]),
            ("w.in_sketch", &[64, 1], &signs.map(|sign| sign * 3000.0)),
        ],
        |_| (),
    );
    for good in [std::fs::read(&path).unwrap(), sketched, legacy(&entries, &[])] {
        for at in 0..good.len() {
            for change in [0x01, 0x80, 0xff] {
                let mut bytes = good.clone();
                bytes[at] ^= change;
                let read = catch_unwind(|| check(bytes));
                assert!(read.is_ok(), "byte {at} changed by {change:x}");
            }
            let read = catch_unwind(|| check(good[..at].to_vec()));
            assert!(read.is_ok(), "{at} bytes");
        }
    }
}
