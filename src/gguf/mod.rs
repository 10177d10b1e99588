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

mod atomic;
mod cursor;
mod encode;
mod metadata;
mod mmap;
mod reader;
mod sniff;
mod split;
mod value;
mod writer;

use std::ops::Range;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use siskin_quant::GgmlType;

pub use atomic::AtomicFile;
pub use encode::{Bytes, Encode, Encoder};
pub use metadata::Metadata;
pub use mmap::Mmap;
pub use split::split_name;
pub use value::{Array, ByteOrder, Value, ValueType};
pub use writer::{Builder, Writer};

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
    metadata: Metadata,
    tensors: Vec<TensorInfo>,
    /// The tensors in the order of their names.
    by_name: Vec<u32>,
    /// One for each part, at least one.
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
        let named = Part::parse(path, Mmap::open(path)?, 0)?;
        let count = split::count(&named.parsed.metadata)?;
        if count == 1 {
            return Self::join(path, vec![named]);
        }
        let paths = split::parts(path, &named.parsed.metadata, count)?;
        drop(named);
        let mut parts = Vec::with_capacity(paths.len());
        for (i, path) in paths.iter().enumerate() {
            let part = Part::parse(path, Mmap::open(path)?, i)?;
            split::check(&part.parsed.metadata, i, count)?;
            parts.push(part);
        }
        Self::join(path, parts)
    }

    /// Checks a file that is in memory.
    ///
    /// # Errors
    /// As [`open`](Self::open), with `<memory>` as the path. A part of a split file is refused.
    pub fn from_bytes(bytes: Vec<u8>) -> Result<GgufFile> {
        let path = Path::new("<memory>");
        let part = Part::parse(path, Mmap::from_bytes(bytes), 0)?;
        let metadata = &part.parsed.metadata;
        let count = split::count(metadata)?;
        if count > 1 {
            let reason = format!("this is one of {count} parts, which can be opened by path only");
            return Err(metadata.error(split::COUNT, reason));
        }
        Self::join(path, vec![part])
    }

    fn join(path: &Path, parts: Vec<Part>) -> Result<GgufFile> {
        let mut parts = parts.into_iter();
        let Some(Part { map, parsed: first, .. }) = parts.next() else {
            return Err(Error::Internal(format!("{} has no parts", path.display())));
        };
        let (mut maps, mut tensors) = (vec![map], first.tensors);
        // Where the info of each tensor begins, for the message about one that is there twice.
        let mut places = vec![(first.metadata.path.clone(), first.infos_at)];
        for Part { map, parsed } in parts {
            if parsed.metadata.order != first.metadata.order {
                let reason = "this part has another byte order than the first".to_string();
                let path = parsed.metadata.path.to_path_buf();
                return Err(Error::Gguf { path, offset: 4, reason });
            }
            maps.push(map);
            tensors.extend(parsed.tensors);
            places.push((parsed.metadata.path, parsed.infos_at));
        }
        split::check_total(&first.metadata, tensors.len())?;
        let by_name = by_name(&tensors, &places)?;
        Ok(GgufFile(Arc::new(Inner {
            path: path.to_path_buf(),
            version: first.version,
            metadata: first.metadata,
            tensors,
            by_name,
            parts: maps,
        })))
    }

    /// The format's version: 2 or 3.
    pub fn version(&self) -> u32 {
        self.0.version
    }

    /// The order of the bytes in its numbers, those of the weights among them.
    pub fn byte_order(&self) -> ByteOrder {
        self.0.metadata.order
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
        let at = |i: &u32| self.0.tensors.get(*i as usize);
        let found =
            self.0.by_name.binary_search_by(|i| at(i).map(|t| t.name.as_str()).cmp(&Some(name)));
        self.0.by_name.get(found.ok()?).and_then(at)
    }

    /// A tensor's bytes, in the file's byte order; none if the tensor is of another file.
    pub fn tensor_data(&self, tensor: &TensorInfo) -> &[u8] {
        let (map, range) = self.locate(tensor);
        map.get(range).unwrap_or_default()
    }

    /// The part that holds a tensor, and where in it; an empty range if the tensor is of another
    /// file.
    pub fn tensor_map(&self, tensor: &TensorInfo) -> (Arc<Mmap>, Range<usize>) {
        let (map, range) = self.locate(tensor);
        (map.clone(), range)
    }

    fn locate(&self, tensor: &TensorInfo) -> (&Arc<Mmap>, Range<usize>) {
        let map = self.0.parts.get(tensor.part).unwrap_or(&self.0.parts[0]);
        let start = usize::try_from(tensor.offset).ok();
        let len = usize::try_from(tensor.n_bytes).ok();
        let range = start.zip(len).and_then(|(start, len)| Some(start..start.checked_add(len)?));
        (map, range.filter(|range| range.end <= map.len()).unwrap_or(0..0))
    }

    /// The bytes of each part.
    pub fn maps(&self) -> &[Arc<Mmap>] {
        &self.0.parts
    }

    /// Reads all pages into memory now.
    pub fn prefault(&self) {
        self.0.parts.iter().for_each(|p| p.prefault());
    }

    /// Keeps all pages in memory.
    ///
    /// # Errors
    /// [`Error::Io`], which names the limit of locked memory (`ulimit -l`): it may be too low.
    pub fn lock(&self) -> Result<()> {
        let lock = |p: &Arc<Mmap>| p.lock();
        let io = |source| Error::Io { path: self.0.path.clone(), source };
        self.0.parts.iter().try_for_each(lock).map_err(io)
    }
}

/// A file that is parsed.
struct Part {
    map: Arc<Mmap>,
    parsed: reader::Parsed,
}

impl Part {
    fn parse(path: &Path, map: Mmap, part: usize) -> Result<Part> {
        let map = Arc::new(map);
        let parsed = reader::parse(&map, &path.into(), part)?;
        Ok(Part { map, parsed })
    }
}

/// The order of the tensors' names, which must differ. `places` has the path of each part and where
/// the infos of its tensors begin.
fn by_name(tensors: &[TensorInfo], places: &[(Arc<Path>, Vec<usize>)]) -> Result<Vec<u32>> {
    let Ok(n) = u32::try_from(tensors.len()) else {
        return Err(Error::Invalid("more than 2^32 tensors".to_string()));
    };
    let name = |i: &u32| tensors[*i as usize].name.as_str();
    let mut by_name: Vec<u32> = (0..n).collect();
    by_name.sort_unstable_by(|a, b| name(a).cmp(name(b)).then(a.cmp(b)));
    let twice = by_name.windows(2).filter(|w| name(&w[0]) == name(&w[1])).map(|w| w[1]).min();
    let Some(twice) = twice else { return Ok(by_name) };
    let infos = places.iter().flat_map(|(path, at)| at.iter().map(move |at| (path, *at)));
    let (path, at) = infos.into_iter().nth(twice as usize).unwrap_or((&places[0].0, 0));
    let reason = format!("tensor {} is there twice", name(&twice));
    Err(Error::Gguf { path: path.to_path_buf(), offset: at as u64, reason })
}
