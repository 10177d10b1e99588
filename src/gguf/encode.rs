//! Metadata values as bytes.

use super::value::{Array, ByteOrder, Value, ValueType};

/// Bytes in one of the two orders.
#[derive(Debug)]
pub struct Encoder {
    pub(super) bytes: Vec<u8>,
    pub(super) order: ByteOrder,
}

impl Encoder {
    /// Appends a number whose bytes, in little-endian order, are `le`.
    pub(super) fn number<const N: usize>(&mut self, mut le: [u8; N]) {
        if self.order == ByteOrder::Big {
            le.reverse();
        }
        self.bytes.extend_from_slice(&le);
    }

    pub(super) fn string(&mut self, string: &[u8]) {
        self.number((string.len() as u64).to_le_bytes());
        self.bytes.extend_from_slice(string);
    }

    pub(super) fn ty(&mut self, ty: ValueType) {
        self.number(u32::from(ty as u8).to_le_bytes());
    }

    fn array_head(&mut self, ty: ValueType, len: usize) {
        self.ty(ty);
        self.number((len as u64).to_le_bytes());
    }

    /// Appends a value without its type.
    pub(super) fn value(&mut self, value: Value<'_>) {
        match value {
            Value::U8(x) => x.encode(self),
            Value::I8(x) => x.encode(self),
            Value::U16(x) => x.encode(self),
            Value::I16(x) => x.encode(self),
            Value::U32(x) => x.encode(self),
            Value::I32(x) => x.encode(self),
            Value::F32(x) => x.encode(self),
            Value::Bool(x) => x.encode(self),
            Value::String(x) => self.string(x),
            Value::Array(x) => self.array(x),
            Value::U64(x) => x.encode(self),
            Value::I64(x) => x.encode(self),
            Value::F64(x) => x.encode(self),
        }
    }

    fn array(&mut self, array: Array<'_>) {
        self.array_head(array.element_type(), array.len());
        if array.element_type() == ValueType::String {
            array.iter_bytes().for_each(|x| self.string(x));
        } else {
            // What `iter` gives is of the array's type, unless the file was changed while it was
            // mapped; the result would then be refused by the reader.
            array.iter().for_each(|x| self.value(x));
        }
    }
}

/// What can be written as the value of a key: numbers, truth values, strings, and arrays of them,
/// also arrays of arrays.
///
/// Strings that are not UTF-8 are written as [`Bytes`].
pub trait Encode {
    /// The type that the value has in the file.
    #[doc(hidden)]
    const TYPE: ValueType;

    /// Appends the value.
    #[doc(hidden)]
    fn encode(&self, to: &mut Encoder);

    /// How deep arrays are nested in this one; 0 for what is no array.
    #[doc(hidden)]
    fn depth(&self) -> usize {
        0
    }
}

macro_rules! numbers {
    ($($t:ty = $ty:ident),*) => { $(
        impl Encode for $t {
            const TYPE: ValueType = ValueType::$ty;
            fn encode(&self, to: &mut Encoder) {
                to.number(self.to_le_bytes());
            }
        }
    )* };
}

numbers!(
    u8 = U8,
    i8 = I8,
    u16 = U16,
    i16 = I16,
    u32 = U32,
    i32 = I32,
    f32 = F32,
    u64 = U64,
    i64 = I64,
    f64 = F64
);

impl Encode for bool {
    const TYPE: ValueType = ValueType::Bool;
    fn encode(&self, to: &mut Encoder) {
        to.number([u8::from(*self)]);
    }
}

/// A string of any bytes, as tokens are.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Bytes<'a>(
    /// The bytes.
    pub &'a [u8],
);

impl Encode for Bytes<'_> {
    const TYPE: ValueType = ValueType::String;
    fn encode(&self, to: &mut Encoder) {
        to.string(self.0);
    }
}

impl Encode for str {
    const TYPE: ValueType = ValueType::String;
    fn encode(&self, to: &mut Encoder) {
        to.string(self.as_bytes());
    }
}

impl Encode for String {
    const TYPE: ValueType = ValueType::String;
    fn encode(&self, to: &mut Encoder) {
        to.string(self.as_bytes());
    }
}

impl<T: Encode + ?Sized> Encode for &T {
    const TYPE: ValueType = T::TYPE;
    fn encode(&self, to: &mut Encoder) {
        (**self).encode(to);
    }
    fn depth(&self) -> usize {
        (**self).depth()
    }
}

impl<T: Encode> Encode for [T] {
    const TYPE: ValueType = ValueType::Array;
    fn encode(&self, to: &mut Encoder) {
        to.array_head(T::TYPE, self.len());
        self.iter().for_each(|x| x.encode(to));
    }
    fn depth(&self) -> usize {
        1 + self.iter().map(T::depth).max().unwrap_or(0)
    }
}

impl<T: Encode> Encode for Vec<T> {
    const TYPE: ValueType = ValueType::Array;
    fn encode(&self, to: &mut Encoder) {
        self.as_slice().encode(to);
    }
    fn depth(&self) -> usize {
        self.as_slice().depth()
    }
}
