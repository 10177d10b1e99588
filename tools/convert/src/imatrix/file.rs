//! Files of importance matrices.
//!
//! llama.cpp writes GGUF files of `general.type` `imatrix`: for each tensor NAME, `NAME.in_sum2`, of
//! shape `[columns, matrices]`, and `NAME.counts`, of shape `[1, matrices]`, both F32. Siskin adds
//! `NAME.in_sketch`, F32 of shape `[64, columns]` (see [`super::sketch`]), for one of the tensors that
//! have an input in common, whose sums are the same; llama.cpp passes over it. Before that llama.cpp
//! wrote a format of its own, with only means, all numbers little-endian and of 4 bytes: the number
//! of entries; of each the length of its name, the name, the number of chunks, that of values, and
//! the values, which are mean squares times the number of chunks; at the end, in newer files, the
//! number of chunks, the length of the dataset's path and the path.

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::path::Path;
use std::sync::Arc;

use siskin::GgmlType;
use siskin::gguf::{Builder, ByteOrder, GgufFile, Mmap, TensorInfo};
use siskin::model::SKETCH;

use super::{DEFAULT_CHUNK_SIZE, Entry, Imatrix, Sketch};
use crate::{Error, Result};

const TYPE: &str = "general.type";
const DATASETS: &str = "imatrix.datasets";
const CHUNK_COUNT: &str = "imatrix.chunk_count";
const CHUNK_SIZE: &str = "imatrix.chunk_size";
const SUMS: &str = ".in_sum2";
const COUNTS: &str = ".counts";
const SKETCH_ROWS: &str = ".in_sketch";

impl Imatrix {
    /// Reads a file in either of llama.cpp's formats.
    ///
    /// # Errors
    /// If the file cannot be read, or is no importance matrix: with the tensor or the place, and the
    /// reason.
    pub fn open(path: impl AsRef<Path>) -> Result<Imatrix> {
        let path = path.as_ref();
        let map = Mmap::open(path)?;
        if map.starts_with(b"GGUF") {
            return read_gguf(GgufFile::open(path)?);
        }
        Legacy { bytes: &map, at: 0, path }.read()
    }

    /// Reads a file that is in memory.
    ///
    /// # Errors
    /// As [`open`](Self::open), with `<memory>` as the path.
    pub fn from_bytes(bytes: Vec<u8>) -> Result<Imatrix> {
        if bytes.starts_with(b"GGUF") {
            return read_gguf(GgufFile::from_bytes(bytes)?);
        }
        Legacy { bytes: &bytes, at: 0, path: Path::new("<memory>") }.read()
    }

    /// Writes it as a GGUF file, which appears at `path` when it is whole. Entries are in the order
    /// of their names: the same numbers make the same bytes.
    ///
    /// # Errors
    /// The file cannot be written.
    pub fn save(&self, path: impl AsRef<Path>) -> Result<()> {
        let mut builder = Builder::new();
        let datasets: Vec<&str> = self.datasets.iter().map(String::as_str).collect();
        builder.put(TYPE, "imatrix")?;
        builder.put(DATASETS, &datasets[..])?;
        builder.put(CHUNK_COUNT, &self.chunk_count())?;
        builder.put(CHUNK_SIZE, &self.chunk_size())?;
        for (name, entry) in self.entries() {
            let (sums, counts) = (entry.sums.len() as u64, entry.counts.len() as u64);
            builder.tensor(&format!("{name}{SUMS}"), GgmlType::F32, &[sums / counts, counts])?;
            builder.tensor(&format!("{name}{COUNTS}"), GgmlType::F32, &[1, counts])?;
        }
        let firsts: BTreeSet<&str> = self.sketch_names().into_values().collect();
        for name in &firsts {
            let shape = [SKETCH as u64, self.entries[*name].sums.len() as u64];
            builder.tensor(&format!("{name}{SKETCH_ROWS}"), GgmlType::F32, &shape)?;
        }
        let mut writer = builder.create(path)?;
        for (_, entry) in self.entries() {
            let counts = entry.counts.iter().map(|count| *count as f32);
            writer.write(&little_endian(entry.sums.iter().copied()))?;
            writer.write(&little_endian(counts))?;
        }
        for name in firsts {
            if let Some(sketch) = &self.entries[name].sketch {
                let rows = sketch.rows().map_err(|reason| self.wrong(name, reason))?;
                writer.write(&little_endian(rows.as_flattened().iter().copied()))?;
            }
        }
        Ok(writer.commit()?)
    }
}

