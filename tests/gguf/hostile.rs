//! Files that lie: each is refused with the offset of the field that lies and the reason.

use siskin::Error;
use siskin::gguf::{ByteOrder, GgufFile};

use crate::alloc::most_held;
use crate::sample::{Raw, realistic};

#[derive(Clone)]
struct Case {
    name: &'static str,
    bytes: Vec<u8>,
    offset: u64,
    reason: &'static [&'static str],
}

fn case(name: &'static str, raw: Raw, offset: u64, reason: &'static [&'static str]) -> Case {
    Case { name, bytes: raw.0, offset, reason }
}

const F32: u32 = 0;
const Q4_K: u32 = 12;
const STRING: u32 = 8;
const ARRAY: u32 = 9;

/// One tensor `t`; its name begins at 24, its dimensions at 37.
fn tensor(shape: &[u64], ty: u32, offset: u64) -> Raw {
    Raw::head(1, 0).tensor("t", shape, ty, offset).data(32, 64)
}

fn two(a: (&str, u64), b: (&str, u64)) -> Raw {
    let raw = Raw::head(2, 0).tensor(a.0, &[8], F32, a.1).tensor(b.0, &[8], F32, b.1);
    raw.data(32, 64)
}

/// An array at key `a`; its value begins at 37.
fn array(ty: u32, len: u64) -> Raw {
    Raw::head(0, 1).string(b"a").u32(ARRAY).u32(ty).u64(len)
}

fn nested(depth: usize) -> Raw {
    (2..depth).fold(array(ARRAY, 1), |raw, _| raw.u32(ARRAY).u64(1)).u32(0).u64(0)
}

fn versions() -> Vec<Case> {
    let version = |v: [u8; 4]| Raw(b"GGUF".to_vec()).bytes(&v).u64(0).u64(0);
    vec![
        case("v1", version([1, 0, 0, 0]), 4, &["GGUF v1", "re-convert"]),
        case("v1 big-endian", version([0, 0, 0, 1]), 4, &["GGUF v1", "re-convert"]),
        case("v4", version([4, 0, 0, 0]), 4, &["version 4 is newer", "2 and 3"]),
        case("v9 big-endian", version([0, 0, 0, 9]), 4, &["version 9 (big-endian) is newer"]),
        case("v0", version([0; 4]), 4, &["0 is no version"]),
        case("no version", version([9, 9, 9, 9]), 4, &["is no version of GGUF in either"]),
    ]
}

fn counts() -> Vec<Case> {
    vec![
        case("2^64 - 1 keys", Raw::head(0, u64::MAX).data(1, 99), 16, &["number of keys", "99"]),
        case("more keys than bytes", Raw::head(0, 8).data(1, 99), 16, &["number of keys is 8"]),
        case("2^64 - 1 tensors", Raw::head(u64::MAX, 0).data(1, 99), 8, &["number of tensors"]),
        case("more tensors than bytes", Raw::head(9, 0).data(1, 99), 8, &["is 9, too many"]),
        case(
            "more tensors than bytes after the keys",
            Raw::head(3, 1).string(b"k").u32(STRING).string(&[0; 90]),
            8,
            &["is 3, too many", "after the keys"],
        ),
    ]
}

fn pairs() -> Vec<Case> {
    vec![
        case(
            "key of 2^64 - 1 bytes",
            Raw::head(0, 1).u64(u64::MAX).data(1, 20),
            24,
            &["the length of a key is 18446744073709551615", "20 bytes are left"],
        ),
        case(
            "key that is not UTF-8",
            Raw::head(0, 1).string(b"ab\xff").u32(4).u32(0),
            34,
            &["key is not UTF-8"],
        ),
        case(
            "key that is there twice",
            Raw::head(0, 2).pair("kk", 1).pair("kk", 2),
            50,
            &["key kk is there twice"],
        ),
        case(
            "value type 13",
            Raw::head(0, 1).string(b"k").u32(13).u64(0),
            33,
            &["the type of k is 13", "no value type"],
        ),
        case(
            "value that is missing",
            Raw::head(0, 1).string(b"key").u32(12).bytes(&[0; 7]),
            39,
            &["ends within key: 8 bytes wanted, 7 left"],
        ),
        case(
            "string too long",
            Raw::head(0, 1).string(b"k").u32(STRING).u64(6).bytes(b"abcde"),
            37,
            &["the length of k is 6", "5 bytes are left"],
        ),
        case("array of type 99", array(99, 0), 37, &["the elements of a is 99"]),
        case(
            "array too long for its numbers",
            array(5, 5).data(1, 16),
            41,
            &["the length of a is 5", "16 bytes are left"],
        ),
        case("array of 2^63 strings", array(STRING, 1 << 63).data(1, 64), 41, &["length of a is"]),
        case(
            "array whose last string is cut",
            array(STRING, 2).string(b"abcdefgh").u64(1),
            65,
            &["the length of a is 1"],
        ),
        case("array of arrays too long", array(ARRAY, 3).data(1, 35), 41, &["length of a is 3"]),
        case("arrays nested too deep", nested(5), 97, &["nests arrays more than 4 deep"]),
        case("alignment 0", Raw::head(0, 1).pair("general.alignment", 0), 53, &["alignment is"]),
        case("alignment 24", Raw::head(0, 1).pair("general.alignment", 24), 53, &["power of two"]),
        case("alignment 4", Raw::head(0, 1).pair("general.alignment", 4), 53, &["from 8 on"]),
        case(
            "alignment that is a string",
            Raw::head(0, 1).string(b"general.alignment").u32(STRING).string(b"32"),
            53,
            &["not a power of two"],
        ),
    ]
}

fn tensors() -> Vec<Case> {
    vec![
        case("5 dimensions", tensor(&[1; 5], F32, 0), 33, &["t has 5 dimensions"]),
        case(
            "2^32 - 1 dimensions",
            Raw::head(1, 0).string(b"t").u32(u32::MAX).data(32, 64),
            33,
            &["t has 4294967295 dimensions"],
        ),
        case("no elements", tensor(&[8, 0], F32, 0), 37, &["[8, 0]", "no elements"]),
        case(
            "row of half a block",
            tensor(&[128], Q4_K, 0),
            37,
            &["Q4_K of shape [128]", "multiple of 256"],
        ),
        case(
            "sizes whose product overflows",
            tensor(&[1 << 32, 1 << 32, 2], F32, 0),
            37,
            &["more than 2^63 bytes"],
        ),
        case(
            "sizes whose product is 0 modulo 2^64",
            tensor(&[1 << 32, 1 << 32], F32, 0),
            37,
            &["more than 2^63 bytes"],
        ),
        case(
            "4 TiB in a small file",
            tensor(&[1 << 30, 1 << 10], F32, 0),
            24,
            &["the data of t", "the file has 160", "cut short"],
        ),
        case("type 43", tensor(&[8], 43, 0), 45, &["type 43", "not known"]),
        case("type 4, removed", tensor(&[8], 4, 0), 45, &["Q4_2", "re-convert"]),
        case("type 31, removed", tensor(&[8], 31, 0), 45, &["use the Q4_0 file"]),
        case("type 36, removed", tensor(&[8], 36, 0), 45, &["use the IQ4_NL file"]),
        case("offset that is not aligned", tensor(&[8], F32, 16), 24, &["no multiple of 32"]),
        case("offset past the end", tensor(&[8], F32, 64), 24, &["bytes 128 to 160", "has 128"]),
        case("offset near 2^64", tensor(&[8], F32, u64::MAX - 31), 24, &["past any file's end"]),
        case("names that are equal", two(("t", 0), ("t", 32)), 57, &["tensor t is there twice"]),
        case("data that overlap", two(("a", 0), ("b", 0)), 57, &["b begins within the data of a"]),
        case(
            "name that is not UTF-8",
            Raw::head(1, 0).string(b"\xc3").data(8, 64),
            32,
            &["a tensor's name is not UTF-8"],
        ),
    ]
}

fn splits() -> Vec<Case> {
    vec![
        case(
            "a part that is in memory",
            Raw::head(0, 1).pair("split.count", 3),
            47,
            &["one of 3 parts"],
        ),
        case(
            "a number of parts that is a string",
            Raw::head(0, 1).string(b"split.count").u32(STRING).string(b"3"),
            47,
            &["split.count is a string"],
        ),
        case(
            "tensors that the file lacks",
            Raw::head(0, 1).pair("split.tensors.count", 3),
            55,
            &["split.tensors.count is 3"],
        ),
    ]
}

#[test]
fn a_file_that_lies_is_refused_at_the_byte_that_lies() {
    let all = [versions(), counts(), pairs(), tensors(), splits()].concat();
    for Case { name, bytes, offset, reason } in all {
        let limit = 4 * bytes.len() + (64 << 10);
        let (result, held) = most_held(|| GgufFile::from_bytes(bytes));
        match result {
            Ok(_) => panic!("{name}: accepted"),
            Err(Error::Gguf { path, offset: at, reason: text }) => {
                assert_eq!(at, offset, "{name}: {text}");
                assert_eq!(path.to_str(), Some("<memory>"), "{name}");
                for part in reason {
                    assert!(text.contains(part), "{name}: `{part}` not in `{text}`");
                }
            }
            Err(e) => panic!("{name}: {e}"),
        }
        assert!(held <= limit, "{name}: {held} bytes held");
    }
}

#[test]
fn what_is_rare_but_right_is_accepted() {
    let cases = [
        ("no keys and no tensors", Raw::head(0, 0)),
        (
            "a tensor of one number, without dimensions",
            Raw::head(1, 0).tensor("t", &[], F32, 0).data(32, 4),
        ),
        ("a tensor without a name", Raw::head(1, 0).tensor("", &[8], F32, 0).data(32, 32)),
        ("arrays four deep", nested(4)),
        ("tensors in another order than their data", two(("a", 32), ("b", 0))),
        ("room between the tensors", two(("a", 0), ("b", 32)).data(1, 5)),
        ("a key without letters", Raw::head(0, 1).pair("", 1)),
        ("alignment as 64 bits", Raw::head(0, 1).string(b"general.alignment").u32(10).u64(64)),
        ("a file that is one part of one", Raw::head(0, 1).pair("split.count", 1)),
    ];
    for (name, raw) in cases {
        let file = GgufFile::from_bytes(raw.0).unwrap_or_else(|e| panic!("{name}: {e}"));
        for tensor in file.tensors() {
            assert_eq!(file.tensor_data(tensor).len() as u64, tensor.n_bytes, "{name}");
        }
    }
}

#[test]
fn a_file_that_is_cut_anywhere_is_refused() {
    for (version, order) in [(3, ByteOrder::Little), (2, ByteOrder::Big)] {
        let whole = realistic(version, order, 20);
        let file = GgufFile::from_bytes(whole.clone()).expect("a good file");
        let needed = file.tensors().iter().map(|t| t.offset + t.n_bytes).max().expect("tensors");
        for len in 0..needed as usize {
            match GgufFile::from_bytes(whole[..len].to_vec()) {
                Ok(_) => panic!("accepted with {len} of {needed} bytes"),
                Err(Error::Gguf { offset, reason, .. }) => {
                    assert!(offset <= len as u64, "{len} bytes: offset {offset}");
                    assert!(!reason.is_empty(), "{len} bytes");
                }
                Err(e) => panic!("{len} bytes: {e}"),
            }
        }
        assert!(GgufFile::from_bytes(whole[..needed as usize].to_vec()).is_ok());
    }
}

#[test]
fn a_tensor_of_another_file_has_no_data() {
    let file = GgufFile::from_bytes(realistic(3, ByteOrder::Little, 5)).expect("a good file");
    let mut tensor = file.tensors()[0].clone();
    tensor.part = 7;
    tensor.offset = u64::MAX;
    assert!(file.tensor_data(&tensor).is_empty());
    assert!(file.tensor_map(&tensor).1.is_empty());
}
