//! One decoder for every transformer: a forward pass over a batch of tokens.
//!
//! The pass runs on the calling thread, which hands the parallel steps to the team: five for each
//! layer when one token is decoded (queries, keys and values; attention; its output; gate and up;
//! down). Norms, rotation and activation of one token cost less than handing them out and stay on
//! the calling thread; in a batch they are split by rows.

use std::sync::atomic::{AtomicBool, Ordering};

use siskin_quant::attention::Attend;
use siskin_quant::matmul::{MAX_PRODUCTS, Product, matmul};
use siskin_quant::par::Team;
use siskin_quant::table::KernelTable;

use super::imatrix::{Collector, Input};
use super::kv_cache::KvCache;
use super::rope::Angles;
use super::weights::{Layer, Weight};
use super::workspace::{Inputs, Workspace};
use super::{Hparams, Model};
use crate::{Error, Result};

/// What a forward pass works with.
pub(crate) struct Pass<'a, 't> {
    pub model: &'a Model,
    pub table: &'a KernelTable,
    pub team: &'a mut Team<'t>,
    pub ws: &'a mut Workspace,
    pub cache: &'a mut KvCache,
    pub cancel: &'a AtomicBool,
    /// Where the squares of the weights' inputs are summed, if that is wanted.
    pub imatrix: Option<&'a mut Collector>,
}

/// Multiplies the prepared input with several weights in one step. `next` are those of the step after
/// it that multiplies.
fn products<const N: usize>(
    team: &mut Team<'_>,
    table: &KernelTable,
    inputs: &Inputs,
    weights: [&Weight; N],
    outs: [&mut [f32]; N],
    next: &[&Weight],
) {
    let mut outs = outs.into_iter();
    let mut list = weights.map(|weight| Product {
        w: weight.matrix(),
        x: inputs.of(weight),
        out: outs.next().expect("there are N results"),
    });
    let mut matrices = [weights[0].matrix(); MAX_PRODUCTS];
    for (matrix, weight) in matrices.iter_mut().zip(next) {
        *matrix = weight.matrix();
    }
    matmul(team, table, &mut list, &matrices[..next.len()]);
}

/// Gives the pages of weights that were multiplied back, if that is wanted.
fn used(imatrix: Option<&Collector>, weights: &[&Weight]) {
    if imatrix.is_some_and(|imatrix| imatrix.forget) {
        weights.iter().for_each(|weight| weight.forget());
    }
}

impl Pass<'_, '_> {
    /// Runs `tokens` at the positions from `pos` on, and leaves the residual stream of all of them,
    /// or only of the last, in `ws.x`. Returns how many rows that is.
    pub fn layers(&mut self, tokens: &[u32], pos: usize, last_only: bool) -> Result<usize> {
        let h = &self.model.hparams;
        let n = tokens.len();
        self.embed(tokens)?;
        self.cache.storing(pos, n);
        let ws = &mut *self.ws;
        ws.angles.fill(self.team, &ws.frequencies, pos, n);
        if h.rope_window != h.rope {
            ws.angles_window.fill(self.team, &ws.frequencies_window, pos, n);
        }
        for (l, layer) in self.model.weights.layers.iter().enumerate() {
            if self.cancel.load(Ordering::Relaxed) {
                return Err(Error::Cancelled);
            }
            let last_layer = l + 1 == h.n_layer;
            // Of the last layer, nothing but its last row is needed after the cache is filled.
            let narrow = last_layer && last_only && n > 1 && self.imatrix.is_none();
            self.attention(layer, l, pos, n, narrow)?;
            let rows = if narrow { 1 } else { n };
            match self.model.weights.layers.get(l + 1) {
                Some(next) => self.feed_forward(layer, l, rows, &[&next.q, &next.k, &next.v])?,
                None => self.feed_forward(layer, l, rows, &[&self.model.weights.output])?,
            }
        }
        if last_only && n > 1 && self.imatrix.is_some() {
            let e = h.n_embd;
            self.ws.x.copy_within((n - 1) * e..n * e, 0);
        }
        Ok(if last_only { 1 } else { n })
    }

