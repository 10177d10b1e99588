//! The values of a tensor, from the rows of the checkpoint that make it up.

use std::collections::HashMap;
use std::ops::Range;

use siskin::GgmlType;
use siskin_quant::formats::dequantize_row;

use super::lora::Delta;
use super::pieces::{Op, Order, Origin, Piece, for_each_run};
use super::safetensors::{Dtype, HubTensor, Shards};
use crate::{Error, Result};

/// Values from their bytes, as many as `out` has room for.
pub(super) fn decode(dtype: Dtype, bytes: &[u8], out: &mut [f32]) {
    let ty = match dtype {
        Dtype::F32 => GgmlType::F32,
        Dtype::F16 => GgmlType::F16,
        Dtype::Bf16 => GgmlType::BF16,
        Dtype::F8E4M3 => {
            out.iter_mut().zip(bytes).for_each(|(out, bits)| *out = f8_e4m3(*bits));
            return;
        }
    };
    // Of as many values as bytes the rows always are, or there is nothing to read.
    if dequantize_row(ty, bytes, out).is_err() {
        out.fill(f32::NAN);
    }
}

/// An 8-bit float of 4 bits of exponent (bias 7) and 3 of mantissa, without infinities.
fn f8_e4m3(bits: u8) -> f32 {
    let (exponent, mantissa) = (i32::from(bits >> 3 & 15), f32::from(bits & 7));
    let size = match (exponent, bits & 7) {
        (15, 7) => f32::NAN,
        // A power of two is exact.
        (0, _) => mantissa / 512.0,
        _ => (1.0 + mantissa / 8.0) * f32::from_bits(((exponent + 120) as u32) << 23),
    };
    if bits & 0x80 == 0 { size } else { -size }
}

/// Factors of the blocks of a tensor.
#[derive(Debug)]
pub(super) struct BlockScales {
    /// Rows and columns of a block.
    pub(super) block: [u64; 2],
    /// Blocks in a row of blocks.
    pub(super) per_row: usize,
    pub(super) scales: Vec<f32>,
}

impl BlockScales {
    fn apply(&self, row: u64, values: &mut [f32]) {
        let first = (row / self.block[0]) as usize * self.per_row;
        let scales = self.scales.get(first..first + self.per_row).unwrap_or_default();
        for (values, scale) in values.chunks_mut(self.block[1] as usize).zip(scales) {
            values.iter_mut().for_each(|x| *x *= scale);
        }
    }
}

/// A checkpoint's tensors and what is done to them.
#[derive(Debug)]
pub(super) struct Reader {
    pub(super) shards: Shards,
    /// By the number of the tensor in `shards`.
    pub(super) deltas: HashMap<usize, Vec<Delta>>,
    /// The same.
    pub(super) scales: HashMap<usize, BlockScales>,
}

impl Reader {
    fn tensor(&self, piece: &Piece) -> Result<(&HubTensor, Dtype)> {
        let tensor = self.shards.tensors.get(piece.tensor);
        tensor.and_then(|tensor| Some((tensor, tensor.dtype?))).ok_or_else(|| {
            Error::Invalid(format!("tensor {} of the checkpoint has no values", piece.tensor))
        })
    }

    /// How the values are held: exactly, and as they are if possible.
    pub(super) fn ty(&self, origin: &Origin) -> GgmlType {
        let Origin::Pieces { pieces, op: Op::None, .. } = origin else { return GgmlType::F32 };
        let mut ty = None;
        for piece in pieces {
            let changed =
                self.deltas.contains_key(&piece.tensor) || self.scales.contains_key(&piece.tensor);
            let this = match self.tensor(piece).map(|(_, dtype)| dtype) {
                Ok(Dtype::F16) if !changed => GgmlType::F16,
                Ok(Dtype::Bf16 | Dtype::F8E4M3) if !changed => GgmlType::BF16,
                _ => GgmlType::F32,
            };
            // F16 and BF16 together fit in neither.
            ty = Some(if ty.is_none_or(|ty| ty == this) { this } else { GgmlType::F32 });
        }
        ty.unwrap_or(GgmlType::F32)
    }

