//! Safetensors files: 8 bytes for the header's length, a JSON header, the tensors' bytes.
//!
//! The crate of that name checks a header only together with the whole file in memory. Files are
//! read here by position instead, so that a checkpoint of any size takes little memory.

use std::collections::HashMap;
use std::fmt;
use std::fs::File;
use std::path::{Path, PathBuf};

use serde::de::{Deserializer, MapAccess, Visitor};
use serde::{Deserialize, de};

use super::json;
use crate::{Error, Result};

/// The longest header that is read, as in the reference implementation.
const MAX_HEADER: u64 = 100_000_000;
/// The most dimensions of a tensor.
const MAX_DIMS: usize = 8;
/// The shard index.
const INDEX: &str = "model.safetensors.index.json";

/// How values are stored.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Dtype {
    F32,
    F16,
    Bf16,
    /// 4 bits of exponent, 3 of mantissa; no infinities.
    F8E4M3,
}

impl Dtype {
    fn parse(name: &str) -> Option<Dtype> {
        Some(match name {
            "F32" => Dtype::F32,
            "F16" => Dtype::F16,
            "BF16" => Dtype::Bf16,
            "F8_E4M3" => Dtype::F8E4M3,
            _ => return None,
        })
    }

    /// Bytes of a value.
    pub(super) fn bytes(self) -> usize {
        match self {
            Dtype::F32 => 4,
            Dtype::F16 | Dtype::Bf16 => 2,
            Dtype::F8E4M3 => 1,
        }
    }
}

/// A tensor as a file has it.
#[derive(Clone, Debug)]
pub(super) struct HubTensor {
    pub(super) name: String,
    /// `None`: a type that holds no weights, such as an integer; `dtype_name` says which.
    pub(super) dtype: Option<Dtype>,
    pub(super) dtype_name: String,
    /// In the checkpoint's order: the length of a row comes last.
    pub(super) shape: Vec<u64>,
    /// Index into [`Shards::files`].
    pub(super) file: usize,
    /// Where its bytes begin in that file.
    pub(super) offset: u64,
}

impl HubTensor {
    /// Values of a row; 1 for a vector, whose rows are its values.
    pub(super) fn cols(&self) -> u64 {
        if self.shape.len() > 1 { self.shape.last().copied().unwrap_or(1) } else { 1 }
    }

    /// Rows, over all dimensions but the last; the values of a vector.
    pub(super) fn rows(&self) -> u64 {
        match self.shape.as_slice() {
            [] => 1,
            [n] => *n,
            [rows @ .., _] => rows.iter().product(),
        }
    }
}

/// A file that several threads read at once, by position.
#[derive(Debug)]
pub(super) struct Shard {
    pub(super) path: PathBuf,
    #[cfg(unix)]
    file: File,
    #[cfg(not(unix))]
    file: std::sync::Mutex<File>,
}

impl Shard {
    fn open(path: &Path) -> Result<(Shard, u64)> {
        let file = File::open(path).map_err(|e| Error::io(path, e))?;
        let len = file.metadata().map_err(|e| Error::io(path, e))?.len();
        #[cfg(not(unix))]
        let file = std::sync::Mutex::new(file);
        Ok((Shard { path: path.to_path_buf(), file }, len))
    }

    /// Fills `out` from `offset` on.
    ///
    /// # Errors
    /// [`Error::Io`], also if the file has become shorter.
    pub(super) fn read_at(&self, out: &mut [u8], offset: u64) -> Result<()> {
        #[cfg(unix)]
        let read = std::os::unix::fs::FileExt::read_exact_at(&self.file, out, offset);
        #[cfg(not(unix))]
        let read = {
            use std::io::{Read, Seek, SeekFrom};
            // A thread that panicked left nothing half-done here: each reader seeks first.
            let mut file = self.file.lock().unwrap_or_else(|e| e.into_inner());
            file.seek(SeekFrom::Start(offset)).and_then(|_| file.read_exact(out))
        };
        read.map_err(|e| Error::io(&self.path, e))
    }
}

/// What a header says of a tensor.
#[derive(Deserialize)]
struct Entry {
    dtype: String,
    shape: Vec<u64>,
    data_offsets: (u64, u64),
}

/// The tensors of a header in its order, duplicates included.
struct Header(Vec<(String, Entry)>);

impl<'de> Deserialize<'de> for Header {
    fn deserialize<D: Deserializer<'de>>(from: D) -> Result<Header, D::Error> {
        struct Pairs;
        impl<'de> Visitor<'de> for Pairs {
            type Value = Header;
            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("an object of tensors")
            }
            fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Header, A::Error> {
                let mut tensors = Vec::new();
                while let Some(name) = map.next_key::<String>()? {
                    if name == "__metadata__" {
                        map.next_value::<de::IgnoredAny>()?;
                    } else {
                        tensors.push((name, map.next_value()?));
                    }
                }
                Ok(Header(tensors))
            }
        }
        from.deserialize_map(Pairs)
    }
}

