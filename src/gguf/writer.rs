//! Writing files: what they hold is declared first, then the tensors' data is streamed.

use std::collections::HashSet;
use std::io::Write;
use std::path::{Path, PathBuf};

use siskin_quant::GgmlType;

use super::atomic::AtomicFile;
use super::encode::{Encode, Encoder};
use super::metadata::Metadata;
use super::reader::{ALIGNMENT, DEFAULT_ALIGNMENT, LEAST_ALIGNMENT, MAX_DIMS, n_bytes};
use super::value::{ByteOrder, MAX_NESTING, Value, ValueType};
use crate::{Error, Result};

/// What a file will hold: its keys, and its tensors' names, types and shapes.
///
/// ```
/// use siskin::GgmlType;
/// use siskin::gguf::{Builder, GgufFile};
///
/// let mut builder = Builder::new();
/// builder.put("general.architecture", "llama")?;
/// builder.put("tokenizer.ggml.tokens", &["a", "b"][..])?;
/// builder.tensor("output.weight", GgmlType::F32, &[2, 1])?;
/// let mut writer = builder.start(Vec::new())?;
/// writer.tensor("output.weight", &[0; 8])?;
/// let file = GgufFile::from_bytes(writer.finish()?)?;
/// assert_eq!(file.metadata().str("general.architecture")?, Some("llama"));
/// # Ok::<(), siskin::Error>(())
/// ```
#[derive(Debug)]
pub struct Builder {
    version: u32,
    alignment: u32,
    keys: HashSet<String>,
    pairs: Encoder,
    names: HashSet<String>,
    tensors: Vec<Declared>,
    /// Bytes of the tensors so far, each padded.
    data_bytes: u64,
}

#[derive(Debug)]
struct Declared {
    name: String,
    ty: GgmlType,
    shape: Vec<u64>,
    n_bytes: u64,
}

impl Default for Builder {
    fn default() -> Self {
        Builder::new()
    }
}

fn invalid(reason: String) -> Error {
    Error::Invalid(reason)
}

/// `n` and what is missing to a multiple of `align`.
fn padded(n: u64, align: u32) -> Option<u64> {
    n.checked_next_multiple_of(u64::from(align))
}

impl Builder {
    /// An empty file of version 3, little-endian.
    pub fn new() -> Builder {
        Builder {
            version: 3,
            alignment: DEFAULT_ALIGNMENT,
            keys: HashSet::new(),
            pairs: Encoder { bytes: Vec::new(), order: ByteOrder::Little },
            names: HashSet::new(),
            tensors: Vec::new(),
            data_bytes: 0,
        }
    }

    /// An empty file of version 2 or 3 in either byte order. The data of the tensors is written as
    /// it is given: of a big-endian file it must be big-endian already.
    ///
    /// # Errors
    /// [`Error::Invalid`] for another version.
    pub fn with_format(version: u32, order: ByteOrder) -> Result<Builder> {
        if !(2..=3).contains(&version) {
            return Err(invalid(format!("GGUF version {version} is not written, only 2 and 3")));
        }
        let pairs = Encoder { bytes: Vec::new(), order };
        Ok(Builder { version, pairs, ..Builder::new() })
    }

    /// Has tensors begin at multiples of `alignment`, a power of two from 8 on, instead of 32.
    ///
    /// # Errors
    /// [`Error::Invalid`] for another number, after the first tensor, or the second time.
    pub fn alignment(&mut self, alignment: u32) -> Result<()> {
        if !alignment.is_power_of_two() || alignment < LEAST_ALIGNMENT {
            let reason = format!("{ALIGNMENT} is {alignment}, not a power of two from 8 on");
            return Err(invalid(reason));
        }
        if !self.tensors.is_empty() {
            return Err(invalid(format!("{ALIGNMENT} is set before the first tensor")));
        }
        self.pair(ALIGNMENT, Value::U32(alignment))?;
        self.alignment = alignment;
        Ok(())
    }

    fn key(&mut self, key: &str, ty: ValueType) -> Result<()> {
        if !self.keys.insert(key.to_string()) {
            return Err(invalid(format!("key {key} is there twice")));
        }
        self.pairs.string(key.as_bytes());
        self.pairs.ty(ty);
        Ok(())
    }

    fn pair(&mut self, key: &str, value: Value<'_>) -> Result<()> {
        self.key(key, value.ty())?;
        self.pairs.value(value);
        Ok(())
    }

