//! Metadata: values that borrow from the file's bytes.

use std::collections::HashMap;
use std::path::Path;
use std::sync::Arc;

use super::mmap::Mmap;
use super::reader::ByteOrder;
use crate::{Error, Result};

/// The type of a metadata value, by GGUF's numbers.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u32)]
#[allow(missing_docs)]
pub enum ValueType {
    U8 = 0,
    I8 = 1,
    U16 = 2,
    I16 = 3,
    U32 = 4,
    I32 = 5,
    F32 = 6,
    Bool = 7,
    String = 8,
    Array = 9,
    U64 = 10,
    I64 = 11,
    F64 = 12,
}

impl ValueType {
    const ALL: [ValueType; 13] = [
        ValueType::U8,
        ValueType::I8,
        ValueType::U16,
        ValueType::I16,
        ValueType::U32,
        ValueType::I32,
        ValueType::F32,
        ValueType::Bool,
        ValueType::String,
        ValueType::Array,
        ValueType::U64,
        ValueType::I64,
        ValueType::F64,
    ];

    /// The type with this number.
    pub fn from_u32(id: u32) -> Option<ValueType> {
        Self::ALL.get(id as usize).copied()
    }

    /// Bytes of a value; `None` for strings and arrays.
    pub fn size(self) -> Option<usize> {
        match self {
            ValueType::U8 | ValueType::I8 | ValueType::Bool => Some(1),
            ValueType::U16 | ValueType::I16 => Some(2),
            ValueType::U32 | ValueType::I32 | ValueType::F32 => Some(4),
            ValueType::U64 | ValueType::I64 | ValueType::F64 => Some(8),
            ValueType::String | ValueType::Array => None,
        }
    }
}

/// A metadata value.
#[derive(Clone, Copy, Debug)]
#[allow(missing_docs)]
pub enum Value<'a> {
    U8(u8),
    I8(i8),
    U16(u16),
    I16(i16),
    U32(u32),
    I32(i32),
    F32(f32),
    Bool(bool),
    /// The bytes as the file has them: usually UTF-8, but nobody promised.
    String(&'a [u8]),
    Array(Array<'a>),
    U64(u64),
    I64(i64),
    F64(f64),
}

impl Value<'_> {
    fn integer(&self) -> Option<i128> {
        Some(match *self {
            Value::U8(x) => x.into(),
            Value::I8(x) => x.into(),
            Value::U16(x) => x.into(),
            Value::I16(x) => x.into(),
            Value::U32(x) => x.into(),
            Value::I32(x) => x.into(),
            Value::U64(x) => x.into(),
            Value::I64(x) => x.into(),
            Value::Bool(_) | Value::F32(_) | Value::F64(_) | Value::String(_) | Value::Array(_) => {
                return None;
            }
        })
    }
}

/// An array of values of one type.
#[derive(Clone, Copy)]
pub struct Array<'a> {
    bytes: &'a [u8],
    order: ByteOrder,
    ty: ValueType,
    len: usize,
    /// Of strings: where each begins in `bytes`, with its length.
    offsets: &'a [u32],
}

impl std::fmt::Debug for Array<'_> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "[{:?}; {}]", self.ty, self.len)
    }
}

impl<'a> Array<'a> {
    /// The elements' type.
    pub fn element_type(&self) -> ValueType {
        self.ty
    }

    /// How many elements there are.
    pub fn len(&self) -> usize {
        self.len
    }

    /// True if there is none.
    pub fn is_empty(&self) -> bool {
        self.len == 0
    }

    /// Element `i`; `None` past the end, and for arrays of arrays.
    pub fn get(&self, i: usize) -> Option<Value<'a>> {
        if i >= self.len {
            return None;
        }
        match self.ty.size() {
            Some(size) => {
                let bytes = self.bytes.get(i * size..(i + 1) * size)?;
                Some(self.order.scalar(self.ty, bytes))
            }
            None => self.get_bytes(i).map(Value::String),
        }
    }

    /// String `i`; `None` past the end, and where the elements are not strings.
    pub fn get_bytes(&self, i: usize) -> Option<&'a [u8]> {
        let at = *self.offsets.get(i)? as usize;
        let length = self.bytes.get(at..at + 8)?;
        let length = usize::try_from(self.order.u64(length)).ok()?;
        self.bytes.get(at + 8..)?.get(..length)
    }

    /// The strings; empty where the elements are not strings.
    pub fn iter_bytes(self) -> impl ExactSizeIterator<Item = &'a [u8]> + 'a {
        (0..self.offsets.len()).map(move |i| self.get_bytes(i).unwrap_or_default())
    }

    /// The elements as integers; those that are none, or out of range, are 0.
    pub fn iter_u32(self) -> impl ExactSizeIterator<Item = u32> + 'a {
        self.iter_integers().map(|x| u32::try_from(x).unwrap_or(0))
    }

    /// The elements as integers; those that are none, or out of range, are 0.
    pub fn iter_i32(self) -> impl ExactSizeIterator<Item = i32> + 'a {
        self.iter_integers().map(|x| i32::try_from(x).unwrap_or(0))
    }

    fn iter_integers(self) -> impl ExactSizeIterator<Item = i128> + 'a {
        (0..self.len).map(move |i| match self.get(i) {
            Some(Value::Bool(x)) => x.into(),
            Some(value) => value.integer().unwrap_or(0),
            None => 0,
        })
    }

    /// The elements as floats; those that are no numbers are NaN.
    pub fn iter_f32(self) -> impl ExactSizeIterator<Item = f32> + 'a {
        (0..self.len).map(move |i| match self.get(i) {
            Some(Value::F32(x)) => x,
            Some(Value::F64(x)) => x as f32,
            Some(value) => value.integer().map_or(f32::NAN, |x| x as f32),
            None => f32::NAN,
        })
    }
}

