//! What is written is read: any keys, values and tensors, in both versions and byte orders.

use std::collections::BTreeMap;

use proptest::prelude::*;
use siskin::GgmlType;
use siskin::gguf::{Builder, ByteOrder, Bytes, Encode, GgufFile, Value};

/// A value that can be compared. Floats are compared by their bits.
#[derive(Clone, Debug, PartialEq)]
enum Any {
    U8(u8),
    I8(i8),
    U16(u16),
    I16(i16),
    U32(u32),
    I32(i32),
    F32(u32),
    Bool(bool),
    String(Vec<u8>),
    U64(u64),
    I64(i64),
    F64(u64),
    U8s(Vec<u8>),
    I16s(Vec<i16>),
    U32s(Vec<u32>),
    F32s(Vec<u32>),
    F64s(Vec<u64>),
    Bools(Vec<bool>),
    Strings(Vec<Vec<u8>>),
    Nested(Vec<Vec<Vec<i32>>>),
}

fn bytes() -> impl Strategy<Value = Vec<u8>> {
    prop::collection::vec(any::<u8>(), 0..20)
}

fn any_value() -> impl Strategy<Value = Any> {
    let ints = prop::collection::vec(any::<i32>(), 0..3);
    prop_oneof![
        any::<u8>().prop_map(Any::U8),
        any::<i8>().prop_map(Any::I8),
        any::<u16>().prop_map(Any::U16),
        any::<i16>().prop_map(Any::I16),
        any::<u32>().prop_map(Any::U32),
        any::<i32>().prop_map(Any::I32),
        any::<u32>().prop_map(Any::F32),
        any::<bool>().prop_map(Any::Bool),
        bytes().prop_map(Any::String),
        any::<u64>().prop_map(Any::U64),
        any::<i64>().prop_map(Any::I64),
        any::<u64>().prop_map(Any::F64),
        bytes().prop_map(Any::U8s),
        prop::collection::vec(any::<i16>(), 0..9).prop_map(Any::I16s),
        prop::collection::vec(any::<u32>(), 0..9).prop_map(Any::U32s),
        prop::collection::vec(any::<u32>(), 0..9).prop_map(Any::F32s),
        prop::collection::vec(any::<u64>(), 0..9).prop_map(Any::F64s),
        prop::collection::vec(any::<bool>(), 0..9).prop_map(Any::Bools),
        prop::collection::vec(bytes(), 0..9).prop_map(Any::Strings),
        prop::collection::vec(prop::collection::vec(ints, 0..3), 0..3).prop_map(Any::Nested),
    ]
}

fn put(b: &mut Builder, key: &str, value: &Any) -> siskin::Result<()> {
    fn floats(bits: &[u32]) -> Vec<f32> {
        bits.iter().map(|x| f32::from_bits(*x)).collect()
    }
    fn doubles(bits: &[u64]) -> Vec<f64> {
        bits.iter().map(|x| f64::from_bits(*x)).collect()
    }
    fn put<T: Encode + ?Sized>(b: &mut Builder, key: &str, x: &T) -> siskin::Result<()> {
        b.put(key, x)
    }
    match value {
        Any::U8(x) => put(b, key, x),
        Any::I8(x) => put(b, key, x),
        Any::U16(x) => put(b, key, x),
        Any::I16(x) => put(b, key, x),
        Any::U32(x) => put(b, key, x),
        Any::I32(x) => put(b, key, x),
        Any::F32(x) => put(b, key, &f32::from_bits(*x)),
        Any::Bool(x) => put(b, key, x),
        Any::String(x) => put(b, key, &Bytes(x)),
        Any::U64(x) => put(b, key, x),
        Any::I64(x) => put(b, key, x),
        Any::F64(x) => put(b, key, &f64::from_bits(*x)),
        Any::U8s(x) => put(b, key, x),
        Any::I16s(x) => put(b, key, x),
        Any::U32s(x) => put(b, key, x),
        Any::F32s(x) => put(b, key, &floats(x)),
        Any::F64s(x) => put(b, key, &doubles(x)),
        Any::Bools(x) => put(b, key, x),
        Any::Strings(x) => put(b, key, &x.iter().map(|x| Bytes(x)).collect::<Vec<_>>()),
        Any::Nested(x) => put(b, key, x),
    }
}