/// Reads the header of a file of `len` bytes, whose first `header` bytes follow the length.
///
/// The tensors' bytes must fill the rest of the file without holes or overlaps, as the format has
/// it.
fn parse(path: &Path, header: &[u8], len: u64, file: usize) -> Result<Vec<HubTensor>> {
    let Header(entries) = serde_json::from_slice(header)
        .map_err(|e| Error::file(path, format!("the header is not what it must be: {e}")))?;
    let data = 8 + header.len() as u64;
    let mut tensors = Vec::with_capacity(entries.len());
    // (begin, end, index), to find overlaps.
    let mut ranges = Vec::with_capacity(entries.len());
    for (name, entry) in entries {
        let (begin, end) = entry.data_offsets;
        let wrong = |reason: String| Err(Error::tensor(path, &name, reason));
        if entry.shape.len() > MAX_DIMS {
            return wrong(format!("{} dimensions; {MAX_DIMS} are the most", entry.shape.len()));
        }
        if begin > end {
            return wrong(format!("begins at {begin}, after its end at {end}"));
        }
        if data.checked_add(end).is_none_or(|end| end > len) {
            let has = len.saturating_sub(data);
            return wrong(format!(
                "ends at byte {end} of {has} bytes of data: the file is cut off"
            ));
        }
        let dtype = Dtype::parse(&entry.dtype);
        let n_values = entry.shape.iter().try_fold(1u64, |n, dim| n.checked_mul(*dim));
        let Some(n_values) = n_values else {
            return wrong(format!("shape {:?} has more than 2^64 values", entry.shape));
        };
        if let Some(dtype) = dtype
            && n_values.checked_mul(dtype.bytes() as u64) != Some(end - begin)
        {
            let (shape, has) = (&entry.shape, end - begin);
            return wrong(format!("{has} bytes for {} of shape {shape:?}", entry.dtype));
        }
        ranges.push((begin, end, tensors.len()));
        let offset = data + begin;
        let (dtype_name, shape) = (entry.dtype, entry.shape);
        tensors.push(HubTensor { name, dtype, dtype_name, shape, file, offset });
    }
    ranges.sort_unstable();
    let mut at = 0;
    for (i, (begin, end, index)) in ranges.iter().enumerate() {
        let name = tensors.get(*index).map_or("", |t| t.name.as_str());
        if *begin < at {
            let before = i.checked_sub(1).and_then(|i| tensors.get(ranges.get(i)?.2));
            let before = before.map_or("", |t| t.name.as_str());
            return Err(Error::tensor(path, name, format!("overlaps with {before}")));
        }
        if *begin > at {
            let reason = format!("begins at {begin} where {at} is expected: a hole in the data");
            return Err(Error::tensor(path, name, reason));
        }
        at = *end;
    }
    if data + at != len {
        let reason = format!("{} bytes follow the last tensor", len.saturating_sub(data + at));
        return Err(Error::file(path, reason));
    }
    Ok(tensors)
}

/// The header of a file in memory, for fuzzing and tests of hostile input.
///
/// # Errors
/// As [`Checkpoint::open`](super::Checkpoint::open) for what is wrong with a file's header.
#[doc(hidden)]
pub fn check_header(bytes: &[u8]) -> Result<usize> {
    let path = Path::new("<memory>");
    let (header, len) = (|| {
        let n = u64::from_le_bytes(bytes.get(..8)?.try_into().ok()?);
        Some((bytes.get(8..usize::try_from(n.checked_add(8)?).ok()?)?, bytes.len() as u64))
    })()
    .ok_or_else(|| Error::file(path, "the header is cut off"))?;
    Ok(parse(path, header, len, 0)?.len())
}

/// Which file each tensor is in, by the text of an index: all are in its folder.
fn parse_index(path: &Path, text: &str) -> Result<HashMap<String, String>> {
    #[derive(Deserialize)]
    struct Index {
        weight_map: HashMap<String, String>,
    }
    let Index { weight_map } = json::parse(path, text)?;
    let outside = |name: &&String| name.contains(['/', '\\']) || name.starts_with("..");
    if let Some(name) = weight_map.values().find(outside) {
        return Err(Error::file(path, format!("{name:?} is not a file of this folder")));
    }
    Ok(weight_map)
}

/// As [`check_header`], of the index of a checkpoint in several files.
#[doc(hidden)]
pub fn check_index(text: &str) -> Result<usize> {
    Ok(parse_index(Path::new("<memory>"), text)?.len())
}