    /// The logits of `rows` rows of the residual stream from `first` on, in `logits`.
    pub fn logits(&mut self, first: usize, rows: usize, logits: &mut [f32]) -> Result<()> {
        let h = &self.model.hparams;
        let weights = &self.model.weights;
        let ops = self.table.ops();
        let e = h.n_embd;
        let ws = &mut *self.ws;
        let input = &mut ws.input[..rows * e];
        let x = &ws.x[first * e..(first + rows) * e];
        ws.inputs.prepare(self.team, self.table, &[&weights.output], input, |t, row| {
            ops.rms_norm(&x[t * e..(t + 1) * e], &weights.output_norm, h.eps, row);
        });
        if let Some(imatrix) = self.imatrix.as_deref_mut() {
            imatrix.add_output(self.team, input);
        }
        products(self.team, self.table, &ws.inputs, [&weights.output], [&mut *logits], &[]);
        used(self.imatrix.as_deref(), &[&weights.output]);
        if h.logit_softcap > 0.0 {
            self.team.for_rows(logits, h.n_vocab, |_, row| ops.softcap(row, h.logit_softcap));
        }
        Ok(())
    }

    fn embed(&mut self, tokens: &[u32]) -> Result<()> {
        let h = &self.model.hparams;
        let e = h.n_embd;
        let scale = h.arch.scale_embeddings.then(|| (e as f32).sqrt());
        for (token, row) in tokens.iter().zip(self.ws.x.chunks_exact_mut(e)) {
            if *token as usize >= h.n_vocab {
                let range = h.n_vocab - 1;
                return Err(Error::Invalid(format!("token {token} is not one of 0 to {range}")));
            }
            self.model.weights.token_embd.dequantize_row(*token as usize, row)?;
            if let Some(scale) = scale {
                self.table.ops().scale(row, scale);
            }
        }
        Ok(())
    }

    fn attention(
        &mut self,
        layer: &Layer,
        l: usize,
        pos: usize,
        n: usize,
        narrow: bool,
    ) -> Result<()> {
        let h = &self.model.hparams;
        let (team, table, ws) = (&mut *self.team, self.table, &mut *self.ws);
        let ops = table.ops();
        let e = h.n_embd;
        let (q_row, k_row) = (h.n_head * h.k_dim, h.n_head_kv * h.k_dim);
        let (v_row, o_row) = (h.n_head_kv * h.v_dim, h.n_head * h.v_dim);
        let (q, k, v) = (&mut ws.q[..n * q_row], &mut ws.k[..n * k_row], &mut ws.v[..n * v_row]);

        let input = &mut ws.input[..n * e];
        let x = &ws.x;
        let weights = [&layer.q, &layer.k, &layer.v];
        ws.inputs.prepare(team, table, &weights, input, |t, row| {
            ops.rms_norm(&x[t * e..(t + 1) * e], &layer.attn_norm, h.eps, row);
        });
        if let Some(imatrix) = self.imatrix.as_deref_mut() {
            imatrix.add(team, l, Input::Attn, input);
        }
        products(
            team,
            table,
            &ws.inputs,
            weights,
            [&mut *q, &mut *k, &mut *v],
            &[&layer.attn_output],
        );
        used(self.imatrix.as_deref(), &weights);

        let angles = if h.windows[l] != usize::MAX && h.rope_window != h.rope {
            &ws.angles_window
        } else {
            &ws.angles
        };
        let heads =
            |bias: &Option<Vec<f32>>, norm: &Option<Vec<f32>>, t: usize, row: &mut [f32]| {
                finish_heads(h, table, angles, bias.as_deref(), norm.as_deref(), t, row);
            };
        team.for_rows(q, q_row, |t, row| heads(&layer.q_bias, &layer.q_norm, t, row));
        team.for_rows(k, k_row, |t, row| heads(&layer.k_bias, &layer.k_norm, t, row));
        if let Some(bias) = &layer.v_bias {
            team.for_rows(v, v_row, |_, row| ops.add(row, bias));
        }
        let cache = &mut self.cache.layers[l];
        cache.store(ops, pos, k, v);

        let first = if narrow { n - 1 } else { 0 };
        let rows = n - first;
        let out = &mut ws.input[..rows * o_row];
        let mut attend = Attend {
            q: &q[first * q_row..],
            n_head: h.n_head,
            pos: pos + first,
            window: h.windows[l],
            scale: h.attn_scale,
            softcap: h.attn_softcap,
            out: &mut *out,
            partial: &mut ws.partial,
        };
        cache.attend(team, ops, &mut attend);
        if narrow {
            ws.x.copy_within(first * e..n * e, 0);
        }

        let part = &mut ws.part[..rows * e];
        ws.inputs.prepare(team, table, &[&layer.attn_output], out, |_, _| ());
        if let Some(imatrix) = self.imatrix.as_deref_mut() {
            imatrix.add(team, l, Input::AttnOutput, out);
        }
        let next = [&layer.gate, &layer.up];
        products(team, table, &ws.inputs, [&layer.attn_output], [&mut *part], &next);
        used(self.imatrix.as_deref(), &[&layer.attn_output]);
        let x = &mut ws.x[..rows * e];
        let bias = layer.attn_output_bias.as_deref();
        finish_part(h, team, table, bias, layer.attn_post_norm.as_deref(), part, x);
        Ok(())
    }

