//! Parsing: every length is checked against what is left of the file before it is used.
//!
//! The format is described in ggml's `docs/gguf.md`: magic, version, counts, key-value pairs,
//! tensor infos, padding, data. Version 1 had 32-bit counts and is not read.

use std::collections::HashMap;
use std::path::Path;
use std::sync::Arc;

use byteorder::{BigEndian, ByteOrder as Order, LittleEndian};
use siskin_quant::GgmlType;

use super::TensorInfo;
use super::mmap::Mmap;
use super::value::{Metadata, Raw, Value, ValueType};
use crate::{Error, Result};

/// Arrays of arrays of arrays, and no deeper.
const MAX_NESTING: usize = 4;
/// ggml's limit.
const MAX_DIMS: u32 = 4;

/// The order of the bytes of a file's numbers.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ByteOrder {
    /// As on x86 and Arm.
    Little,
    /// As on s390x.
    Big,
}

impl ByteOrder {
    pub(super) fn u32(self, b: &[u8]) -> u32 {
        match self {
            ByteOrder::Little => LittleEndian::read_u32(b),
            ByteOrder::Big => BigEndian::read_u32(b),
        }
    }

    pub(super) fn u64(self, b: &[u8]) -> u64 {
        match self {
            ByteOrder::Little => LittleEndian::read_u64(b),
            ByteOrder::Big => BigEndian::read_u64(b),
        }
    }

    /// A number of type `ty`, from as many bytes as it has.
    pub(super) fn scalar<'a>(self, ty: ValueType, b: &[u8]) -> Value<'a> {
        match self {
            ByteOrder::Little => scalar::<LittleEndian>(ty, b),
            ByteOrder::Big => scalar::<BigEndian>(ty, b),
        }
    }
}

fn scalar<'a, O: Order>(ty: ValueType, b: &[u8]) -> Value<'a> {
    match ty {
        ValueType::U8 => Value::U8(b[0]),
        ValueType::I8 => Value::I8(b[0] as i8),
        ValueType::Bool => Value::Bool(b[0] != 0),
        ValueType::U16 => Value::U16(O::read_u16(b)),
        ValueType::I16 => Value::I16(O::read_i16(b)),
        ValueType::U32 => Value::U32(O::read_u32(b)),
        ValueType::I32 => Value::I32(O::read_i32(b)),
        ValueType::F32 => Value::F32(O::read_f32(b)),
        ValueType::U64 => Value::U64(O::read_u64(b)),
        ValueType::I64 => Value::I64(O::read_i64(b)),
        ValueType::F64 => Value::F64(O::read_f64(b)),
        ValueType::String | ValueType::Array => Value::String(&[]),
    }
}

/// Where parsing stands.
struct Cursor<'a> {
    bytes: &'a [u8],
    at: usize,
    order: ByteOrder,
    path: &'a Path,
}

impl<'a> Cursor<'a> {
    fn error(&self, at: usize, reason: impl Into<String>) -> Error {
        Error::Gguf { path: self.path.to_path_buf(), offset: at as u64, reason: reason.into() }
    }

