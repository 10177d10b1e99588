//! A model's tensors, found in the file by name and checked for shape: all that is missing, unused
//! or misshapen is reported at once.

use std::collections::HashSet;
use std::ops::Range;
use std::sync::Arc;

use siskin_quant::matmul::Matrix;
use siskin_quant::{Act, GgmlType, formats};

use super::archs::ArchSpec;
use super::hparams::{Hparams, model_error};
use super::tensor_names::{self as names, Sizes, Tensor};
use crate::gguf::{ByteOrder, GgufFile, Mmap, TensorInfo};
use crate::{Error, Result};

/// A matrix of weights: a part of the mapped file, without a copy.
#[derive(Clone)]
pub struct Weight {
    name: String,
    bytes: Bytes,
    ty: GgmlType,
    rows: usize,
    cols: usize,
}

#[derive(Clone)]
enum Bytes {
    Mapped(Arc<Mmap>, Range<usize>),
    /// A tensor of a big-endian file, turned round.
    Owned(Arc<[u8]>),
}

impl Weight {
    /// The tensor's name in the file.
    pub fn name(&self) -> &str {
        &self.name
    }

    /// The weights' type.
    pub fn ty(&self) -> GgmlType {
        self.ty
    }

    /// What activations must be quantized to.
    pub fn act(&self) -> Act {
        self.ty.info().act
    }

    /// Rows: the length of a product.
    pub fn rows(&self) -> usize {
        self.rows
    }

    /// Columns: the length of the vectors multiplied.
    pub fn cols(&self) -> usize {
        self.cols
    }

    fn data(&self) -> &[u8] {
        match &self.bytes {
            Bytes::Mapped(map, range) => &map[range.clone()],
            Bytes::Owned(bytes) => bytes,
        }
    }

    /// Gives back the memory of the file's pages; they are read again when they are used again.
    pub(crate) fn forget(&self) {
        if let Bytes::Mapped(map, range) = &self.bytes {
            map.forget(range.clone());
        }
    }

    /// The matrix, for the kernels.
    pub fn matrix(&self) -> Matrix<'_> {
        Matrix::new(self.ty, self.rows, self.cols, self.data())
            .expect("the shape was checked when the weight was made")
    }

    /// Writes the values of row `row`, [`cols`](Self::cols) of them.
    ///
    /// # Errors
    /// [`Error::Internal`]: the shape was checked when the weight was made.
    pub fn dequantize_row(&self, row: usize, out: &mut [f32]) -> Result<()> {
        formats::dequantize_row(self.ty, self.matrix().row(row), out)
            .map_err(|e| Error::Internal(e.to_string()))
    }
}

/// A layer's tensors.
pub struct Layer {
    /// Norm before attention.
    pub attn_norm: Vec<f32>,
    /// Queries, keys, values: `[heads * dim][n_embd]`.
    pub q: Weight,
    /// Keys.
    pub k: Weight,
    /// Values.
    pub v: Weight,
    /// Bias of the queries.
    pub q_bias: Option<Vec<f32>>,
    /// Bias of the keys.
    pub k_bias: Option<Vec<f32>>,
    /// Bias of the values.
    pub v_bias: Option<Vec<f32>>,
    /// Norm of each query.
    pub q_norm: Option<Vec<f32>>,
    /// Norm of each key.
    pub k_norm: Option<Vec<f32>>,
    /// `[n_embd][n_head * v_dim]`
    pub attn_output: Weight,
    /// Bias of the attention's output.
    pub attn_output_bias: Option<Vec<f32>>,
    /// Norm after attention.
    pub attn_post_norm: Option<Vec<f32>>,
    /// Norm before the feed-forward part.
    pub ffn_norm: Vec<f32>,
    /// `[n_ff][n_embd]`
    pub gate: Weight,
    /// `[n_ff][n_embd]`
    pub up: Weight,
    /// `[n_embd][n_ff]`
    pub down: Weight,
    /// Bias of the gate.
    pub gate_bias: Option<Vec<f32>>,
    /// Bias of up.
    pub up_bias: Option<Vec<f32>>,
    /// Bias of down.
    pub down_bias: Option<Vec<f32>>,
    /// Norm after the feed-forward part.
    pub ffn_post_norm: Option<Vec<f32>>,
}

