//! Metadata values, which borrow from the file's bytes.

use byteorder::{BigEndian, LittleEndian};

use super::cursor::{Cursor, scalar};

/// Arrays in arrays in arrays in arrays, and no deeper.
pub(super) const MAX_NESTING: usize = 4;

/// The order of the bytes of a file's numbers.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum ByteOrder {
    /// As on x86 and Arm.
    Little,
    /// As on s390x.
    Big,
}

/// A byte order that is known when compiling.
pub(super) trait Endian: byteorder::ByteOrder {
    const ORDER: ByteOrder;
}

impl Endian for LittleEndian {
    const ORDER: ByteOrder = ByteOrder::Little;
}

impl Endian for BigEndian {
    const ORDER: ByteOrder = ByteOrder::Big;
}

/// The type of a metadata value, by GGUF's numbers.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[repr(u8)]
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
        Self::ALL.get(usize::try_from(id).ok()?).copied()
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

    /// The name in the format's description, for example `u32`.
    pub fn name(self) -> &'static str {
        match self {
            ValueType::U8 => "u8",
            ValueType::I8 => "i8",
            ValueType::U16 => "u16",
            ValueType::I16 => "i16",
            ValueType::U32 => "u32",
            ValueType::I32 => "i32",
            ValueType::F32 => "f32",
            ValueType::Bool => "bool",
            ValueType::String => "string",
            ValueType::Array => "array",
            ValueType::U64 => "u64",
            ValueType::I64 => "i64",
            ValueType::F64 => "f64",
        }
    }
}

impl std::fmt::Display for ValueType {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(self.name())
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
    /// Its type.
    pub fn ty(&self) -> ValueType {
        match self {
            Value::U8(_) => ValueType::U8,
            Value::I8(_) => ValueType::I8,
            Value::U16(_) => ValueType::U16,
            Value::I16(_) => ValueType::I16,
            Value::U32(_) => ValueType::U32,
            Value::I32(_) => ValueType::I32,
            Value::F32(_) => ValueType::F32,
            Value::Bool(_) => ValueType::Bool,
            Value::String(_) => ValueType::String,
            Value::Array(_) => ValueType::Array,
            Value::U64(_) => ValueType::U64,
            Value::I64(_) => ValueType::I64,
            Value::F64(_) => ValueType::F64,
        }
    }

    /// The number, if it is an integer of any width.
    pub fn integer(&self) -> Option<i128> {
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

    /// An integer, or a truth value as 0 or 1: patterns over layers are stored as either.
    pub(super) fn whole(&self) -> Option<i128> {
        match *self {
            Value::Bool(x) => Some(x.into()),
            _ => self.integer(),
        }
    }

    /// The number as a float, if it is one or an integer.
    pub fn float(&self) -> Option<f64> {
        match *self {
            Value::F32(x) => Some(x.into()),
            Value::F64(x) => Some(x),
            _ => self.integer().map(|x| x as f64),
        }
    }
}

/// An array of values of one type, read from the file where it is asked for.
#[derive(Clone, Copy)]
pub struct Array<'a> {
    /// From the first element to the end of the file.
    bytes: &'a [u8],
    order: ByteOrder,
    ty: ValueType,
    len: usize,
    /// Where each string or array begins in `bytes`; empty in an array that is an element itself.
    starts: &'a [u32],
}

impl std::fmt::Debug for Array<'_> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "[{}; {}]", self.ty, self.len)
    }
}

impl<'a> Array<'a> {
    pub(super) fn new<E: Endian>(bytes: &'a [u8], ty: ValueType, len: usize) -> Array<'a> {
        Array { bytes, order: E::ORDER, ty, len, starts: &[] }
    }

    pub(super) fn with_starts(self, starts: &'a [u32]) -> Array<'a> {
        Array { starts, ..self }
    }

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

    /// Element `i`; `None` past the end.
    ///
    /// Takes the same time for every `i`, but for the strings of an array within an array, which
    /// are counted from the first.
    pub fn get(&self, i: usize) -> Option<Value<'a>> {
        match self.order {
            ByteOrder::Little => self.element::<LittleEndian>(i),
            ByteOrder::Big => self.element::<BigEndian>(i),
        }
    }

    fn element<E: Endian>(&self, i: usize) -> Option<Value<'a>> {
        if i >= self.len {
            return None;
        }
        if let Some(size) = self.ty.size() {
            let at = i.checked_mul(size)?;
            return Some(scalar::<E>(self.ty, self.bytes.get(at..)?.get(..size)?));
        }
        let mut cursor = match self.starts.get(i) {
            Some(at) => Cursor::<E>::new(self.bytes, usize::try_from(*at).ok()?),
            None => {
                let mut cursor = Cursor::<E>::new(self.bytes, 0);
                cursor.skip_elements(&Array { len: i, ..*self }, "", 0, None).ok()?;
                cursor
            }
        };
        cursor.value(self.ty, "").ok()
    }

    /// String `i`; `None` past the end, and where the elements are not strings.
    pub fn get_bytes(&self, i: usize) -> Option<&'a [u8]> {
        match self.get(i) {
            Some(Value::String(bytes)) => Some(bytes),
            _ => None,
        }
    }

    /// The elements in order.
    pub fn iter(self) -> impl ExactSizeIterator<Item = Value<'a>> + 'a {
        // The file was checked when it was opened. Had it been changed since, the elements that
        // cannot be read any more would come as empty strings.
        (0..self.len).map(move |i| self.get(i).unwrap_or(Value::String(&[])))
    }

    /// The strings; none where the elements are not strings.
    pub fn iter_bytes(self) -> impl ExactSizeIterator<Item = &'a [u8]> + 'a {
        let len = if self.ty == ValueType::String { self.len } else { 0 };
        let mut at = 0;
        (0..len).map(move |_| {
            let string = match self.order {
                ByteOrder::Little => string_at::<LittleEndian>(self.bytes, at),
                ByteOrder::Big => string_at::<BigEndian>(self.bytes, at),
            };
            at += 8 + string.len();
            string
        })
    }

    /// The elements as integers; those that are none, or out of range, are 0.
    /// [`Metadata::u32_array`](super::Metadata::u32_array) refuses such an array.
    pub fn iter_u32(self) -> impl ExactSizeIterator<Item = u32> + 'a {
        self.iter().map(|x| x.whole().and_then(|x| u32::try_from(x).ok()).unwrap_or(0))
    }

    /// The elements as integers; those that are none, or out of range, are 0.
    /// [`Metadata::i32_array`](super::Metadata::i32_array) refuses such an array.
    pub fn iter_i32(self) -> impl ExactSizeIterator<Item = i32> + 'a {
        self.iter().map(|x| x.whole().and_then(|x| i32::try_from(x).ok()).unwrap_or(0))
    }

    /// The elements as floats; those that are no numbers are NaN.
    /// [`Metadata::f32_array`](super::Metadata::f32_array) refuses such an array.
    pub fn iter_f32(self) -> impl ExactSizeIterator<Item = f32> + 'a {
        self.iter().map(|x| x.float().map_or(f32::NAN, |x| x as f32))
    }
}

fn string_at<E: Endian>(bytes: &[u8], at: usize) -> &[u8] {
    Cursor::<E>::new(bytes, at).string("").unwrap_or_default()
}
