//! Kernel bodies that every level shares.

use crate::formats::{IntBlock, Unit};
use crate::table::{GemmArgs, KernelTable, Kernels};
use crate::types::GgmlType;

/// The matrix product of a format, one element at a time: the reference that every other kernel
/// is compared with.
///
/// # Safety
/// As for [`GemmFn`](crate::table::GemmFn); the layout's type is the format's.
#[allow(clippy::undocumented_unsafe_blocks, reason = "each block is the caller's promise")]
pub unsafe fn gemm_scalar<B: IntBlock>(args: &mut GemmArgs<'_>) {
    let layout = args.layout;
    let mut unit = Unit::default();
    let units = B::LEN / B::UNIT;
    for row in args.rows.clone() {
        let blocks: *const B = unsafe { args.w.add(row * args.row_bytes).cast() };
        for col in 0..args.n {
            let (q, d) = unsafe {
                let x = args.act.add(col * layout.stride);
                (x.cast::<i8>(), x.add(layout.d).cast::<f32>())
            };
            let mut acc = 0.0f32;
            for u in 0..layout.k / B::UNIT {
                let block = unsafe { blocks.add(u / units).read_unaligned() };
                block.unpack(u % units, &mut unit);
                let d = unsafe { *d.add(u * B::UNIT / B::ACT) };
                let (mut isum, mut imin) = (0i32, 0i32);
                for i in 0..B::UNIT {
                    let a = i32::from(unsafe { *q.add(u * B::UNIT + i) });
                    isum += i32::from(unit.scale[i / 16]) * i32::from(unit.q[i]) * a;
                    imin += i32::from(unit.min[i / 16]) * a;
                }
                acc = (unit.d * d).mul_add(isum as f32, acc);
                if B::HAS_MIN {
                    acc = (unit.dmin * d).mul_add(imin as f32, acc);
                }
            }
            unsafe { *args.out.add(col * args.ldo + row) = acc };
        }
    }
}

macro_rules! install_int {
    ([$table:ident] $( ($variant:ident, $block:ident) )*) => {
        $( $table.set(
            GgmlType::$variant,
            Kernels {
                act: GgmlType::$variant.info().act,
                gemm: gemm_scalar::<crate::formats::$block>,
            },
        ); )*
    };
}

/// Installs kernels for every format with integer codes.
pub(crate) fn install_scalar(table: &mut KernelTable) {
    crate::for_each_format! { install_int [table] }
}