/// True if `found` is the value that was written.
fn same(wanted: &Any, found: Value<'_>) -> bool {
    let Value::Array(array) = found else {
        return match (wanted, found) {
            (Any::U8(a), Value::U8(b)) => *a == b,
            (Any::I8(a), Value::I8(b)) => *a == b,
            (Any::U16(a), Value::U16(b)) => *a == b,
            (Any::I16(a), Value::I16(b)) => *a == b,
            (Any::U32(a), Value::U32(b)) => *a == b,
            (Any::I32(a), Value::I32(b)) => *a == b,
            (Any::F32(a), Value::F32(b)) => *a == b.to_bits(),
            (Any::Bool(a), Value::Bool(b)) => *a == b,
            (Any::String(a), Value::String(b)) => a == b,
            (Any::U64(a), Value::U64(b)) => *a == b,
            (Any::I64(a), Value::I64(b)) => *a == b,
            (Any::F64(a), Value::F64(b)) => *a == b.to_bits(),
            _ => false,
        };
    };
    // Every element by its place, and all of them in order.
    fn all<T: PartialEq>(
        wanted: &[T],
        array: siskin::gguf::Array<'_>,
        f: impl Fn(&T, Value<'_>) -> bool,
    ) -> bool {
        array.len() == wanted.len()
            && array.get(array.len()).is_none()
            && wanted.iter().enumerate().all(|(i, x)| array.get(i).is_some_and(|v| f(x, v)))
            && wanted.iter().zip(array.iter()).all(|(x, v)| f(x, v))
    }
    match wanted {
        Any::U8s(x) => all(x, array, |a, b| matches!(b, Value::U8(b) if *a == b)),
        Any::I16s(x) => all(x, array, |a, b| matches!(b, Value::I16(b) if *a == b)),
        Any::U32s(x) => {
            array.iter_u32().eq(x.iter().copied())
                && all(x, array, |a, b| matches!(b, Value::U32(b) if *a == b))
        }
        Any::F32s(x) => all(x, array, |a, b| matches!(b, Value::F32(b) if *a == b.to_bits())),
        Any::F64s(x) => all(x, array, |a, b| matches!(b, Value::F64(b) if *a == b.to_bits())),
        Any::Bools(x) => all(x, array, |a, b| matches!(b, Value::Bool(b) if *a == b)),
        Any::Strings(x) => {
            array.iter_bytes().eq(x.iter().map(Vec::as_slice))
                && all(x, array, |a, b| matches!(b, Value::String(b) if a == b))
        }
        Any::Nested(x) => all(x, array, |a, b| {
            matches!(b, Value::Array(b) if all(a, b, |a, b| {
                matches!(b, Value::Array(b) if b.iter_i32().eq(a.iter().copied())
                    && all(a, b, |a, b| matches!(b, Value::I32(b) if *a == b)))
            }))
        }),
        _ => false,
    }
}

/// Name, type, row length in blocks, other dimensions.
type Tensor = (String, GgmlType, u64, Vec<u64>);

fn tensors() -> impl Strategy<Value = BTreeMap<String, Tensor>> {
    let ty = (0..GgmlType::ALL.len()).prop_map(|i| GgmlType::ALL[i]);
    let tensor = ("\\PC{0,12}", ty, 1..4u64, prop::collection::vec(1..4u64, 0..4));
    prop::collection::vec(tensor, 0..8)
        .prop_map(|all| all.into_iter().map(|t| (t.0.clone(), t)).collect())
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 256, failure_persistence: None, ..Default::default() })]

    #[test]
    fn what_is_written_is_read(
        version in 2..=3u32,
        big in any::<bool>(),
        alignment in prop::option::of(3..13u32),
        pairs in prop::collection::btree_map("\\PC{0,20}", any_value(), 0..12),
        tensors in tensors(),
        seed in any::<u8>(),
    ) {
        let order = if big { ByteOrder::Big } else { ByteOrder::Little };
        let mut b = Builder::with_format(version, order)?;
        if let Some(alignment) = alignment {
            b.alignment(1 << alignment)?;
        }
        for (key, value) in &pairs {
            put(&mut b, key, value)?;
        }
        let mut data = BTreeMap::new();
        for (name, ty, blocks, rows) in tensors.values() {
            let mut shape = vec![blocks * ty.block_len() as u64];
            shape.extend(rows);
            b.tensor(name, *ty, &shape)?;
            let bytes = ty.block_bytes() as u64 * blocks * rows.iter().product::<u64>();
            let content: Vec<u8> = (0..bytes).map(|i| (i as u8).wrapping_mul(seed)).collect();
            data.insert(name, (shape, content));
        }
        let mut writer = b.start(Vec::new())?;
        for (name, (_, content)) in &data {
            writer.tensor(name, content)?;
        }
        let file = GgufFile::from_bytes(writer.finish()?)?;

        prop_assert_eq!((file.version(), file.byte_order()), (version, order));
        let metadata = file.metadata();
        prop_assert_eq!(metadata.len(), pairs.len() + usize::from(alignment.is_some()));
        let rest = metadata.iter().skip(usize::from(alignment.is_some()));
        for ((key, value), (found_key, found)) in pairs.iter().zip(rest) {
            prop_assert_eq!(key, found_key);
            prop_assert!(same(value, found), "{}: {:?} became {:?}", key, value, found);
            prop_assert!(metadata.get(key).is_some_and(|found| same(value, found)));
        }
        prop_assert!(metadata.get("no such key").is_none());
        prop_assert_eq!(file.tensors().len(), data.len());
        for (name, (shape, content)) in &data {
            let found = file.tensor(name).ok_or(TestCaseError::fail("a tensor is missing"))?;
            prop_assert_eq!(&found.shape, shape);
            prop_assert_eq!(found.ty, tensors[*name].1);
            prop_assert!(found.offset.is_multiple_of(1 << alignment.unwrap_or(5)));
            prop_assert_eq!(file.tensor_data(found), content.as_slice());
        }
        prop_assert!(file.tensor("no such tensor").is_none());
    }
}

