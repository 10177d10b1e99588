//! A model's tensors, found in the file by name and checked for shape: all that is missing, unused
//! or misshapen is reported at once.

use std::collections::HashSet;
use std::ops::Range;
use std::sync::Arc;

use siskin_quant::matmul::Matrix;
use siskin_quant::{Act, GgmlType, formats};

use super::hparams::{Hparams, model_error};
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

    fn matrix(&mut self, name: &str, rows: usize, cols: usize, required: bool) -> Option<Weight> {
        let info = self.find(name, &[cols, rows], required)?;
        self.weight(&info, rows, cols)
    }

    fn vector(&mut self, name: &str, n: usize, required: bool) -> Option<Vec<f32>> {
        let info = self.find(name, &[n], required)?;
        let weight = self.weight(&info, 1, n)?;
        let mut out = vec![0.0; n];
        if let Err(e) = weight.dequantize_row(0, &mut out) {
            self.problems.push(format!("{name}: {e}"));
        }
        Some(out)
    }

    fn layer(&mut self, h: &Hparams, i: usize) -> Option<Layer> {
        let name = |part: &str| format!("blk.{i}.{part}");
        let (q, k, v) = (h.n_head * h.k_dim, h.n_head_kv * h.k_dim, h.n_head_kv * h.v_dim);
        let post = h.arch.post_norm;
        let qk_norm = h.arch.qk_norm;
        // All of them are looked up before the first `?`, so that all problems are found.
        let attn_norm = self.vector(&name("attn_norm.weight"), h.n_embd, true);
        let wq = self.matrix(&name("attn_q.weight"), q, h.n_embd, true);
        let wk = self.matrix(&name("attn_k.weight"), k, h.n_embd, true);
        let wv = self.matrix(&name("attn_v.weight"), v, h.n_embd, true);
        let q_bias = self.vector(&name("attn_q.bias"), q, false);
        let k_bias = self.vector(&name("attn_k.bias"), k, false);
        let v_bias = self.vector(&name("attn_v.bias"), v, false);
        let mut norm = |part: &str, n: usize, has: bool| {
            if has { self.vector(&name(part), n, true) } else { None }
        };
        let q_norm = norm("attn_q_norm.weight", h.k_dim, qk_norm);
        let k_norm = norm("attn_k_norm.weight", h.k_dim, qk_norm);
        let attn_post_norm = norm("post_attention_norm.weight", h.n_embd, post);
        let ffn_post_norm = norm("post_ffw_norm.weight", h.n_embd, post);
        let attn_output =
            self.matrix(&name("attn_output.weight"), h.n_embd, h.n_head * h.v_dim, true);
        let attn_output_bias = self.vector(&name("attn_output.bias"), h.n_embd, false);
        let ffn_norm = self.vector(&name("ffn_norm.weight"), h.n_embd, true);
        let gate = self.matrix(&name("ffn_gate.weight"), h.n_ff, h.n_embd, true);
        let up = self.matrix(&name("ffn_up.weight"), h.n_ff, h.n_embd, true);
        let down = self.matrix(&name("ffn_down.weight"), h.n_embd, h.n_ff, true);
        let gate_bias = self.vector(&name("ffn_gate.bias"), h.n_ff, false);
        let up_bias = self.vector(&name("ffn_up.bias"), h.n_ff, false);
        let down_bias = self.vector(&name("ffn_down.bias"), h.n_embd, false);
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
        let mut loader =
            Loader { file, used: HashSet::new(), problems: Problems::default(), copied: 0 };
        let token_embd = loader.matrix("token_embd.weight", h.n_vocab, h.n_embd, true);
        let output_norm = loader.vector("output_norm.weight", h.n_embd, true);
        let output = loader.matrix("output.weight", h.n_vocab, h.n_embd, false);
        let rope_factors = loader.vector("rope_freqs.weight", h.n_rot / 2, false);
        let layers: Vec<_> = (0..h.n_layer).filter_map(|i| loader.layer(h, i)).collect();
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
