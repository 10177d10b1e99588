//! Rows of blocks as bytes, by type: what a reader of files needs.

use std::fmt;

use bytemuck::{try_cast_slice, try_cast_slice_mut};

use super::{Block, Wide};
use crate::GgmlType;

/// What a row function was given that it cannot work with.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum RowError {
    /// The type holds no values to compute with (integers and f64).
    NoValues(GgmlType),
    /// There is no quantizer of the type.
    NoQuantizer(GgmlType),
    /// The values are not whole blocks, or the bytes are not those of that many values.
    Size {
        /// The type of the row.
        ty: GgmlType,
        /// Bytes given.
        bytes: usize,
        /// Values given.
        values: usize,
    },
    /// The importances are not whole blocks, or the values not whole rows of them.
    Importance {
        /// The type of the row.
        ty: GgmlType,
        /// Importances given.
        columns: usize,
        /// Values given.
        values: usize,
    },
}

impl fmt::Display for RowError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            RowError::NoValues(ty) => write!(f, "{ty} holds no values to compute with"),
            RowError::NoQuantizer(ty) => write!(f, "there is no quantizer of {ty}"),
            RowError::Size { ty, bytes, values } => write!(
                f,
                "{bytes} bytes are not {values} values of {ty}, which has {} values in {} bytes",
                ty.block_len(),
                ty.block_bytes()
            ),
            RowError::Importance { ty, columns, values } => write!(
                f,
                "{columns} importances are not those of the columns of {values} values of {ty}, \
                 which has {} values in a block",
                ty.block_len()
            ),
        }
    }
}

impl std::error::Error for RowError {}

/// Quantizes a number of values to the bytes that fit them.
type QuantizeFn = fn(&[f32], &mut [u8]);

/// What is done to rows of one type.
#[derive(Clone, Copy)]
struct RowOps {
    /// Of a number of bytes and values that fit each other.
    dequantize: fn(&[u8], &mut [f32]),
    quantize: Option<QuantizeFn>,
    wide: &'static [Wide],
}

/// Writes the values of a row of blocks.
pub fn dequantize_row(ty: GgmlType, row: &[u8], out: &mut [f32]) -> Result<(), RowError> {
    let ops = OPS[ty as usize].ok_or(RowError::NoValues(ty))?;
    if ty.row_bytes(out.len()) != Some(row.len()) {
        return Err(RowError::Size { ty, bytes: row.len(), values: out.len() });
    }
    (ops.dequantize)(row, out);
    Ok(())
}

/// True if [`quantize_row`] knows the type.
pub fn can_quantize(ty: GgmlType) -> bool {
    OPS[ty as usize].is_some_and(|ops| ops.quantize.is_some())
}

/// Writes the blocks of a row of values, the bits that `llama-quantize` without an importance
/// matrix writes. A NaN or an infinity gives blocks without meaning.
pub fn quantize_row(ty: GgmlType, x: &[f32], row: &mut [u8]) -> Result<(), RowError> {
    let ops = OPS[ty as usize].ok_or(RowError::NoValues(ty))?;
    let quantize = ops.quantize.ok_or(RowError::NoQuantizer(ty))?;
    if ty.row_bytes(x.len()) != Some(row.len()) {
        return Err(RowError::Size { ty, bytes: row.len(), values: x.len() });
    }
    quantize(x, row);
    Ok(())
}

/// Turns a row of blocks from big-endian into little-endian, or back.
///
/// Every number of several bytes is turned round, at the width that ggml computes with: a
/// big-endian machine running ggml stores it that way. For the types that ggml's own conversion
/// script knows (F32, F16, BF16, Q4_0, Q8_0, Q4_K, Q6_K, MXFP4, NVFP4) the result is the same.
pub fn swap_bytes(ty: GgmlType, row: &mut [u8]) -> Result<(), RowError> {
    let block_bytes = ty.block_bytes();
    if !row.len().is_multiple_of(block_bytes) {
        let values = row.len() / block_bytes * ty.block_len();
        return Err(RowError::Size { ty, bytes: row.len(), values });
    }
    // Types without blocks of their own are single numbers.
    let number = [Wide { offset: 0, width: block_bytes, count: 1 }];
    let wide = OPS[ty as usize].map_or(&number[..], |ops| ops.wide);
    for block in row.chunks_exact_mut(block_bytes) {
        for field in wide {
            let bytes = &mut block[field.offset..][..field.width * field.count];
            bytes.chunks_exact_mut(field.width).for_each(<[u8]>::reverse);
        }
    }
    Ok(())
}

fn dequantize_blocks<B: Block>(row: &[u8], out: &mut [f32]) {
    // A block has the alignment of a byte, and the length is whole blocks: the cast cannot fail.
    let blocks: &[B] = try_cast_slice(row).unwrap_or(&[]);
    for (block, out) in blocks.iter().zip(out.chunks_exact_mut(B::LEN)) {
        block.dequantize(out);
    }
}

/// The row form of a block's quantizer.
const fn quantizer<B: Block>() -> Option<QuantizeFn> {
    if B::QUANTIZE.is_none() {
        return None;
    }
    Some(|x, row| {
        let Some(quantize) = B::QUANTIZE else { return };
        // As above, the cast cannot fail.
        let blocks: &mut [B] = try_cast_slice_mut(row).unwrap_or(&mut []);
        for (block, x) in blocks.iter_mut().zip(x.chunks_exact(B::LEN)) {
            *block = quantize(x);
        }
    })
}

macro_rules! define_ops {
    ([]
     int { $( $(#[$int_doc:meta])* $int:ident = $int_id:literal, $int_name:literal,
        $int_len:literal, $int_bytes:literal, $int_act:ident, $int_block:ident; )* }
     plain { $( $(#[$doc:meta])* $variant:ident = $id:literal, $name:literal,
        $len:literal, $bytes:literal, $act:ident, $block:ident; )* }
     none { $( $none:tt )* }
    ) => {
        define_ops! { $( ($int, $int_block) )* $( ($variant, $block) )* }
    };
    ($( ($variant:ident, $block:ident) )*) => {
        static OPS: [Option<RowOps>; GgmlType::COUNT] = {
            let mut ops = [None; GgmlType::COUNT];
            $( ops[GgmlType::$variant as usize] = Some(RowOps {
                dequantize: dequantize_blocks::<super::$block>,
                quantize: quantizer::<super::$block>(),
                wide: <super::$block as Block>::WIDE,
            }); )*
            ops
        };

        $( const _: () = {
            type B = super::$block;
            assert!(size_of::<B>() == GgmlType::$variant.block_bytes());
            assert!(align_of::<B>() == 1);
            assert!(<B as Block>::TYPE as u32 == GgmlType::$variant as u32);
        }; )*
    };
}

crate::formats! { define_ops [] }
