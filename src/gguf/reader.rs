//! Parsing: every length is checked against what is left of the file before it is used.
//!
//! The layout, as ggml's `docs/gguf.md` describes it: magic, version, counts, key-value pairs,
//! tensor infos, padding, data. Version 1 had 32-bit counts and is not read. Version 3 only added
//! big-endian files, which are told by the version's bytes.

use std::path::Path;
use std::sync::Arc;

use byteorder::{BigEndian, LittleEndian};
use siskin_quant::GgmlType;

use super::TensorInfo;
use super::cursor::{Cursor, Fault};
use super::metadata::{Index, LEAST_PAIR, Metadata};
use super::mmap::Mmap;
use super::sniff;
use super::value::{ByteOrder, Endian};
use crate::{Error, Result};

/// ggml's limit.
pub(super) const MAX_DIMS: u32 = 4;

/// The least that a tensor takes: its info with no name and no dimension, and as many bytes of
/// data as the least alignment.
const LEAST_TENSOR: usize = 8 + 4 + 4 + 8 + LEAST_ALIGNMENT as usize;

/// The format asks for a multiple of 8.
pub(super) const LEAST_ALIGNMENT: u32 = 8;

/// Where a file does not say.
pub(super) const DEFAULT_ALIGNMENT: u32 = 32;

/// The key that says.
pub(super) const ALIGNMENT: &str = "general.alignment";

/// What is in one file.
pub(super) struct Parsed {
    pub version: u32,
    pub metadata: Metadata,
    pub tensors: Vec<TensorInfo>,
    /// Where each tensor's info begins.
    pub infos_at: Vec<usize>,
}

/// Parses the file `map`, part number `part`.
pub(super) fn parse(map: &Arc<Mmap>, path: &Arc<Path>, part: usize) -> Result<Parsed> {
    let parsed = version(map).and_then(|(version, order)| match order {
        ByteOrder::Little => body::<LittleEndian>(map, path, part, version),
        ByteOrder::Big => body::<BigEndian>(map, path, part, version),
    });
    parsed.map_err(|fault| Error::Gguf {
        path: path.to_path_buf(),
        offset: fault.at as u64,
        reason: fault.reason,
    })
}

fn version(bytes: &[u8]) -> Result<(u32, ByteOrder), Fault> {
    let Some(rest) = bytes.strip_prefix(b"GGUF") else {
        return Err(Fault::new(0, sniff::not_gguf(bytes)));
    };
    let Some(raw) = rest.first_chunk::<4>() else {
        return Err(Fault::new(4, "the file ends within the version"));
    };
    let (little, big) = (u32::from_le_bytes(*raw), u32::from_be_bytes(*raw));
    let reason = match (little, big) {
        (2 | 3, _) => return Ok((little, ByteOrder::Little)),
        (_, 2 | 3) => return Ok((big, ByteOrder::Big)),
        (1, _) | (_, 1) => "GGUF v1 is not read: re-convert the model with a current converter \
                            (versions 2 and 3 are read)"
            .to_string(),
        (4..0x1_0000, _) => {
            format!("GGUF version {little} is newer than this program, which reads 2 and 3")
        }
        (_, 4..0x1_0000) => format!(
            "GGUF version {big} (big-endian) is newer than this program, which reads 2 and 3"
        ),
        _ => format!("{little} is no version of GGUF in either byte order"),
    };
    Err(Fault::new(4, reason))
}

fn body<E: Endian>(
    map: &Arc<Mmap>,
    path: &Arc<Path>,
    part: usize,
    version: u32,
) -> Result<Parsed, Fault> {
    let mut c = Cursor::<E>::new(map, 8);
    let n_tensors = c.count(1, "the number of tensors")?;
    let n_pairs = c.count(LEAST_PAIR, "the number of keys")?;
    // Checked before the pairs are read, so that a lie is found where it stands.
    if n_tensors > (c.left() + LEAST_ALIGNMENT as usize) / LEAST_TENSOR {
        let reason = format!(
            "the number of tensors is {n_tensors}, too many for {} bytes: the file was cut \
                     short, or is damaged",
            c.left()
        );
        return Err(Fault::new(8, reason));
    }
    let index = Index::parse(&mut c, map, n_pairs)?;
    let (map, path) = (map.clone(), path.clone());
    let metadata = Metadata { map: map.clone(), path, order: E::ORDER, index };
    let alignment = alignment(&metadata)?;
    if n_tensors > (c.left() + LEAST_ALIGNMENT as usize) / LEAST_TENSOR {
        let reason = format!(
            "the number of tensors is {n_tensors}, too many for the {} bytes after the keys",
            c.left()
        );
        return Err(Fault::new(8, reason));
    }
    let mut tensors = Vec::with_capacity(n_tensors);
    let mut infos_at = Vec::with_capacity(n_tensors);
    for _ in 0..n_tensors {
        infos_at.push(c.at());
        tensors.push(tensor(&mut c, part)?);
    }
    place(&c, &mut tensors, &infos_at, alignment)?;
    Ok(Parsed { version, metadata, tensors, infos_at })
}