/// All tensors of a model.
pub struct Weights {
    /// `[n_vocab][n_embd]`
    pub token_embd: Weight,
    /// The layers.
    pub layers: Vec<Layer>,
    /// The last norm.
    pub output_norm: Vec<f32>,
    /// `[n_vocab][n_embd]`; the embeddings if the file has none of its own.
    pub output: Weight,
    /// What each rotary frequency is divided by.
    pub rope_factors: Option<Vec<f32>>,
    /// Bytes of matrices that are not used where the file has them, but copied.
    pub copied: u64,
}

/// Problems that are told one by one; the rest are counted.
const SHOWN: usize = 20;

/// What is wrong with a file's tensors. A small file may claim thousands of layers.
#[derive(Default)]
struct Problems {
    shown: Vec<String>,
    n: usize,
}

impl Problems {
    fn push(&mut self, problem: String) {
        self.n += 1;
        if self.n <= SHOWN {
            self.shown.push(problem);
        }
    }
}

/// Collects tensors and what is wrong with them.
struct Loader<'a> {
    file: &'a GgufFile,
    arch: &'static ArchSpec,
    sizes: Sizes,
    used: HashSet<String>,
    problems: Problems,
    copied: u64,
}

impl Loader<'_> {
    fn find(&mut self, name: &str, shape: &[usize], required: bool) -> Option<TensorInfo> {
        let Some(info) = self.file.tensor(name) else {
            if required {
                self.problems.push(format!("{name} is missing"));
            }
            return None;
        };
        self.used.insert(name.to_string());
        let trimmed = match info.shape.iter().rposition(|n| *n != 1) {
            Some(last) => &info.shape[..(last + 1).max(shape.len()).min(info.shape.len())],
            None => &info.shape[..shape.len().min(info.shape.len())],
        };
        if trimmed.len() != shape.len() || trimmed.iter().zip(shape).any(|(a, b)| *a != *b as u64) {
            self.problems.push(format!("{name} has shape {:?}, not {shape:?}", info.shape));
            return None;
        }
        if info.ty.info().act == Act::None {
            self.problems.push(format!("{name} is of type {}, which holds no weights", info.ty));
            return None;
        }
        Some(info.clone())
    }

    fn bytes(&mut self, info: &TensorInfo) -> Bytes {
        if self.file.byte_order() == ByteOrder::Big {
            let mut data = self.file.tensor_data(info).to_vec();
            self.copied += data.len() as u64;
            if let Err(e) = formats::swap_bytes(info.ty, &mut data) {
                self.problems.push(format!("{}: {e}", info.name));
            }
            return Bytes::Owned(data.into());
        }
        let (map, range) = self.file.tensor_map(info);
        Bytes::Mapped(map, range)
    }

    fn weight(&mut self, info: &TensorInfo, rows: usize, cols: usize) -> Option<Weight> {
        let name = info.name.clone();
        let weight = Weight { name, bytes: self.bytes(info), ty: info.ty, rows, cols };
        if Matrix::new(info.ty, rows, cols, weight.data()).is_none() {
            let reason = format!("{} has rows that are not whole blocks of {}", info.name, info.ty);
            self.problems.push(reason);
            return None;
        }
        Some(weight)
    }

    /// The rows and columns of a tensor that is wanted, and where the file has it.
    fn locate(&mut self, tensor: &Tensor, layer: usize) -> Option<(TensorInfo, usize, usize)> {
        let required = tensor.required(self.arch)?;
        let shape: Vec<usize> = tensor.shape.iter().map(|dim| self.sizes.get(*dim)).collect();
        let info = self.find(&tensor.gguf_name(layer), &shape, required)?;
        let (cols, rows) = shape.split_first()?;
        Some((info, rows.iter().product(), *cols))
    }

    fn matrix(&mut self, tensor: &Tensor, layer: usize) -> Option<Weight> {
        let (info, rows, cols) = self.locate(tensor, layer)?;
        self.weight(&info, rows, cols)
    }

    fn vector(&mut self, tensor: &Tensor, layer: usize) -> Option<Vec<f32>> {
        let (info, _, n) = self.locate(tensor, layer)?;
        let weight = self.weight(&info, 1, n)?;
        let mut out = vec![0.0; n];
        if let Err(e) = weight.dequantize_row(0, &mut out) {
            self.problems.push(format!("{}: {e}", info.name));
        }
        Some(out)
    }

    fn layer(&mut self, i: usize) -> Option<Layer> {
        let ffn_norm = if self.arch.post_norm { names::FFN_PRE_NORM } else { names::FFN_NORM };
        // All of them are looked up before the first `?`, so that all problems are found.
        let attn_norm = self.vector(&names::ATTN_NORM, i);
        let wq = self.matrix(&names::ATTN_Q, i);
        let wk = self.matrix(&names::ATTN_K, i);
        let wv = self.matrix(&names::ATTN_V, i);
        let q_bias = self.vector(&names::ATTN_Q_BIAS, i);
        let k_bias = self.vector(&names::ATTN_K_BIAS, i);
        let v_bias = self.vector(&names::ATTN_V_BIAS, i);
        let q_norm = self.vector(&names::ATTN_Q_NORM, i);
        let k_norm = self.vector(&names::ATTN_K_NORM, i);
        let attn_post_norm = self.vector(&names::ATTN_POST_NORM, i);
        let ffn_post_norm = self.vector(&names::FFN_POST_NORM, i);
        let attn_output = self.matrix(&names::ATTN_OUTPUT, i);
        let attn_output_bias = self.vector(&names::ATTN_OUTPUT_BIAS, i);
        let ffn_norm = self.vector(&ffn_norm, i);
        let gate = self.matrix(&names::FFN_GATE, i);
        let up = self.matrix(&names::FFN_UP, i);
        let down = self.matrix(&names::FFN_DOWN, i);
        let gate_bias = self.vector(&names::FFN_GATE_BIAS, i);
        let up_bias = self.vector(&names::FFN_UP_BIAS, i);
        let down_bias = self.vector(&names::FFN_DOWN_BIAS, i);
        Some(Layer {
            attn_norm: attn_norm?,
            q: wq?,
            k: wk?,
            v: wv?,
            q_bias,
            k_bias,
            v_bias,
            q_norm,
            k_norm,
            attn_output: attn_output?,
            attn_output_bias,
            attn_post_norm,
            ffn_norm: ffn_norm?,
            gate: gate?,
            up: up?,
            down: down?,
            gate_bias,
            up_bias,
            down_bias,
            ffn_post_norm,
        })
    }
}