    /// Whether any of it is held in 8 bits.
    pub(super) fn is_fp8(&self, origin: &Origin) -> bool {
        let Origin::Pieces { pieces, .. } = origin else { return false };
        pieces.iter().any(|p| matches!(self.tensor(p), Ok((_, Dtype::F8E4M3))))
    }

    /// Calls `f` with each row of `rows`: its number among them, the piece's tensor, the row's
    /// number there, and its bytes.
    fn each_row(
        &self,
        pieces: &[Piece],
        order: Order,
        rows: Range<u64>,
        mut f: impl FnMut(usize, &Piece, u64, &[u8]),
    ) -> Result<()> {
        let mut buffer = Vec::new();
        for_each_run(pieces, rows, |i, local, at| {
            let Some(piece) = pieces.get(i) else { return Ok(()) };
            let (tensor, dtype) = self.tensor(piece)?;
            let n_bytes = tensor.cols() as usize * dtype.bytes();
            // Whole blocks, within which the order changes.
            let first = local.start - local.start % order.block();
            let last = local.end.next_multiple_of(order.block());
            buffer.resize((last - first) as usize * n_bytes, 0);
            self.shards.read(tensor, piece.rows.start + first, &mut buffer)?;
            for (n, row) in local.enumerate() {
                let source = order.source(row);
                let start = (source - first) as usize * n_bytes;
                let bytes = buffer.get(start..start + n_bytes).unwrap_or_default();
                f(at as usize + n, piece, piece.rows.start + source, bytes);
            }
            Ok(())
        })
    }

    /// Writes the values of some rows of the checkpoint's kind: a vector has a row for each value.
    pub(super) fn read(&self, origin: &Origin, rows: Range<u64>, out: &mut [f32]) -> Result<()> {
        let (pieces, order, op) = match origin {
            Origin::Pieces { pieces, order, op } => (pieces, *order, *op),
            Origin::Computed(values) => {
                let values = values.get(rows.start as usize..rows.end as usize);
                out.copy_from_slice(values.filter(|v| v.len() == out.len()).ok_or_else(|| {
                    Error::Invalid(format!("rows {rows:?} of a vector that is shorter"))
                })?);
                return Ok(());
            }
        };
        let n_rows = (rows.end - rows.start) as usize;
        let cols = out.len() / n_rows.max(1);
        let mut work = Vec::new();
        let mut deltas: HashMap<usize, Vec<_>> = HashMap::new();
        for piece in pieces {
            if let Some(all) = self.deltas.get(&piece.tensor) {
                let all = all.iter().map(Delta::matrices).collect::<Result<_>>()?;
                deltas.insert(piece.tensor, all);
            }
        }
        self.each_row(pieces, order, rows, |n, piece, source, bytes| {
            let Some(values) = out.get_mut(n * cols..(n + 1) * cols) else { return };
            if let Ok((_, dtype)) = self.tensor(piece) {
                decode(dtype, bytes, values);
            }
            if let Some(scales) = self.scales.get(&piece.tensor) {
                scales.apply(source, values);
            }
            for delta in deltas.get(&piece.tensor).into_iter().flatten() {
                delta.add(source, values, &mut work);
            }
            if let Op::Add(shift) = op {
                values.iter_mut().for_each(|x| *x += shift);
            }
        })
    }

    /// Gives back what was kept to read a tensor.
    pub(super) fn forget(&self, origin: &Origin) {
        let Origin::Pieces { pieces, .. } = origin else { return };
        let deltas = pieces.iter().filter_map(|piece| self.deltas.get(&piece.tensor));
        deltas.flatten().for_each(Delta::forget);
    }
}

#[cfg(test)]
mod tests {
    use super::f8_e4m3;

    #[test]
    fn eight_bits_make_the_values_of_the_format() {
        for (bits, value) in [
            (0x00, 0.0),
            (0x01, 1.0 / 512.0),
            (0x07, 7.0 / 512.0),
            (0x08, 1.0 / 64.0),
            (0x38, 1.0),
            (0x3c, 1.5),
            (0x7e, 448.0),
            (0xb8, -1.0),
            (0xfe, -448.0),
        ] {
            assert_eq!(f8_e4m3(bits), value, "{bits:#x}");
        }
        assert!(f8_e4m3(0x7f).is_nan() && f8_e4m3(0xff).is_nan());
    }
}