    /// Adds a key. `general.alignment` is set by [`alignment`](Self::alignment).
    ///
    /// # Errors
    /// [`Error::Invalid`] if the key is there already, or arrays are nested deeper than the reader
    /// allows.
    pub fn put<T: Encode + ?Sized>(&mut self, key: &str, value: &T) -> Result<()> {
        if key == ALIGNMENT {
            return Err(invalid(format!("{ALIGNMENT} is set by `alignment`")));
        }
        if value.depth() > MAX_NESTING {
            return Err(invalid(format!("{key} nests arrays more than {MAX_NESTING} deep")));
        }
        self.key(key, T::TYPE)?;
        value.encode(&mut self.pairs);
        Ok(())
    }

    /// Adds a key with a value from another file.
    ///
    /// # Errors
    /// As [`put`](Self::put); a `general.alignment` is taken as [`alignment`](Self::alignment).
    pub fn put_value(&mut self, key: &str, value: Value<'_>) -> Result<()> {
        if key != ALIGNMENT {
            return self.pair(key, value);
        }
        match value.integer().and_then(|x| u32::try_from(x).ok()) {
            Some(x) => self.alignment(x),
            None => Err(invalid(format!("{ALIGNMENT} is {value:?}, not an integer"))),
        }
    }

    /// Adds the keys of another file that `keep` says yes to.
    ///
    /// # Errors
    /// As [`put_value`](Self::put_value).
    pub fn copy(&mut self, from: &Metadata, mut keep: impl FnMut(&str) -> bool) -> Result<()> {
        from.iter().filter(|(key, _)| keep(key)).try_for_each(|(key, v)| self.put_value(key, v))
    }

    /// Adds a tensor. `shape` is in ggml's order: the length of a row comes first.
    ///
    /// # Errors
    /// [`Error::Invalid`] if there is a tensor of this name already, or the shape is not one that
    /// the type can have.
    pub fn tensor(&mut self, name: &str, ty: GgmlType, shape: &[u64]) -> Result<()> {
        if shape.len() > MAX_DIMS as usize {
            let reason = format!("{name} has {} dimensions; {MAX_DIMS} are the most", shape.len());
            return Err(invalid(reason));
        }
        let n_bytes = n_bytes(ty, shape)
            .map_err(|wrong| invalid(format!("{name} is {ty} of shape {shape:?}: {wrong}")))?;
        let end = padded(n_bytes, self.alignment).and_then(|n| self.data_bytes.checked_add(n));
        let Some(end) = end else {
            return Err(invalid(format!("{name} makes the file larger than 2^64 bytes")));
        };
        if !self.names.insert(name.to_string()) {
            return Err(invalid(format!("tensor {name} is there twice")));
        }
        let (name, shape) = (name.to_string(), shape.to_vec());
        self.tensors.push(Declared { name, ty, shape, n_bytes });
        self.data_bytes = end;
        Ok(())
    }

    /// Everything before the data.
    fn head(&mut self) -> Result<Vec<u8>> {
        let pairs = std::mem::take(&mut self.pairs.bytes);
        let bytes = Vec::with_capacity(pairs.len() + 64 + 128 * self.tensors.len());
        let mut head = Encoder { bytes, order: self.pairs.order };
        head.bytes.extend_from_slice(b"GGUF");
        head.number(self.version.to_le_bytes());
        head.number((self.tensors.len() as u64).to_le_bytes());
        head.number((self.keys.len() as u64).to_le_bytes());
        head.bytes.extend_from_slice(&pairs);
        let mut offset = 0u64;
        for tensor in &self.tensors {
            head.string(tensor.name.as_bytes());
            head.number((tensor.shape.len() as u32).to_le_bytes());
            tensor.shape.iter().for_each(|n| head.number(n.to_le_bytes()));
            head.number((tensor.ty as u32).to_le_bytes());
            head.number(offset.to_le_bytes());
            // `tensor` has seen that the sum fits.
            offset += padded(tensor.n_bytes, self.alignment).unwrap_or(0);
        }
        let end = padded(head.bytes.len() as u64, self.alignment);
        let Some(end) = end.and_then(|end| usize::try_from(end).ok()) else {
            return Err(invalid("the keys are larger than the memory".to_string()));
        };
        head.bytes.resize(end, 0);
        Ok(head.bytes)
    }