/// A value as it was parsed: what is larger than a number stays in the file.
#[derive(Debug)]
pub(super) enum Raw {
    Scalar(ValueType, [u8; 8]),
    String { at: usize, len: usize },
    Array { ty: ValueType, at: usize, bytes: usize, len: usize, offsets: Vec<u32> },
}

/// The key-value pairs of a file.
#[derive(Debug)]
pub struct Metadata {
    pub(super) map: Arc<Mmap>,
    pub(super) order: ByteOrder,
    pub(super) path: Arc<Path>,
    /// Key, offset of the value, value; in file order.
    pub(super) entries: Vec<(String, usize, Raw)>,
    pub(super) index: HashMap<String, usize>,
}

impl Metadata {
    fn value<'a>(&'a self, raw: &'a Raw) -> Value<'a> {
        match raw {
            Raw::Scalar(ty, bytes) => {
                let size = ty.size().unwrap_or(0);
                self.order.scalar(*ty, &bytes[..size])
            }
            Raw::String { at, len } => Value::String(&self.map[*at..*at + *len]),
            Raw::Array { ty, at, bytes, len, offsets } => Value::Array(Array {
                bytes: &self.map[*at..*at + *bytes],
                order: self.order,
                ty: *ty,
                len: *len,
                offsets,
            }),
        }
    }

    /// The value of `key`.
    pub fn get(&self, key: &str) -> Option<Value<'_>> {
        self.index.get(key).map(|i| self.value(&self.entries[*i].2))
    }

    /// All pairs, in the file's order.
    pub fn iter(&self) -> impl ExactSizeIterator<Item = (&str, Value<'_>)> {
        self.entries.iter().map(|(key, _, raw)| (key.as_str(), self.value(raw)))
    }

    /// Pairs.
    pub fn len(&self) -> usize {
        self.entries.len()
    }

    /// True if there are none.
    pub fn is_empty(&self) -> bool {
        self.entries.is_empty()
    }

    fn wrong(&self, key: &str, wanted: &str) -> Error {
        let offset = self.index.get(key).map_or(0, |i| self.entries[*i].1 as u64);
        let found = match self.get(key) {
            Some(Value::String(_)) => "a string".to_string(),
            Some(Value::Array(array)) => format!("an array {array:?}"),
            Some(value) => format!("{value:?}"),
            None => "nothing".to_string(),
        };
        let reason = format!("{key} is {found}, not {wanted}");
        Error::Gguf { path: self.path.to_path_buf(), offset, reason }
    }

    fn integer<T: TryFrom<i128>>(&self, key: &str, wanted: &str) -> Result<Option<T>> {
        let Some(value) = self.get(key) else { return Ok(None) };
        match value.integer().and_then(|x| T::try_from(x).ok()) {
            Some(x) => Ok(Some(x)),
            None => Err(self.wrong(key, wanted)),
        }
    }

    /// An integer of any width that fits.
    ///
    /// # Errors
    /// If the key is there with another type, or out of range.
    pub fn u32(&self, key: &str) -> Result<Option<u32>> {
        self.integer(key, "an integer of 32 bits without sign")
    }

    /// An integer of any width that fits.
    ///
    /// # Errors
    /// If the key is there with another type, or out of range.
    pub fn u64(&self, key: &str) -> Result<Option<u64>> {
        self.integer(key, "an integer without sign")
    }

    /// A float, or an integer.
    ///
    /// # Errors
    /// If the key is there with another type.
    pub fn f32(&self, key: &str) -> Result<Option<f32>> {
        match self.get(key) {
            None => Ok(None),
            Some(Value::F32(x)) => Ok(Some(x)),
            Some(Value::F64(x)) => Ok(Some(x as f32)),
            Some(value) => match value.integer() {
                Some(x) => Ok(Some(x as f32)),
                None => Err(self.wrong(key, "a number")),
            },
        }
    }

    /// A truth value.
    ///
    /// # Errors
    /// If the key is there with another type.
    pub fn bool(&self, key: &str) -> Result<Option<bool>> {
        match self.get(key) {
            None => Ok(None),
            Some(Value::Bool(x)) => Ok(Some(x)),
            Some(_) => Err(self.wrong(key, "true or false")),
        }
    }

    /// A string's bytes.
    ///
    /// # Errors
    /// If the key is there with another type.
    pub fn bytes(&self, key: &str) -> Result<Option<&[u8]>> {
        match self.get(key) {
            None => Ok(None),
            Some(Value::String(x)) => Ok(Some(x)),
            Some(_) => Err(self.wrong(key, "a string")),
        }
    }

    /// A string.
    ///
    /// # Errors
    /// If the key is there with another type, or is not UTF-8.
    pub fn str(&self, key: &str) -> Result<Option<&str>> {
        match self.bytes(key)?.map(std::str::from_utf8) {
            None => Ok(None),
            Some(Ok(x)) => Ok(Some(x)),
            Some(Err(_)) => Err(self.wrong(key, "UTF-8")),
        }
    }

    /// An array.
    ///
    /// # Errors
    /// If the key is there with another type.
    pub fn array(&self, key: &str) -> Result<Option<Array<'_>>> {
        match self.get(key) {
            None => Ok(None),
            Some(Value::Array(x)) => Ok(Some(x)),
            Some(_) => Err(self.wrong(key, "an array")),
        }
    }
}
