//! The key-value pairs of a file: an index over its bytes, and getters that check types.

use std::path::Path;
use std::sync::Arc;

use byteorder::{BigEndian, LittleEndian};

use super::cursor::{Cursor, Fault};
use super::mmap::Mmap;
use super::value::{Array, ByteOrder, Endian, Value, ValueType};
use crate::{Error, Result};

/// The least that a pair takes: the length of an empty key, a type and one byte.
pub(super) const LEAST_PAIR: usize = 8 + 4 + 1;

/// No table: the value is no array of strings or of arrays.
const NONE: u32 = u32::MAX;

/// Where a pair is in the file. Small, because a hostile file may have one for every few bytes.
#[derive(Debug)]
struct Pair {
    key_at: usize,
    key_len: u32,
    /// Index into `Index::tables`.
    table: u32,
    ty: ValueType,
}

impl Pair {
    fn value_at(&self) -> usize {
        self.key_at + self.key_len as usize + 4
    }
}

/// What [`Metadata`] keeps in memory.
#[derive(Debug)]
pub(super) struct Index {
    pairs: Vec<Pair>,
    /// The pairs in the order of their keys.
    by_key: Vec<u32>,
    /// Where the elements of an array of strings or arrays begin.
    tables: Vec<Box<[u32]>>,
}

impl Index {
    /// Reads `n` pairs.
    pub(super) fn parse<E: Endian>(
        c: &mut Cursor<'_, E>,
        bytes: &[u8],
        n: usize,
    ) -> Result<Index, Fault> {
        let mut pairs = Vec::with_capacity(n);
        let mut tables: Vec<Box<[u32]>> = Vec::new();
        for _ in 0..n {
            let at = c.at();
            let key = c.utf8("a key")?;
            let Ok(key_len) = u32::try_from(key.len()) else {
                return Err(Fault::new(at, "a key is longer than 4 GiB"));
            };
            let key_at = c.at() - key.len();
            let ty = c.value_type(format_args!("the type of {key}"))?;
            let mut table = NONE;
            if let Value::Array(array) = c.value(ty, key)? {
                let tabled = array.element_type().size().is_none() && !array.is_empty();
                let mut starts = Vec::with_capacity(if tabled { array.len() } else { 0 });
                c.skip_elements(&array, key, 0, tabled.then_some(&mut starts))?;
                if tabled {
                    table = u32::try_from(tables.len()).unwrap_or(NONE);
                    tables.push(starts.into_boxed_slice());
                }
            }
            pairs.push(Pair { key_at, key_len, table, ty });
        }
        let Ok(last) = u32::try_from(n) else {
            return Err(Fault::new(c.at(), "there are more than 2^32 keys"));
        };
        let key = |i: &u32| key_of(bytes, &pairs[*i as usize]);
        let mut by_key: Vec<u32> = (0..last).collect();
        by_key.sort_unstable_by(|a, b| key(a).cmp(key(b)).then(a.cmp(b)));
        let twice = by_key.windows(2).filter(|w| key(&w[0]) == key(&w[1])).map(|w| w[1]).min();
        if let Some(twice) = twice {
            let at = pairs[twice as usize].key_at;
            let key = String::from_utf8_lossy(key(&twice)).into_owned();
            return Err(Fault::new(at, format!("key {key} is there twice")));
        }
        Ok(Index { pairs, by_key, tables })
    }
}

fn key_of<'a>(bytes: &'a [u8], pair: &Pair) -> &'a [u8] {
    bytes.get(pair.key_at..pair.key_at + pair.key_len as usize).unwrap_or_default()
}

/// The key-value pairs of a file. Values are read from the mapped file when asked for; nothing is
/// copied.
///
/// The typed getters give `Ok(None)` where there is no such key and an error that names the file,
/// the place and the key where the value has another type.
#[derive(Debug)]
pub struct Metadata {
    pub(super) map: Arc<Mmap>,
    pub(super) path: Arc<Path>,
    pub(super) order: ByteOrder,
    pub(super) index: Index,
}

impl Metadata {
    fn find(&self, key: &str) -> Option<&Pair> {
        let at = |i: &u32| self.index.pairs.get(*i as usize);
        let key_at = |i: &u32| at(i).map(|p| key_of(&self.map, p)).unwrap_or_default();
        let found = self.index.by_key.binary_search_by(|i| key_at(i).cmp(key.as_bytes())).ok()?;
        self.index.by_key.get(found).and_then(at)
    }