    fn start_at<W: Write>(mut self, out: W, path: &Path) -> Result<Writer<W>> {
        let head = self.head()?;
        let mut writer = Writer {
            out,
            path: path.to_path_buf(),
            alignment: self.alignment,
            tensors: self.tensors,
            current: 0,
            written: 0,
        };
        writer.raw(&head)?;
        Ok(writer)
    }

    /// Begins writing to `out`, a vector for example.
    ///
    /// # Errors
    /// [`Error::Io`] from `out`.
    pub fn start<W: Write>(self, out: W) -> Result<Writer<W>> {
        self.start_at(out, Path::new("<memory>"))
    }

    /// Begins a file that appears at `path` when it is whole, by [`Writer::commit`].
    ///
    /// # Errors
    /// [`Error::Io`] if the folder cannot be written to.
    pub fn create(self, path: impl AsRef<Path>) -> Result<Writer<AtomicFile>> {
        self.start_at(AtomicFile::create(path.as_ref())?, path.as_ref())
    }
}

/// Takes the data of the tensors, in the order in which they were declared.
#[derive(Debug)]
pub struct Writer<W> {
    out: W,
    path: PathBuf,
    alignment: u32,
    tensors: Vec<Declared>,
    /// The tensor that is being written.
    current: usize,
    /// Bytes of it so far.
    written: u64,
}

impl<W: Write> Writer<W> {
    fn raw(&mut self, data: &[u8]) -> Result<()> {
        self.out.write_all(data).map_err(|source| Error::Io { path: self.path.clone(), source })
    }

    /// The tensor whose data comes next; `None` when all are written.
    pub fn next_tensor(&self) -> Option<&str> {
        self.tensors.get(self.current).map(|t| t.name.as_str())
    }

    /// Writes the whole of the next tensor, `name`.
    ///
    /// # Errors
    /// [`Error::Invalid`] if another tensor is the next or `data` has not its size, [`Error::Io`].
    pub fn tensor(&mut self, name: &str, data: &[u8]) -> Result<()> {
        match self.tensors.get(self.current) {
            Some(t) if t.name == name && self.written == 0 && t.n_bytes == data.len() as u64 => {
                self.write(data)
            }
            Some(t) => Err(invalid(format!(
                "{} bytes of {name} given, but {} of {} come next",
                data.len(),
                t.n_bytes - self.written,
                t.name
            ))),
            None => Err(invalid(format!("{name} given, but all tensors are written"))),
        }
    }

    /// Writes the next bytes of the tensor whose turn it is: for tensors that come piece by piece.
    ///
    /// # Errors
    /// [`Error::Invalid`] if the tensor has fewer bytes left, [`Error::Io`].
    pub fn write(&mut self, data: &[u8]) -> Result<()> {
        let Some(tensor) = self.tensors.get(self.current) else {
            return Err(invalid("all tensors are written".to_string()));
        };
        let (n_bytes, left) = (tensor.n_bytes, tensor.n_bytes - self.written);
        if data.len() as u64 > left {
            let (name, len) = (&tensor.name, data.len());
            return Err(invalid(format!("{len} bytes of {name} given, but {left} are left")));
        }
        self.raw(data)?;
        self.written += data.len() as u64;
        if self.written == n_bytes {
            let mut missing = padded(n_bytes, self.alignment).unwrap_or(n_bytes) - n_bytes;
            while missing > 0 {
                let zeros = [0; 4096];
                let now = missing.min(zeros.len() as u64);
                self.raw(&zeros[..now as usize])?;
                missing -= now;
            }
            self.current += 1;
            self.written = 0;
        }
        Ok(())
    }

    /// Ends the file.
    ///
    /// # Errors
    /// [`Error::Invalid`] if a tensor is not written, [`Error::Io`].
    pub fn finish(mut self) -> Result<W> {
        if let Some(tensor) = self.tensors.get(self.current) {
            let (name, left) = (&tensor.name, tensor.n_bytes - self.written);
            return Err(invalid(format!("{left} bytes of {name} are not written")));
        }
        match self.out.flush() {
            Ok(()) => Ok(self.out),
            Err(source) => Err(Error::Io { path: self.path, source }),
        }
    }
}

impl Writer<AtomicFile> {
    /// Ends the file and gives it its name. Without this, nothing is left of it.
    ///
    /// # Errors
    /// As [`finish`](Self::finish); the target is then as it was before.
    pub fn commit(self) -> Result<()> {
        self.finish()?.commit()
    }
}