#[test]
fn getters_take_every_number_that_fits_and_refuse_the_rest_by_key() {
    let mut b = Builder::new();
    b.put("u8", &200u8).expect("a key");
    b.put("i64", &70_000i64).expect("a key");
    b.put("negative", &-1i32).expect("a key");
    b.put("large", &u64::MAX).expect("a key");
    b.put("f64", &0.5f64).expect("a key");
    b.put("bool", &true).expect("a key");
    b.put("string", "text").expect("a key");
    b.put("not_utf8", &Bytes(b"ab\xff")).expect("a key");
    b.put("layers", &[true, false][..]).expect("a key");
    b.put("sizes", &[7i64, 8][..]).expect("a key");
    b.put("signed", &[7i64, -8][..]).expect("a key");
    let file = b.start(Vec::new()).and_then(|w| w.finish()).and_then(GgufFile::from_bytes);
    let file = file.expect("a good file");
    let m = file.metadata();

    assert_eq!(m.u32("u8").expect("fits"), Some(200));
    assert_eq!(m.u32("i64").expect("fits"), Some(70_000));
    assert_eq!(m.u64("large").expect("fits"), Some(u64::MAX));
    assert_eq!(m.f32("f64").expect("fits"), Some(0.5));
    assert_eq!(m.f32("negative").expect("fits"), Some(-1.0));
    assert_eq!(m.bool("bool").expect("fits"), Some(true));
    assert_eq!(m.str("string").expect("fits"), Some("text"));
    assert_eq!(m.bytes("not_utf8").expect("fits"), Some(&b"ab\xff"[..]));
    assert_eq!(m.u32_array("layers").expect("fits"), Some(vec![1, 0]));
    assert_eq!(m.u32_array("sizes").expect("fits"), Some(vec![7, 8]));
    assert_eq!(m.i32_array("signed").expect("fits"), Some(vec![7, -8]));
    assert_eq!(m.f32_array("signed").expect("fits"), Some(vec![7.0, -8.0]));
    assert_eq!(m.u32("none").expect("no such key"), None);
    assert_eq!(m.u32_array("none").expect("no such key"), None);

    let refused = [
        m.u32("negative").err(),
        m.u32("large").err(),
        m.u32("f64").err(),
        m.u64("negative").err(),
        m.f32("string").err(),
        m.bool("u8").err(),
        m.bytes("u8").err(),
        m.str("not_utf8").err(),
        m.array("string").err(),
        m.u32_array("signed").err(),
        m.i32_array("f64").err(),
    ];
    for (i, error) in refused.into_iter().enumerate() {
        let error = error.unwrap_or_else(|| panic!("getter {i} took what does not fit"));
        let text = error.to_string();
        assert!(matches!(error, siskin::Error::Gguf { offset: 25.., .. }), "{text}");
        assert!(text.starts_with("<memory>: at byte "), "{text}");
    }
    let error = m.u32_array("signed").expect_err("-8 does not fit").to_string();
    assert!(error.contains("signed[1] is I64(-8)"), "{error}");
}
