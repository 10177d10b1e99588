//! A place in a file's bytes: every read is checked against what is left.

use std::fmt::Display;
use std::marker::PhantomData;

use super::value::{Array, Endian, MAX_NESTING, Value, ValueType};

/// What is wrong with a file and where; it becomes an error when the path is known.
#[derive(Debug)]
pub(super) struct Fault {
    pub at: usize,
    pub reason: String,
}

impl Fault {
    pub(super) fn new(at: usize, reason: impl Into<String>) -> Fault {
        Fault { at, reason: reason.into() }
    }
}

/// Reads numbers and strings of byte order `E`, one after the other.
pub(super) struct Cursor<'a, E> {
    bytes: &'a [u8],
    at: usize,
    order: PhantomData<E>,
}

impl<'a, E: Endian> Cursor<'a, E> {
    pub(super) fn new(bytes: &'a [u8], at: usize) -> Self {
        Cursor { bytes, at: at.min(bytes.len()), order: PhantomData }
    }

    /// Where the next read begins.
    pub(super) fn at(&self) -> usize {
        self.at
    }

    /// Bytes that are not read yet.
    pub(super) fn left(&self) -> usize {
        self.bytes.len() - self.at
    }

    /// The next `n` bytes. What they are is named by `what` if the file ends before.
    pub(super) fn take(&mut self, n: usize, what: impl Display) -> Result<&'a [u8], Fault> {
        match self.bytes[self.at..].get(..n) {
            Some(taken) => {
                self.at += n;
                Ok(taken)
            }
            None => {
                let left = self.left();
                let reason = format!("the file ends within {what}: {n} bytes wanted, {left} left");
                Err(Fault::new(self.at, reason))
            }
        }
    }

    pub(super) fn u32(&mut self, what: impl Display) -> Result<u32, Fault> {
        Ok(E::read_u32(self.take(4, what)?))
    }

    pub(super) fn u64(&mut self, what: impl Display) -> Result<u64, Fault> {
        Ok(E::read_u64(self.take(8, what)?))
    }

    /// A count of things of which each takes at least `least` bytes of what is left of the file.
    pub(super) fn count(&mut self, least: usize, what: impl Display) -> Result<usize, Fault> {
        let at = self.at;
        let n = self.u64(&what)?;
        let left = self.left();
        match usize::try_from(n) {
            Ok(n) if n <= left / least => Ok(n),
            _ => Err(Fault::new(at, format!("{what} is {n}, but only {left} bytes are left"))),
        }
    }

    pub(super) fn string(&mut self, what: impl Display) -> Result<&'a [u8], Fault> {
        let n = self.count(1, format_args!("the length of {what}"))?;
        self.take(n, what)
    }

    pub(super) fn utf8(&mut self, what: &str) -> Result<&'a str, Fault> {
        let bytes = self.string(what)?;
        std::str::from_utf8(bytes).map_err(|e| {
            Fault::new(self.at - bytes.len() + e.valid_up_to(), format!("{what} is not UTF-8"))
        })
    }

    pub(super) fn value_type(&mut self, what: impl Display) -> Result<ValueType, Fault> {
        let at = self.at;
        let id = self.u32(&what)?;
        ValueType::from_u32(id)
            .ok_or_else(|| Fault::new(at, format!("{what} is {id}, which is no value type")))
    }

    /// A value of type `ty`. Of an array, what stands before its elements is read.
    pub(super) fn value(&mut self, ty: ValueType, key: &str) -> Result<Value<'a>, Fault> {
        match ty {
            ValueType::String => Ok(Value::String(self.string(key)?)),
            ValueType::Array => Ok(Value::Array(self.array(key)?)),
            _ => {
                let size = ty.size().unwrap_or(0);
                Ok(scalar::<E>(ty, self.take(size, key)?))
            }
        }
    }

    /// The type and length of an array; its elements come next.
    pub(super) fn array(&mut self, key: &str) -> Result<Array<'a>, Fault> {
        let ty = self.value_type(format_args!("the type of the elements of {key}"))?;
        let least = match ty {
            ValueType::String => 8,
            ValueType::Array => 12,
            _ => ty.size().unwrap_or(8),
        };
        let len = self.count(least, format_args!("the length of {key}"))?;
        Ok(Array::new::<E>(&self.bytes[self.at..], ty, len))
    }

    /// Reads over the elements of an array, and with `starts` takes down where each string or
    /// array among them begins, counted from the first.
    pub(super) fn skip_elements(
        &mut self,
        array: &Array<'a>,
        key: &str,
        depth: usize,
        mut starts: Option<&mut Vec<u32>>,
    ) -> Result<(), Fault> {
        if depth >= MAX_NESTING {
            let reason = format!("{key} nests arrays more than {MAX_NESTING} deep");
            return Err(Fault::new(self.at, reason));
        }
        let first = self.at;
        let what = format_args!("{key}");
        if let Some(size) = array.element_type().size() {
            // `array` has seen that the product is no more than what is left of the file.
            return self.take(array.len().saturating_mul(size), what).map(|_| ());
        }
        for _ in 0..array.len() {
            if let Some(starts) = starts.as_deref_mut() {
                let start = u32::try_from(self.at - first).map_err(|_| {
                    Fault::new(self.at, format!("{key} is an array of more than 4 GiB"))
                })?;
                starts.push(start);
            }
            if array.element_type() == ValueType::String {
                self.string(what)?;
            } else {
                let inner = self.array(key)?;
                self.skip_elements(&inner, key, depth + 1, None)?;
            }
        }
        Ok(())
    }
}

/// The number of type `ty` in `b`, which has that type's size.
pub(super) fn scalar<'a, E: Endian>(ty: ValueType, b: &[u8]) -> Value<'a> {
    match ty {
        ValueType::U8 => Value::U8(b[0]),
        ValueType::I8 => Value::I8(b[0] as i8),
        ValueType::Bool => Value::Bool(b[0] != 0),
        ValueType::U16 => Value::U16(E::read_u16(b)),
        ValueType::I16 => Value::I16(E::read_i16(b)),
        ValueType::U32 => Value::U32(E::read_u32(b)),
        ValueType::I32 => Value::I32(E::read_i32(b)),
        ValueType::F32 => Value::F32(E::read_f32(b)),
        ValueType::U64 => Value::U64(E::read_u64(b)),
        ValueType::I64 => Value::I64(E::read_i64(b)),
        ValueType::F64 => Value::F64(E::read_f64(b)),
        ValueType::String | ValueType::Array => Value::String(&[]),
    }
}