impl Weights {
    /// Finds them.
    ///
    /// # Errors
    /// [`Error::Model`] that lists every tensor that is missing, misshapen or unused.
    pub fn new(file: &GgufFile, h: &Hparams) -> Result<Weights> {
        let mut loader = Loader {
            file,
            arch: h.arch,
            sizes: h.sizes(),
            used: HashSet::new(),
            problems: Problems::default(),
            copied: 0,
        };
        let token_embd = loader.matrix(&names::TOKEN_EMBD, 0);
        let output_norm = loader.vector(&names::OUTPUT_NORM, 0);
        let output = loader.matrix(&names::OUTPUT, 0);
        let rope_factors = loader.vector(&names::ROPE_FREQS, 0);
        let layers: Vec<_> = (0..h.n_layer).filter_map(|i| loader.layer(i)).collect();
        for tensor in file.tensors() {
            if !loader.used.contains(&tensor.name) {
                loader.problems.push(format!("{} is not known for `{}`", tensor.name, h.arch.name));
            }
        }
        if let (Some(token_embd), Some(output_norm), true) =
            (token_embd, output_norm, loader.problems.n == 0)
        {
            let output = output.unwrap_or_else(|| token_embd.clone());
            let copied = loader.copied;
            return Ok(Weights { token_embd, layers, output_norm, output, rope_factors, copied });
        }
        let Problems { shown, n } = loader.problems;
        let more = if n > SHOWN { format!("; and {} more", n - SHOWN) } else { String::new() };
        Err(model_error(file, format!("tensors: {}{more}", shown.join("; "))))
    }
}