/// All files of a checkpoint, or of an adapter.
#[derive(Debug)]
pub(super) struct Shards {
    pub(super) files: Vec<Shard>,
    pub(super) tensors: Vec<HubTensor>,
    by_name: HashMap<String, usize>,
}

impl Shards {
    /// Opens the files that a folder has: those that the index names, else `model.safetensors`,
    /// else every `model*.safetensors`.
    pub(super) fn open(dir: &Path) -> Result<Shards> {
        let index = dir.join(INDEX);
        if index.is_file() {
            return Self::open_index(dir, &index);
        }
        let single = dir.join("model.safetensors");
        if single.is_file() {
            return Self::open_files(&[single]);
        }
        let mut paths = Vec::new();
        for entry in std::fs::read_dir(dir).map_err(|e| Error::io(dir, e))? {
            let name = entry.map_err(|e| Error::io(dir, e))?.file_name();
            let name = name.to_string_lossy();
            if name.starts_with("model") && name.ends_with(".safetensors") {
                paths.push(dir.join(&*name));
            }
        }
        paths.sort();
        if paths.is_empty() {
            let reason = "no model.safetensors here (files of PyTorch, .bin, are not read)";
            return Err(Error::file(dir, reason));
        }
        Self::open_files(&paths)
    }

    fn open_index(dir: &Path, index: &Path) -> Result<Shards> {
        let weight_map = parse_index(index, &json::text(index)?)?;
        let mut names: Vec<&String> = weight_map.values().collect();
        names.sort();
        names.dedup();
        let paths: Vec<PathBuf> = names.iter().map(|name| dir.join(name)).collect();
        let shards = Self::open_files(&paths)?;
        let mut wrong = Vec::new();
        for (tensor, file) in &weight_map {
            match shards.find(tensor) {
                Some(found) if shards.path(found) == dir.join(file) => {}
                Some(found) => wrong.push(format!(
                    "{tensor} is in {}, not in {file}",
                    shards.path(found).display()
                )),
                None => wrong.push(format!("{tensor} is not in {file}")),
            }
        }
        if wrong.is_empty() {
            return Ok(shards);
        }
        wrong.sort();
        Err(Error::file(index, crate::problems::all(&wrong)))
    }

    /// Opens files whose tensors belong together.
    pub(super) fn open_files(paths: &[PathBuf]) -> Result<Shards> {
        let mut shards = Shards { files: Vec::new(), tensors: Vec::new(), by_name: HashMap::new() };
        for path in paths {
            let (shard, len) = Shard::open(path)?;
            let mut n = [0; 8];
            if len < 8 {
                return Err(Error::file(path, format!("{len} bytes: the file is cut off")));
            }
            shard.read_at(&mut n, 0)?;
            let n = u64::from_le_bytes(n);
            if n > len - 8 {
                let reason = format!("a header of {n} bytes in a file of {len}: it is cut off");
                return Err(Error::file(path, reason));
            }
            if n > MAX_HEADER {
                let reason = format!("a header of {n} bytes; {MAX_HEADER} are the most");
                return Err(Error::file(path, reason));
            }
            let mut header = vec![0; n as usize];
            shard.read_at(&mut header, 8)?;
            for tensor in parse(path, &header, len, shards.files.len())? {
                let index = shards.tensors.len();
                if let Some(other) = shards.by_name.insert(tensor.name.clone(), index) {
                    let other = shards.tensors.get(other).map_or(path.as_path(), |t| {
                        shards.files.get(t.file).map_or(path.as_path(), |f| &f.path)
                    });
                    let reason = format!("is there twice: also in {}", other.display());
                    return Err(Error::tensor(path, &tensor.name, reason));
                }
                shards.tensors.push(tensor);
            }
            shards.files.push(shard);
        }
        Ok(shards)
    }

    /// The tensor of a name.
    pub(super) fn find(&self, name: &str) -> Option<&HubTensor> {
        self.tensors.get(self.index(name)?)
    }

    /// The number of the tensor of a name.
    pub(super) fn index(&self, name: &str) -> Option<usize> {
        self.by_name.get(name).copied()
    }

    /// The file that holds a tensor.
    pub(super) fn path(&self, tensor: &HubTensor) -> &Path {
        self.files.get(tensor.file).map_or(Path::new(""), |file| &file.path)
    }

    /// Reads the bytes of some rows, from row `first` on, as many as `out` has room for.
    pub(super) fn read(&self, tensor: &HubTensor, first: u64, out: &mut [u8]) -> Result<()> {
        let row = tensor.cols() * tensor.dtype.map_or(0, Dtype::bytes) as u64;
        let Some(file) = self.files.get(tensor.file) else {
            return Err(Error::Invalid(format!("{} is of no file", tensor.name)));
        };
        file.read_at(out, tensor.offset + first * row)
    }
}