    fn take(&mut self, n: usize, what: &str) -> Result<&'a [u8]> {
        let left = self.bytes.len() - self.at;
        if n > left {
            let reason = format!("the file ends within {what}: {n} bytes wanted, {left} left");
            return Err(self.error(self.at, reason));
        }
        let taken = &self.bytes[self.at..self.at + n];
        self.at += n;
        Ok(taken)
    }

    fn u32(&mut self, what: &str) -> Result<u32> {
        Ok(self.order.u32(self.take(4, what)?))
    }

    fn u64(&mut self, what: &str) -> Result<u64> {
        Ok(self.order.u64(self.take(8, what)?))
    }

    /// A count of things that take at least `least` bytes each.
    fn count(&mut self, least: usize, what: &str) -> Result<usize> {
        let at = self.at;
        let n = self.u64(what)?;
        let left = self.bytes.len() - self.at;
        match usize::try_from(n) {
            Ok(n) if n <= left / least => Ok(n),
            _ => {
                let reason = format!("{what} is {n}, but only {left} bytes are left");
                Err(self.error(at, reason))
            }
        }
    }

    fn string(&mut self, what: &str) -> Result<&'a [u8]> {
        let n = self.count(1, what)?;
        self.take(n, what)
    }

    fn utf8(&mut self, what: &str) -> Result<&'a str> {
        let at = self.at;
        let bytes = self.string(what)?;
        std::str::from_utf8(bytes).map_err(|_| self.error(at, format!("{what} is not UTF-8")))
    }

    fn value_type(&mut self, what: &str) -> Result<ValueType> {
        let at = self.at;
        let id = self.u32(what)?;
        ValueType::from_u32(id)
            .ok_or_else(|| self.error(at, format!("{what} is {id}, which is no value type")))
    }

    fn raw(&mut self, ty: ValueType, key: &str) -> Result<Raw> {
        if let Some(size) = ty.size() {
            let mut bytes = [0; 8];
            bytes[..size].copy_from_slice(self.take(size, key)?);
            return Ok(Raw::Scalar(ty, bytes));
        }
        if ty == ValueType::String {
            let len = self.string(key)?.len();
            return Ok(Raw::String { at: self.at - len, len });
        }
        let ty = self.value_type("the type of an array")?;
        let len = self.count(ty.size().unwrap_or(8), "the length of an array")?;
        let at = self.at;
        let mut offsets = Vec::new();
        match ty.size() {
            Some(size) => {
                self.take(len * size, key)?;
            }
            None if ty == ValueType::String => {
                offsets.reserve_exact(len);
                for _ in 0..len {
                    let offset = u32::try_from(self.at - at).map_err(|_| {
                        self.error(self.at, format!("{key} has more than 4 GiB of strings"))
                    })?;
                    offsets.push(offset);
                    self.string(key)?;
                }
            }
            None => {
                for _ in 0..len {
                    self.skip_array(key, 1)?;
                }
            }
        }
        Ok(Raw::Array { ty, at, bytes: self.at - at, len, offsets })
    }

    fn skip_array(&mut self, key: &str, depth: usize) -> Result<()> {
        if depth >= MAX_NESTING {
            return Err(self.error(self.at, format!("{key} nests arrays too deep")));
        }
        let ty = self.value_type("the type of an array")?;
        let len = self.count(ty.size().unwrap_or(8), "the length of an array")?;
        match ty.size() {
            Some(size) => self.take(len * size, key).map(|_| ()),
            None => (0..len).try_for_each(|_| match ty {
                ValueType::String => self.string(key).map(|_| ()),
                _ => self.skip_array(key, depth + 1),
            }),
        }
    }

    fn metadata(&mut self, n: usize, map: &Arc<Mmap>, path: &Arc<Path>) -> Result<Metadata> {
        let mut entries = Vec::with_capacity(n.min(1024));
        let mut index = HashMap::with_capacity(n.min(1024));
        for i in 0..n {
            let at = self.at;
            let key = self.utf8("a key")?;
            if index.insert(key.to_string(), i).is_some() {
                return Err(self.error(at, format!("key {key} is there twice")));
            }
            let ty = self.value_type(key)?;
            let value_at = self.at;
            let raw = self.raw(ty, key)?;
            entries.push((key.to_string(), value_at, raw));
        }
        Ok(Metadata { map: map.clone(), order: self.order, path: path.clone(), entries, index })
    }

    /// A tensor's info, its offset relative to the data.
    fn tensor(&mut self, part: usize) -> Result<TensorInfo> {
        let at = self.at;
        let name = self.utf8("a tensor's name")?.to_string();
        let n_dims = self.u32("a number of dimensions")?;
        if n_dims == 0 || n_dims > MAX_DIMS {
            return Err(self.error(at, format!("tensor {name} has {n_dims} dimensions")));
        }
        let mut shape = Vec::with_capacity(n_dims as usize);
        for _ in 0..n_dims {
            shape.push(self.u64("a dimension")?);
        }
        let id = self.u32("a tensor's type")?;
        let Some(ty) = GgmlType::from_u32(id) else {
            let reason = format!("tensor {name} has type {id}, which is not known");
            return Err(self.error(at, reason));
        };
        let offset = self.u64("a tensor's offset")?;
        let row = usize::try_from(shape[0]).ok().and_then(|cols| ty.row_bytes(cols));
        let Some(row) = row else {
            let reason = format!("tensor {name} has rows of {}, no whole blocks of {ty}", shape[0]);
            return Err(self.error(at, reason));
        };
        let rows = shape[1..].iter().try_fold(1u64, |n, d| n.checked_mul(*d));
        let n_bytes = rows.and_then(|rows| rows.checked_mul(row as u64));
        match n_bytes {
            Some(n_bytes) if n_bytes > 0 => {
                Ok(TensorInfo { name, ty, shape, part, offset, n_bytes })
            }
            _ => {
                Err(self
                    .error(at, format!("tensor {name} of shape {shape:?} is empty or too large")))
            }
        }
    }
}

/// What is in one file.
pub(super) struct Parsed {
    pub version: u32,
    pub order: ByteOrder,
    pub metadata: Metadata,
    pub tensors: Vec<TensorInfo>,
}