fn little_endian(values: impl Iterator<Item = f32>) -> Vec<u8> {
    values.flat_map(f32::to_le_bytes).collect()
}

/// The values of a tensor of sums or counts. The error is only the reason.
pub(super) fn values(file: &GgufFile, tensor: &TensorInfo) -> Result<Vec<f32>, String> {
    if tensor.ty != GgmlType::F32 {
        return Err(format!("it is of type {}, not F32", tensor.ty));
    }
    let (bytes, _) = file.tensor_data(tensor).as_chunks();
    let value = match file.byte_order() {
        ByteOrder::Little => f32::from_le_bytes,
        ByteOrder::Big => f32::from_be_bytes,
    };
    Ok(bytes.iter().map(|b| value(*b)).collect())
}

/// A count, which files hold as a float.
fn count(value: f32) -> Result<u64, String> {
    // A cast saturates; what is beyond u64 is no count of tokens.
    match value.round() {
        n if n >= 0.0 && n.is_finite() => Ok(n as u64),
        _ => Err(format!("{value} is no count of tokens")),
    }
}

fn read_gguf(file: GgufFile) -> Result<Imatrix> {
    let file = Arc::new(file);
    let path = file.path();
    let metadata = file.metadata();
    if let Some(ty) = metadata.str(TYPE)?
        && ty != "imatrix"
    {
        let reason = format!("{TYPE} is `{ty}`: this is no importance matrix");
        return Err(Error::file(path, reason));
    }
    let chunk_size = metadata.u32(CHUNK_SIZE)?.unwrap_or(DEFAULT_CHUNK_SIZE);
    if chunk_size == 0 {
        return Err(Error::file(path, format!("{CHUNK_SIZE} is 0")));
    }
    let mut imatrix = Imatrix::new(path, chunk_size);
    if let Some(datasets) = metadata.array(DATASETS)? {
        let text = |bytes| String::from_utf8_lossy(bytes).into_owned();
        imatrix.datasets = datasets.iter_bytes().map(text).collect();
    }
    // Other tensors are nobody's business: llama.cpp passes over them too.
    let mut found: BTreeMap<&str, [Option<&TensorInfo>; 2]> = BTreeMap::new();
    let mut sketches = Vec::new();
    for (index, tensor) in file.tensors().iter().enumerate() {
        if let Some(name) = tensor.name.strip_suffix(SKETCH_ROWS) {
            sketches.push((name, index));
        }
        for (i, suffix) in [SUMS, COUNTS].into_iter().enumerate() {
            if let Some(name) = tensor.name.strip_suffix(suffix) {
                found.entry(name).or_default()[i] = Some(tensor);
            }
        }
    }
    for (name, pair) in found {
        let [Some(sums), Some(counts)] = pair else {
            let missing = if pair[0].is_none() { SUMS } else { COUNTS };
            return Err(Error::tensor(path, format!("{name}{missing}"), "it is missing"));
        };
        let read = |tensor| {
            values(&file, tensor).map_err(|reason| Error::tensor(path, &tensor.name, reason))
        };
        let (sums, values) = (read(sums)?, read(counts)?);
        let parsed: Result<Vec<u64>, String> = values.into_iter().map(count).collect();
        let counts = parsed.map_err(|reason| Error::tensor(path, &counts.name, reason))?;
        imatrix.add_entry(name, sums, counts, None)?;
    }
    let mut alike: HashMap<u64, Vec<String>> = HashMap::new();
    for (name, entry) in imatrix.entries() {
        alike.entry(entry.input_hash()).or_default().push(name.to_string());
    }
    for (name, index) in sketches {
        let tensor = &file.tensors()[index];
        let wrong = |reason: &str| Error::tensor(path, &tensor.name, reason);
        let entry = imatrix.entries.get(name).ok_or_else(|| wrong("there are no sums for it"))?;
        if tensor.ty != GgmlType::F32 || tensor.shape != [SKETCH as u64, entry.sums.len() as u64] {
            let reason = format!("it is not F32 of {SKETCH} times {} values", entry.sums.len());
            return Err(wrong(&reason));
        }
        if entry.has_sketch() {
            return Err(wrong("there is another sketch of its input"));
        }
        let input = entry.clone();
        for name in alike.get(&input.input_hash()).into_iter().flatten() {
            if let Some(entry) = imatrix.entries.get_mut(name)
                && entry.same_input(&input)
            {
                entry.sketch = Some(Sketch::InFile(file.clone(), index));
            }
        }
    }
    if imatrix.entries.is_empty() {
        let reason = format!("there are no tensors NAME{SUMS} and NAME{COUNTS} in it");
        return Err(Error::file(path, reason));
    }
    Ok(imatrix)
}

