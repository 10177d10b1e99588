//! GGUF files: mapped, checked, never copied.
//!
//! ```no_run
//! let file = siskin::gguf::GgufFile::open("model.gguf")?;
//! println!("{:?}", file.metadata().str("general.architecture")?);
//! for tensor in file.tensors() {
//!     println!("{} {} {:?}", tensor.name, tensor.ty, tensor.shape);
//! }
//! # Ok::<(), siskin::Error>(())
//! ```

mod mmap;
mod reader;
mod split;
mod value;

use std::collections::HashMap;
use std::ops::Range;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use siskin_quant::GgmlType;

pub use mmap::Mmap;
pub use reader::ByteOrder;
pub use value::{Array, Metadata, Value, ValueType};

use crate::{Error, Result};

/// What a file says of a tensor.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TensorInfo {
    /// Its name.
    pub name: String,
    /// Its type.
    pub ty: GgmlType,
    /// Its dimensions in ggml's order: the length of a row comes first.
    pub shape: Vec<u64>,
    /// The part of a split file that holds it, from 0.
    pub part: usize,
    /// Where it begins in that part.
    pub offset: u64,
    /// Its bytes.
    pub n_bytes: u64,
}

/// An open GGUF file, of one or several parts. Cheap to clone.
#[derive(Clone, Debug)]
pub struct GgufFile(Arc<Inner>);

#[derive(Debug)]
struct Inner {
    path: PathBuf,
    version: u32,
    order: ByteOrder,
    metadata: Metadata,
    tensors: Vec<TensorInfo>,
    index: HashMap<String, usize>,
    parts: Vec<Arc<Mmap>>,
}

impl GgufFile {
    /// Maps and checks the file at `path`. Of a split file, any part may be named; all are opened.
    ///
    /// # Errors
    /// [`Error::Io`] if a file cannot be mapped, [`Error::Gguf`], with the place and the reason, if
    /// it is not what the format allows.
    pub fn open(path: impl AsRef<Path>) -> Result<GgufFile> {
        let path = path.as_ref();
        let parts = split::parts(path)?;
        let maps = parts.iter().map(|p| Ok((p.clone(), Mmap::open(p)?)));
        Self::from_parts(path, maps.collect::<Result<_>>()?)
    }

    /// Checks a file that is in memory.
    ///
    /// # Errors
    /// As [`open`](Self::open); the path named is `<memory>`.
    pub fn from_bytes(bytes: Vec<u8>) -> Result<GgufFile> {
        let path = PathBuf::from("<memory>");
        Self::from_parts(&path.clone(), vec![(path, Mmap::from_bytes(bytes))])
    }

    fn from_parts(path: &Path, parts: Vec<(PathBuf, Mmap)>) -> Result<GgufFile> {
        let n_parts = parts.len();
        let mut maps = Vec::with_capacity(n_parts);
        let mut first: Option<reader::Parsed> = None;
        let mut index = HashMap::new();
        for (part, (path, map)) in parts.into_iter().enumerate() {
            let map = Arc::new(map);
            let path: Arc<Path> = path.into();
            let parsed = reader::parse(&map, &path, part)?;
            split::check(&parsed.metadata, &path, part, n_parts)?;
            let known = first.as_ref().map_or(0, |f| f.tensors.len());
            for (i, tensor) in parsed.tensors.iter().enumerate() {
                if index.insert(tensor.name.clone(), known + i).is_some() {
                    let reason = format!("tensor {} is there twice", tensor.name);
                    let path = path.to_path_buf();
                    return Err(Error::Gguf { path, offset: tensor.offset, reason });
                }
            }
            match &mut first {
                None => first = Some(parsed),
                Some(first) => first.tensors.extend(parsed.tensors),
            }
            maps.push(map);
        }
        let Some(first) = first else {
            return Err(Error::Invalid(format!("{} has no parts", path.display())));
        };
        split::check_total(&first.metadata, path, first.tensors.len())?;
        Ok(GgufFile(Arc::new(Inner {
            path: path.to_path_buf(),
            version: first.version,
            order: first.order,
            metadata: first.metadata,
            tensors: first.tensors,
            index,
            parts: maps,
        })))
    }

    /// The format's version: 2 or 3.
    pub fn version(&self) -> u32 {
        self.0.version
    }

    /// The order of the bytes in its numbers, those of the weights among them.
    pub fn byte_order(&self) -> ByteOrder {
        self.0.order
    }

    /// The path that was opened.
    pub fn path(&self) -> &Path {
        &self.0.path
    }

    /// Parts of a split file; 1 for any other.
    pub fn n_parts(&self) -> usize {
        self.0.parts.len()
    }

    /// Bytes of all parts.
    pub fn file_bytes(&self) -> u64 {
        self.0.parts.iter().map(|p| p.len() as u64).sum()
    }

    /// The key-value pairs (of the first part).
    pub fn metadata(&self) -> &Metadata {
        &self.0.metadata
    }

    /// The tensors of all parts, in file order.
    pub fn tensors(&self) -> &[TensorInfo] {
        &self.0.tensors
    }

    /// The tensor with this name.
    pub fn tensor(&self, name: &str) -> Option<&TensorInfo> {
        self.0.index.get(name).map(|i| &self.0.tensors[*i])
    }

    /// A tensor's bytes, in the file's byte order.
    ///
    /// # Panics
    /// If the tensor is of another file.
    pub fn tensor_data(&self, tensor: &TensorInfo) -> &[u8] {
        let start = tensor.offset as usize;
        &self.0.parts[tensor.part][start..start + tensor.n_bytes as usize]
    }

    /// The part that holds a tensor, and where in it.
    ///
    /// # Panics
    /// If the tensor is of another file.
    pub fn tensor_map(&self, tensor: &TensorInfo) -> (Arc<Mmap>, Range<usize>) {
        let start = tensor.offset as usize;
        (self.0.parts[tensor.part].clone(), start..start + tensor.n_bytes as usize)
    }

    /// Reads all pages into memory now.
    pub fn prefault(&self) {
        self.0.parts.iter().for_each(|p| p.prefault());
    }

    /// Keeps all pages in memory.
    ///
    /// # Errors
    /// [`Error::Io`], for one if the limit of locked memory (`ulimit -l`) is too low.
    pub fn lock(&self) -> Result<()> {
        let lock = |p: &Arc<Mmap>| p.lock();
        let io = |source| Error::Io { path: self.0.path.clone(), source };
        self.0.parts.iter().try_for_each(lock).map_err(io)
    }
}