/// Parses the file `map`, part number `part`.
pub(super) fn parse(map: &Arc<Mmap>, path: &Arc<Path>, part: usize) -> Result<Parsed> {
    let mut c = Cursor { bytes: map, at: 0, order: ByteOrder::Little, path };
    if !map.starts_with(b"GGUF") {
        return Err(c.error(0, not_gguf(map)));
    }
    c.at = 4;
    let raw = c.u32("the version")?;
    let (version, order) = match raw {
        2 | 3 => (raw, ByteOrder::Little),
        1 => return Err(c.error(4, V1)),
        _ => match raw.swap_bytes() {
            swapped @ (2 | 3) => (swapped, ByteOrder::Big),
            1 => return Err(c.error(4, V1)),
            _ => {
                return Err(
                    c.error(4, format!("GGUF version {raw} is not known; 2 and 3 are read"))
                );
            }
        },
    };
    c.order = order;
    // A tensor's info takes at least 24 bytes, a pair 13.
    let n_tensors = c.count(24, "the number of tensors")?;
    let n_pairs = c.count(13, "the number of keys")?;
    let metadata = c.metadata(n_pairs, map, path)?;
    let alignment = metadata.u32("general.alignment")?.unwrap_or(32);
    if !alignment.is_power_of_two() || alignment > 1 << 20 {
        let reason =
            format!("general.alignment is {alignment}, which is no power of two up to 2^20");
        return Err(c.error(c.at, reason));
    }
    let mut tensors = Vec::with_capacity(n_tensors);
    let mut infos_at = Vec::with_capacity(n_tensors);
    for _ in 0..n_tensors {
        infos_at.push(c.at);
        tensors.push(c.tensor(part)?);
    }
    place(&c, &mut tensors, &infos_at, u64::from(alignment))?;
    Ok(Parsed { version, order, metadata, tensors })
}

const V1: &str = "GGUF version 1 is not read: convert the model again with a current converter";

/// Makes the tensors' offsets absolute and checks that they lie in the file, aligned, apart.
fn place(c: &Cursor<'_>, tensors: &mut [TensorInfo], infos_at: &[usize], align: u64) -> Result<()> {
    let size = c.bytes.len() as u64;
    let base = (c.at as u64).next_multiple_of(align);
    for (t, at) in tensors.iter_mut().zip(infos_at) {
        let relative = t.offset;
        if !relative.is_multiple_of(align) {
            let reason = format!("tensor {} is at {relative}, no multiple of {align}", t.name);
            return Err(c.error(*at, reason));
        }
        let start = base.checked_add(relative);
        match start.and_then(|s| s.checked_add(t.n_bytes)) {
            Some(end) if end <= size => t.offset = base + relative,
            _ => {
                let reason = format!(
                    "tensor {} has {} bytes at {relative} of the data, which begins at {base}: \
                     past the end of the file, {size}; the file is truncated or was not \
                     downloaded whole",
                    t.name, t.n_bytes
                );
                return Err(c.error(*at, reason));
            }
        }
    }
    let mut order: Vec<usize> = (0..tensors.len()).collect();
    order.sort_unstable_by_key(|i| tensors[*i].offset);
    for pair in order.windows(2) {
        let (a, b) = (&tensors[pair[0]], &tensors[pair[1]]);
        if a.offset + a.n_bytes > b.offset {
            let reason = format!("tensors {} and {} overlap", a.name, b.name);
            return Err(c.error(infos_at[pair[1]], reason));
        }
    }
    Ok(())
}

/// What a file is that is no GGUF file.
fn not_gguf(bytes: &[u8]) -> String {
    let text = bytes.trim_ascii_start();
    let starts = |prefix: &[u8]| {
        text.len() >= prefix.len() && text[..prefix.len()].eq_ignore_ascii_case(prefix)
    };
    let is = if bytes.is_empty() {
        "is empty"
    } else if starts(b"<!doctype html") || starts(b"<html") {
        "is an HTML page: the download got a web page instead of the model"
    } else if bytes.starts_with(b"version https://git-lfs") {
        "is a git-lfs pointer: fetch the file itself with `git lfs pull`"
    } else if bytes.starts_with(b"lmgg") || bytes.starts_with(b"fmgg") || bytes.starts_with(b"tjgg")
    {
        "is an old GGML file: convert the model again, to GGUF"
    } else if bytes.starts_with(b"\x1f\x8b") || bytes.starts_with(b"PK\x03\x04") {
        "is an archive: unpack it first"
    } else if bytes.get(8) == Some(&b'{') {
        "is a safetensors checkpoint: convert it to GGUF first"
    } else if starts(b"{") || starts(b"Entry not found") || starts(b"Invalid") {
        "is a message of a server, not a model"
    } else if bytes.starts_with(b"FUGG") {
        "has its magic turned round, which no version of GGUF does"
    } else {
        "does not begin with `GGUF`"
    };
    format!("no GGUF file: it {is}")
}