    /// `next` are the weights that come after this part.
    fn feed_forward(&mut self, layer: &Layer, l: usize, n: usize, next: &[&Weight]) -> Result<()> {
        let h = &self.model.hparams;
        let (team, table, ws) = (&mut *self.team, self.table, &mut *self.ws);
        let ops = table.ops();
        let (e, f) = (h.n_embd, h.n_ff);
        let input = &mut ws.input[..n * e];
        let x = &ws.x;
        let weights = [&layer.gate, &layer.up];
        ws.inputs.prepare(team, table, &weights, input, |t, row| {
            ops.rms_norm(&x[t * e..(t + 1) * e], &layer.ffn_norm, h.eps, row);
        });
        if let Some(imatrix) = self.imatrix.as_deref_mut() {
            imatrix.add(team, l, Input::Ffn, input);
        }
        let (gate, up) = (&mut ws.gate[..n * f], &mut ws.up[..n * f]);
        products(team, table, &ws.inputs, weights, [&mut *gate, &mut *up], &[&layer.down]);
        used(self.imatrix.as_deref(), &weights);
        if let Some(bias) = &layer.up_bias {
            team.for_rows(up, f, |_, row| ops.add(row, bias));
        }
        let up = &*up;
        let part = &mut ws.part[..n * e];
        ws.inputs.prepare(team, table, &[&layer.down], gate, |t, row| {
            if let Some(bias) = &layer.gate_bias {
                ops.add(row, bias);
            }
            ops.gate(h.activation, row, &up[t * f..(t + 1) * f]);
        });
        if let Some(imatrix) = self.imatrix.as_deref_mut() {
            imatrix.add(team, l, Input::Down, gate);
        }
        products(team, table, &ws.inputs, [&layer.down], [&mut *part], next);
        used(self.imatrix.as_deref(), &[&layer.down]);
        let x = &mut ws.x[..n * e];
        let bias = layer.down_bias.as_deref();
        finish_part(h, team, table, bias, layer.ffn_post_norm.as_deref(), part, x);
        Ok(())
    }
}

/// Bias, norm and rotation of the heads of one token's queries or keys.
fn finish_heads(
    h: &Hparams,
    table: &KernelTable,
    angles: &Angles,
    bias: Option<&[f32]>,
    norm: Option<&[f32]>,
    t: usize,
    row: &mut [f32],
) {
    let ops = table.ops();
    if let Some(bias) = bias {
        ops.add(row, bias);
    }
    let (cos, sin) = angles.of(t);
    for head in row.chunks_exact_mut(h.k_dim) {
        if let Some(norm) = norm {
            ops.rms_norm_in_place(head, norm, h.eps);
        }
        ops.rope(h.rope_style, head, cos, sin);
    }
}

/// Adds what attention or feed-forward gave, normed if the architecture does so, to the stream.
fn finish_part(
    h: &Hparams,
    team: &mut Team<'_>,
    table: &KernelTable,
    bias: Option<&[f32]>,
    norm: Option<&[f32]>,
    part: &mut [f32],
    x: &mut [f32],
) {
    let ops = table.ops();
    let e = h.n_embd;
    if bias.is_some() || norm.is_some() {
        team.for_rows(part, e, |_, row| {
            if let Some(bias) = bias {
                ops.add(row, bias);
            }
            if let Some(norm) = norm {
                ops.rms_norm_in_place(row, norm, h.eps);
            }
        });
    }
    let part = &*part;
    team.for_rows(x, e, |t, row| ops.add(row, &part[t * e..(t + 1) * e]));
}
