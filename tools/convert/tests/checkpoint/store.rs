//! Fixtures, copies of them that are changed, and what is made of them.

use std::path::{Path, PathBuf};

use serde_json::{Map, Value};
use siskin::GgmlType;
use siskin::gguf::{Builder, GgufFile};
use siskin_convert::Source;
use siskin_convert::checkpoint::{Checkpoint, ConvertOptions};

pub fn data() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../../tests/data")
}

pub fn fixture(name: &str) -> PathBuf {
    data().join("checkpoints").join(name)
}

pub fn cases() -> Value {
    json(&data().join("checkpoints/cases.json"))
}

pub fn json(path: &Path) -> Value {
    serde_json::from_str(&std::fs::read_to_string(path).unwrap()).unwrap()
}

pub fn floats(path: &Path) -> Vec<f32> {
    let bytes = std::fs::read(path).unwrap();
    bytes.chunks_exact(4).map(|b| f32::from_le_bytes(b.try_into().unwrap())).collect()
}

pub fn open(dir: &Path) -> siskin_convert::Result<Checkpoint> {
    Checkpoint::open(dir, &ConvertOptions::default())
}

/// All values of a tensor, read in slices of `step` rows.
pub fn values(source: &dyn Source, tensor: usize, step: u64) -> Vec<f32> {
    let desc = &source.tensors()[tensor];
    let mut all = Vec::new();
    let mut row = 0;
    while row < desc.rows() {
        let end = (row + step).min(desc.rows());
        let mut out = vec![f32::NAN; (end - row) as usize * desc.cols()];
        source.read(tensor, row..end, &mut out).unwrap();
        all.extend_from_slice(&out);
        row = end;
    }
    all
}

/// A file of f32.
pub fn gguf(source: &dyn Source) -> Vec<u8> {
    let mut builder = Builder::new();
    source.metadata(&mut builder).unwrap();
    for desc in source.tensors() {
        builder.tensor(&desc.name, GgmlType::F32, &desc.shape).unwrap();
    }
    let mut writer = builder.start(Vec::new()).unwrap();
    for (i, desc) in source.tensors().iter().enumerate() {
        let bytes: Vec<u8> =
            values(source, i, u64::MAX).iter().flat_map(|x| x.to_le_bytes()).collect();
        writer.tensor(&desc.name, &bytes).unwrap();
    }
    writer.finish().unwrap()
}

pub fn gguf_file(source: &dyn Source) -> GgufFile {
    GgufFile::from_bytes(gguf(source)).unwrap()
}

fn copy_files(from: &Path, to: &Path) {
    for entry in std::fs::read_dir(from).unwrap() {
        let entry = entry.unwrap();
        let to = to.join(entry.file_name());
        if entry.path().is_dir() {
            std::fs::create_dir(&to).unwrap();
            copy_files(&entry.path(), &to);
        } else {
            std::fs::copy(entry.path(), to).unwrap();
        }
    }
}

/// A copy of a fixture that may be changed.
pub struct Copy(pub tempfile::TempDir);

impl Copy {
    pub fn of(name: &str) -> Copy {
        let dir = tempfile::tempdir().unwrap();
        copy_files(&fixture(name), dir.path());
        Copy(dir)
    }

    pub fn path(&self) -> &Path {
        self.0.path()
    }

    pub fn file(&self, name: &str) -> PathBuf {
        self.path().join(name)
    }

    pub fn edit_json(&self, name: &str, change: impl FnOnce(&mut Map<String, Value>)) {
        let mut value = json(&self.file(name));
        change(value.as_object_mut().unwrap());
        std::fs::write(self.file(name), value.to_string()).unwrap();
    }

    pub fn edit_tensors(&self, change: impl FnOnce(&mut Vec<Tensor>)) {
        let path = self.file("model.safetensors");
        let mut tensors = read_safetensors(&path);
        change(&mut tensors);
        write_safetensors(&path, &tensors);
    }

    /// What opening it fails with.
    pub fn error(&self) -> String {
        open(self.path()).expect_err("an error").to_string()
    }
}

/// A tensor of a safetensors file.
#[derive(Clone, Debug)]
pub struct Tensor {
    pub name: String,
    pub dtype: String,
    pub shape: Vec<u64>,
    pub data: Vec<u8>,
}

impl Tensor {
    pub fn f32(name: &str, shape: &[u64], values: &[f32]) -> Tensor {
        let data = values.iter().flat_map(|x| x.to_le_bytes()).collect();
        Tensor { name: name.into(), dtype: "F32".into(), shape: shape.to_vec(), data }
    }
}

pub fn read_safetensors(path: &Path) -> Vec<Tensor> {
    let bytes = std::fs::read(path).unwrap();
    let n = u64::from_le_bytes(bytes[..8].try_into().unwrap()) as usize;
    let header: Map<String, Value> = serde_json::from_slice(&bytes[8..8 + n]).unwrap();
    let data = &bytes[8 + n..];
    let number = |v: &Value| v.as_u64().unwrap();
    let entries = header.iter().filter(|(name, _)| *name != "__metadata__");
    entries
        .map(|(name, entry)| {
            let range = &entry["data_offsets"];
            Tensor {
                name: name.clone(),
                dtype: entry["dtype"].as_str().unwrap().to_string(),
                shape: entry["shape"].as_array().unwrap().iter().map(number).collect(),
                data: data[number(&range[0]) as usize..number(&range[1]) as usize].to_vec(),
            }
        })
        .collect()
}

pub fn write_safetensors(path: &Path, tensors: &[Tensor]) {
    let mut header = Map::new();
    let mut at = 0;
    for t in tensors {
        let end = at + t.data.len();
        let entry = serde_json::json!({
            "dtype": t.dtype, "shape": t.shape, "data_offsets": [at, end],
        });
        header.insert(t.name.clone(), entry);
        at = end;
    }
    let data: Vec<u8> = tensors.iter().flat_map(|t| t.data.iter().copied()).collect();
    write_raw(path, &Value::Object(header).to_string(), &data);
}

pub fn write_raw(path: &Path, header: &str, data: &[u8]) {
    let mut bytes = (header.len() as u64).to_le_bytes().to_vec();
    bytes.extend_from_slice(header.as_bytes());
    bytes.extend_from_slice(data);
    std::fs::write(path, bytes).unwrap();
}
