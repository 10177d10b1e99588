//! A GGUF file, of one part or several, as a source.

use std::borrow::Cow;
use std::ops::Range;
use std::path::Path;

use siskin::gguf::{Builder, ByteOrder, GgufFile, Metadata, TensorInfo};
use siskin_quant::formats;

use crate::{Error, Facts, Result, Source, TensorDesc};

/// The keys that are written anew or do not hold for the new file: its types, its alignment, and
/// those of a file in parts.
const LEFT_OUT: [&str; 6] = [
    "general.alignment",
    "general.file_type",
    "general.quantization_version",
    "split.no",
    "split.count",
    "split.tensors.count",
];

/// How the keys begin that say by which importance matrix a file was made: another is made by another.
/// The second is Siskin's own, of where it knew from which columns are used together
/// (`quantize.sketch.dataset`), where that was not the matrix.
const OF_MATRIX: [&str; 2] = ["quantize.imatrix.", "quantize.sketch."];

/// A GGUF file.
pub struct GgufSource {
    file: GgufFile,
    facts: Facts,
    tensors: Vec<TensorDesc>,
}

/// The largest of a number that may be given for each layer.
fn largest(metadata: &Metadata, key: &str) -> Result<Option<usize>> {
    if let Ok(Some(one)) = metadata.u32(key) {
        return Ok(Some(one as usize));
    }
    Ok(metadata.u32_array(key)?.and_then(|all| all.into_iter().max()).map(|n| n as usize))
}

impl GgufSource {
    /// Takes a file that is open.
    ///
    /// # Errors
    /// A key is of the wrong type, or the file has no architecture.
    pub fn new(file: GgufFile) -> Result<GgufSource> {
        let metadata = file.metadata();
        let Some(arch) = metadata.str("general.architecture")? else {
            return Err(Error::file(file.path(), "general.architecture is missing"));
        };
        let number = |key: &str| largest(metadata, &format!("{arch}.{key}"));
        let n_head = number("attention.head_count")?.unwrap_or(0);
        let facts = Facts {
            arch: arch.to_string(),
            n_layer: number("block_count")?.unwrap_or(0),
            n_head,
            n_head_kv: number("attention.head_count_kv")?.unwrap_or(n_head),
            n_expert: number("expert_count")?.unwrap_or(0),
        };
        let desc =
            |t: &TensorInfo| TensorDesc { name: t.name.clone(), shape: t.shape.clone(), ty: t.ty };
        let tensors = file.tensors().iter().map(desc).collect();
        Ok(GgufSource { file, facts, tensors })
    }

    /// Opens a file.
    ///
    /// # Errors
    /// As [`new`](Self::new), or the file cannot be read.
    pub fn open(path: &Path) -> Result<GgufSource> {
        GgufSource::new(GgufFile::open(path)?)
    }

    /// The bytes of some rows as the file has them.
    fn bytes(&self, tensor: usize, rows: &Range<u64>) -> Result<&[u8]> {
        let info = &self.file.tensors()[tensor];
        let desc = &self.tensors[tensor];
        let row = info.ty.row_bytes(desc.cols()).unwrap_or(0) as u64;
        let range = (rows.start * row) as usize..(rows.end * row) as usize;
        self.file.tensor_data(info).get(range).ok_or_else(|| {
            let reason = format!("rows {} to {} of {}", rows.start, rows.end, desc.rows());
            Error::tensor(self.path(), &info.name, reason)
        })
    }
}

impl Source for GgufSource {
    fn path(&self) -> &Path {
        self.file.path()
    }

    fn facts(&self) -> &Facts {
        &self.facts
    }

    fn tensors(&self) -> &[TensorDesc] {
        &self.tensors
    }

    fn metadata(&self, to: &mut Builder) -> Result<()> {
        let of_matrix = |key: &str| OF_MATRIX.iter().any(|start| key.starts_with(start));
        let holds = |key: &str| !LEFT_OUT.contains(&key) && !of_matrix(key);
        Ok(to.copy(self.file.metadata(), holds)?)
    }

    fn read(&self, tensor: usize, rows: Range<u64>, out: &mut [f32]) -> Result<()> {
        let ty = self.tensors[tensor].ty;
        let bytes = match self.raw(tensor, rows)? {
            Some(bytes) => bytes,
            None => Cow::Borrowed(&[][..]),
        };
        formats::dequantize_row(ty, &bytes, out)
            .map_err(|e| Error::tensor(self.path(), &self.tensors[tensor].name, e.to_string()))
    }

    fn raw(&self, tensor: usize, rows: Range<u64>) -> Result<Option<Cow<'_, [u8]>>> {
        let bytes = self.bytes(tensor, &rows)?;
        if self.file.byte_order() == ByteOrder::Little {
            return Ok(Some(Cow::Borrowed(bytes)));
        }
        let desc = &self.tensors[tensor];
        let mut bytes = bytes.to_vec();
        formats::swap_bytes(desc.ty, &mut bytes)
            .map_err(|e| Error::tensor(self.path(), &desc.name, e.to_string()))?;
        Ok(Some(Cow::Owned(bytes)))
    }

    fn file(&self) -> Option<&GgufFile> {
        Some(&self.file)
    }

    fn part(&self, tensor: usize) -> usize {
        self.file.tensors()[tensor].part
    }

    fn done(&self, tensor: usize) {
        let (map, range) = self.file.tensor_map(&self.file.tensors()[tensor]);
        map.forget(range);
    }
}