    fn value(&self, pair: &Pair) -> Value<'_> {
        match self.order {
            ByteOrder::Little => self.value_in::<LittleEndian>(pair),
            ByteOrder::Big => self.value_in::<BigEndian>(pair),
        }
    }

    fn value_in<E: Endian>(&self, pair: &Pair) -> Value<'_> {
        match Cursor::<E>::new(&self.map, pair.value_at()).value(pair.ty, "") {
            Ok(Value::Array(array)) => {
                let starts = self.index.tables.get(pair.table as usize);
                Value::Array(array.with_starts(starts.map_or(&[], |s| s)))
            }
            Ok(value) => value,
            // It was read when the file was opened, so the file has been changed since.
            Err(_) => Value::String(&[]),
        }
    }

    /// The value of `key`.
    pub fn get(&self, key: &str) -> Option<Value<'_>> {
        self.find(key).map(|pair| self.value(pair))
    }

    /// All pairs, in the file's order.
    pub fn iter(&self) -> impl ExactSizeIterator<Item = (&str, Value<'_>)> {
        self.index.pairs.iter().map(|pair| {
            let key = std::str::from_utf8(key_of(&self.map, pair)).unwrap_or_default();
            (key, self.value(pair))
        })
    }

    /// Pairs.
    pub fn len(&self) -> usize {
        self.index.pairs.len()
    }

    /// True if there are none.
    pub fn is_empty(&self) -> bool {
        self.index.pairs.is_empty()
    }

    /// Where the value of `key` is in the file.
    pub(super) fn place(&self, key: &str) -> usize {
        self.find(key).map_or(0, Pair::value_at)
    }

    /// An error about the value of `key`, at its place in the file.
    pub(super) fn error(&self, key: &str, reason: String) -> Error {
        let offset = self.place(key) as u64;
        Error::Gguf { path: self.path.to_path_buf(), offset, reason }
    }

    fn wrong(&self, key: &str, wanted: &str) -> Error {
        let found = match self.get(key) {
            Some(Value::String(_)) => "a string".to_string(),
            Some(Value::Array(array)) => format!("an array {array:?}"),
            Some(value) => format!("{value:?}"),
            None => "nothing".to_string(),
        };
        self.error(key, format!("{key} is {found}, not {wanted}"))
    }

    fn typed<'a, T>(
        &'a self,
        key: &str,
        wanted: &str,
        convert: impl FnOnce(Value<'a>) -> Option<T>,
    ) -> Result<Option<T>> {
        match self.get(key).map(convert) {
            None => Ok(None),
            Some(Some(x)) => Ok(Some(x)),
            Some(None) => Err(self.wrong(key, wanted)),
        }
    }

    /// An integer of any width that fits.
    ///
    /// # Errors
    /// If the key is there with another type, or out of range.
    pub fn u32(&self, key: &str) -> Result<Option<u32>> {
        let wanted = "an integer from 0 to 2^32 - 1";
        self.typed(key, wanted, |v| u32::try_from(v.integer()?).ok())
    }

    /// An integer of any width that fits.
    ///
    /// # Errors
    /// If the key is there with another type, or out of range.
    pub fn u64(&self, key: &str) -> Result<Option<u64>> {
        self.typed(key, "an integer from 0 to 2^64 - 1", |v| u64::try_from(v.integer()?).ok())
    }

    /// A float, or an integer.
    ///
    /// # Errors
    /// If the key is there with another type.
    pub fn f32(&self, key: &str) -> Result<Option<f32>> {
        self.typed(key, "a number", |v| v.float().map(|x| x as f32))
    }

    /// A truth value.
    ///
    /// # Errors
    /// If the key is there with another type.
    pub fn bool(&self, key: &str) -> Result<Option<bool>> {
        self.typed(key, "true or false", |v| match v {
            Value::Bool(x) => Some(x),
            _ => None,
        })
    }

    /// A string's bytes.
    ///
    /// # Errors
    /// If the key is there with another type.
    pub fn bytes(&self, key: &str) -> Result<Option<&[u8]>> {
        self.typed(key, "a string", |v| match v {
            Value::String(x) => Some(x),
            _ => None,
        })
    }

    /// A string.
    ///
    /// # Errors
    /// If the key is there with another type, or is not UTF-8.
    pub fn str(&self, key: &str) -> Result<Option<&str>> {
        match self.bytes(key)?.map(std::str::from_utf8) {
            None => Ok(None),
            Some(Ok(x)) => Ok(Some(x)),
            Some(Err(e)) => {
                let at = e.valid_up_to();
                Err(self.error(key, format!("{key} is not UTF-8 from byte {at} of the string on")))
            }
        }
    }

    /// An array.
    ///
    /// # Errors
    /// If the key is there with another type.
    pub fn array(&self, key: &str) -> Result<Option<Array<'_>>> {
        self.typed(key, "an array", |v| match v {
            Value::Array(x) => Some(x),
            _ => None,
        })
    }

    fn numbers<T>(
        &self,
        key: &str,
        wanted: &str,
        convert: impl Fn(Value<'_>) -> Option<T>,
    ) -> Result<Option<Vec<T>>> {
        let Some(array) = self.array(key)? else { return Ok(None) };
        let convert = |(i, v): (usize, Value<'_>)| {
            convert(v).ok_or_else(|| self.error(key, format!("{key}[{i}] is {v:?}, not {wanted}")))
        };
        array.iter().enumerate().map(convert).collect::<Result<_>>().map(Some)
    }

    /// An array of integers of any width, or of truth values, that fit.
    ///
    /// # Errors
    /// If the key is there with another type, or an element is out of range.
    pub fn u32_array(&self, key: &str) -> Result<Option<Vec<u32>>> {
        self.numbers(key, "an integer from 0 to 2^32 - 1", |v| u32::try_from(v.whole()?).ok())
    }

    /// An array of integers of any width, or of truth values, that fit.
    ///
    /// # Errors
    /// If the key is there with another type, or an element is out of range.
    pub fn i32_array(&self, key: &str) -> Result<Option<Vec<i32>>> {
        self.numbers(key, "an integer of 32 bits", |v| i32::try_from(v.whole()?).ok())
    }

    /// An array of floats or integers.
    ///
    /// # Errors
    /// If the key is there with another type.
    pub fn f32_array(&self, key: &str) -> Result<Option<Vec<f32>>> {
        self.numbers(key, "a number", |v| v.float().map(|x| x as f32))
    }
}