fn alignment(metadata: &Metadata) -> Result<u64, Fault> {
    let Some(value) = metadata.get(ALIGNMENT) else { return Ok(DEFAULT_ALIGNMENT.into()) };
    match value.integer().and_then(|x| u32::try_from(x).ok()) {
        Some(x) if x.is_power_of_two() && x >= LEAST_ALIGNMENT => Ok(x.into()),
        _ => Err(Fault::new(
            metadata.place(ALIGNMENT),
            format!("{ALIGNMENT} is {value:?}, not a power of two from {LEAST_ALIGNMENT} on"),
        )),
    }
}

/// Reads a tensor's info; its offset stays relative to the data.
fn tensor<E: Endian>(c: &mut Cursor<'_, E>, part: usize) -> Result<TensorInfo, Fault> {
    let name = c.utf8("a tensor's name")?;
    let at = c.at();
    let n_dims = c.u32(format_args!("the number of dimensions of {name}"))?;
    if n_dims > MAX_DIMS {
        let reason = format!("{name} has {n_dims} dimensions; {MAX_DIMS} are the most");
        return Err(Fault::new(at, reason));
    }
    let dims_at = c.at();
    // ggml takes no dimension for a single number.
    let mut shape = if n_dims == 0 { vec![1] } else { Vec::with_capacity(n_dims as usize) };
    for _ in 0..n_dims {
        shape.push(c.u64(format_args!("the dimensions of {name}"))?);
    }
    let at = c.at();
    let id = c.u32(format_args!("the type of {name}"))?;
    let Some(ty) = GgmlType::from_u32(id) else {
        return Err(Fault::new(at, format!("{name} has type {id}, {}", unknown_type(id))));
    };
    let n_bytes = n_bytes(ty, &shape).map_err(|wrong| {
        Fault::new(dims_at, format!("{name} is {ty} of shape {shape:?}: {wrong}"))
    })?;
    let offset = c.u64(format_args!("the offset of {name}"))?;
    Ok(TensorInfo { name: name.to_string(), ty, shape, part, offset, n_bytes })
}

/// Bytes of a tensor, or what is wrong with its shape.
pub(super) fn n_bytes(ty: GgmlType, shape: &[u64]) -> Result<u64, String> {
    if shape.contains(&0) {
        return Err("it has no elements".to_string());
    }
    let (Some(row), rows) = (shape.first(), shape.get(1..).unwrap_or_default()) else {
        return Err("it has no dimensions".to_string());
    };
    let (block_len, block_bytes) = (ty.block_len() as u64, ty.block_bytes() as u64);
    if !row.is_multiple_of(block_len) {
        return Err(format!("a row is not a multiple of {block_len} elements, {ty}'s block"));
    }
    let blocks = rows.iter().try_fold(row / block_len, |n, rows| n.checked_mul(*rows));
    let n_bytes = blocks.and_then(|blocks| blocks.checked_mul(block_bytes));
    // ggml counts in signed integers.
    match n_bytes {
        Some(n_bytes) if i64::try_from(n_bytes).is_ok() => Ok(n_bytes),
        _ => Err("it has more than 2^63 bytes".to_string()),
    }
}

/// What is known of a type number that no current file has.
fn unknown_type(id: u32) -> &'static str {
    match id {
        4 | 5 => "Q4_2 or Q4_3, which ggml removed in 2023: re-convert the model",
        31..=33 => "Q4_0 repacked for one processor, which ggml removed: use the Q4_0 file instead",
        36..=38 => {
            "IQ4_NL repacked for one processor, which ggml removed: use the IQ4_NL file instead"
        }
        _ => "which is not known: the file may be newer than this program, or damaged",
    }
}

/// Makes the tensors' offsets absolute and checks that they lie in the file, aligned, apart.
fn place<E: Endian>(
    c: &Cursor<'_, E>,
    tensors: &mut [TensorInfo],
    infos_at: &[usize],
    align: u64,
) -> Result<(), Fault> {
    let size = (c.at() + c.left()) as u64;
    let base = (c.at() as u64).next_multiple_of(align);
    for (t, at) in tensors.iter_mut().zip(infos_at) {
        let (name, relative) = (&t.name, t.offset);
        if !relative.is_multiple_of(align) {
            let reason = format!("{name} is at {relative} of the data, no multiple of {align}");
            return Err(Fault::new(*at, reason));
        }
        let start = base.checked_add(relative);
        match (start, start.and_then(|s| s.checked_add(t.n_bytes))) {
            (Some(start), Some(end)) if end <= size => t.offset = start,
            (Some(start), Some(end)) => {
                let reason = format!(
                    "the data of {name} are bytes {start} to {end}, but the file has {size}: it \
                     was cut short, or not downloaded whole"
                );
                return Err(Fault::new(*at, reason));
            }
            _ => {
                let reason = format!("{name} is at {relative} of the data, past any file's end");
                return Err(Fault::new(*at, reason));
            }
        }
    }
    let Ok(n) = u32::try_from(tensors.len()) else {
        return Err(Fault::new(8, "there are more than 2^32 tensors"));
    };
    let mut order: Vec<u32> = (0..n).collect();
    order.sort_unstable_by_key(|i| (tensors[*i as usize].offset, *i));
    for pair in order.windows(2) {
        let (a, b) = (&tensors[pair[0] as usize], &tensors[pair[1] as usize]);
        if a.offset + a.n_bytes > b.offset {
            let reason = format!("{} begins within the data of {}", b.name, a.name);
            return Err(Fault::new(infos_at[pair[1] as usize], reason));
        }
    }
    Ok(())
}