/// Reads the format before GGUF.
struct Legacy<'a> {
    bytes: &'a [u8],
    at: usize,
    path: &'a Path,
}

impl<'a> Legacy<'a> {
    fn wrong(&self, reason: String) -> Error {
        let reason = format!("this is no importance matrix: at byte {}: {reason}", self.at);
        Error::file(self.path, reason)
    }

    fn take(&mut self, n: usize, what: &str) -> Result<&'a [u8]> {
        let rest = &self.bytes[self.at..];
        let Some(taken) = rest.get(..n) else {
            let left = rest.len();
            return Err(self.wrong(format!("{n} bytes of {what} wanted, {left} left")));
        };
        self.at += n;
        Ok(taken)
    }

    /// A number that is not negative.
    fn number(&mut self, what: &str) -> Result<usize> {
        let at = self.at;
        let bytes = self.take(4, what)?;
        let number = bytes.first_chunk().map_or(-1, |b| i32::from_le_bytes(*b));
        usize::try_from(number).map_err(|_| {
            self.at = at;
            self.wrong(format!("{what} is {number}"))
        })
    }

    fn entry(&mut self) -> Result<(&'a str, Entry)> {
        let len = self.number("the length of a name")?;
        let name = self.take(len, "a name")?;
        let Ok(name) = std::str::from_utf8(name) else {
            return Err(self.wrong("the name before is not UTF-8".to_string()));
        };
        // Some writers left it 0; the values are then the means themselves.
        let chunks = self.number("the number of chunks")?.max(1);
        let n = self.number("the number of values")?;
        let values = self.take(n.saturating_mul(4), "values")?;
        let (values, _) = values.as_chunks();
        // Only their ratio counts for quantizing; the size of a chunk, for merging.
        let size = DEFAULT_CHUNK_SIZE;
        let sums = values.iter().map(|b| f32::from_le_bytes(*b) * size as f32).collect();
        let entry = Entry::new(sums, vec![chunks as u64 * u64::from(size)]);
        Ok((name, entry.map_err(|reason| Error::tensor(self.path, name, reason))?))
    }

    fn read(mut self) -> Result<Imatrix> {
        let mut imatrix = Imatrix::new(self.path, DEFAULT_CHUNK_SIZE);
        let n = self.number("the number of entries")?;
        if n == 0 {
            return Err(self.wrong("it has no entries".to_string()));
        }
        for _ in 0..n {
            let (name, entry) = self.entry()?;
            if imatrix.entries.insert(name.to_string(), entry).is_some() {
                return Err(Error::tensor(self.path, name, "it is there twice"));
            }
        }
        if self.at < self.bytes.len() {
            self.number("the number of chunks")?;
            let len = self.number("the length of the dataset's path")?;
            let dataset = self.take(len, "the dataset's path")?;
            imatrix.datasets.push(String::from_utf8_lossy(dataset).into_owned());
        }
        Ok(imatrix)
    }
}
