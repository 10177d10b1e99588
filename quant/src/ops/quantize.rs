//! Activations as bytes.

#![allow(clippy::undocumented_unsafe_blocks, reason = "each body's block is its caller's promise")]

use std::mem::MaybeUninit;

use crate::act::{ActLayout, GROUP, Sums};
use crate::lanes::{Lanes, ROUND};
use crate::types::Act;

/// Blocks of 32 that are quantized together, one a lane: one by one, each waits for the largest of its
/// values, and then for the sum of its codes.
const SLOTS: usize = 16;
/// Times as many whose scales are computed before the first codes, which wait for them: more than the CPU
/// looks ahead, and few enough to be still in the first cache.
const AHEAD: usize = 4;

/// Quantizes the rows `x` of a group, or the one row of a layout without groups; rows that a group lacks
/// are zeros.
#[inline(always)]
pub unsafe fn quantize<L: Lanes>(layout: &ActLayout, x: &[f32], group: &mut [u8]) {
    unsafe {
        if layout.act != Act::Q8 {
            group[..4 * x.len()].copy_from_slice(bytemuck::cast_slice(x));
        } else if layout.sums.contains(Sums::SUM16) || layout.sums.contains(Sums::TOTAL16) {
            quantize_blocks::<L, true>(layout, x, group);
        } else {
            quantize_blocks::<L, false>(layout, x, group);
        }
    }
}

/// The blocks in the order in which their codes and scales lie in memory, so that those of [`SLOTS`] are
/// written as a whole. With `BY16`, sums of 16 codes are made too.
#[inline(always)]
unsafe fn quantize_blocks<L: Lanes, const BY16: bool>(
    layout: &ActLayout,
    x: &[f32],
    group: &mut [u8],
) {
    let (k, width) = (layout.k, layout.group);
    let (rows, slots) = (x.len() / k, k / 32 * width);
    let (x, group) = (x.as_ptr(), group.as_mut_ptr());
    let zeros = [0.0f32; 32];
    let mut from = [[zeros.as_ptr(); SLOTS]; AHEAD];
    let mut scales = [[0.0f32; SLOTS]; AHEAD];
    let mut inverses = [[0.0f32; SLOTS]; AHEAD];
    // Fewer than all slots would be written over what comes after them.
    let mut few = [0i8; 32 * SLOTS];
    unsafe {
        for begin in (0..slots).step_by(SLOTS * AHEAD) {
            let parts = (slots - begin).div_ceil(SLOTS).min(AHEAD);
            for (i, from) in from.iter_mut().enumerate().take(parts) {
                let first = begin + SLOTS * i;
                for (slot, from) in (first..).zip(from.iter_mut()) {
                    // The width is a power of two, which the compiler cannot know: it would divide.
                    let (block, row) = (slot >> width.trailing_zeros(), slot & (width - 1));
                    let held = slot < slots && row < rows;
                    *from = if held { x.add(row * k + 32 * block) } else { zeros.as_ptr() };
                }
                let (d, inverse) = scale_slots::<L>(from);
                L::store(scales[i].as_mut_ptr(), d);
                L::store(inverses[i].as_mut_ptr(), inverse);
            }
            for i in 0..parts {
                let first = begin + SLOTS * i;
                let n = SLOTS.min(slots - first);
                let out = group.add(32 * first).cast::<i8>();
                let codes = if n == SLOTS { out } else { few.as_mut_ptr() };
                let (sums, halves) = quantize_slots::<L, BY16>(&from[i], &inverses[i], codes);
                if n < SLOTS {
                    std::ptr::copy_nonoverlapping(few.as_ptr(), out, 32 * n);
                }
                // Sums of codes are exact in any order, and whole numbers within 32 times 127.
                let section = |at: usize| group.add(at).cast::<u32>().add(first);
                let d = L::load(scales[i].as_ptr());
                write(section(layout.d), &bits::<L>(d), n);
                if layout.sums.contains(Sums::SUM32) {
                    write(section(layout.sum32), &whole::<L>(sums), n);
                }
                if layout.sums.contains(Sums::TOTAL32) {
                    write(section(layout.total32), &totals::<L>(d, sums), n);
                }
                if BY16 {
                    let section = |at: usize| group.add(at).cast::<u32>().add(2 * first);
                    let [low, high] = halves;
                    if layout.sums.contains(Sums::SUM16) {
                        let both = between(whole::<L>(low), whole::<L>(high), width);
                        write(section(layout.sum16), &both, 2 * n);
                    }
                    if layout.sums.contains(Sums::TOTAL16) {
                        let both = between(totals::<L>(d, low), totals::<L>(d, high), width);
                        write(section(layout.total16), &both, 2 * n);
                    }
                }
            }
        }
    }
}

/// Lanes as words.
#[inline(always)]
unsafe fn bits<L: Lanes>(v: L::V) -> [u32; SLOTS] {
    bytemuck::cast(unsafe { L::to_array(v) })
}

/// Whole numbers as words.
#[inline(always)]
unsafe fn whole<L: Lanes>(v: L::V) -> [u32; SLOTS] {
    let mut words = [0; SLOTS];
    for (word, x) in words.iter_mut().zip(unsafe { L::to_array(v) }) {
        *word = unsafe { x.to_int_unchecked::<i32>() }.cast_unsigned();
    }
    words
}

/// Sums of values, of those of their codes; never -0, whose sign some kernels would lose.
#[inline(always)]
unsafe fn totals<L: Lanes>(d: L::V, sums: L::V) -> [u32; SLOTS] {
    unsafe { bits::<L>(L::add(L::mul(d, sums), L::splat(0.0))) }
}

/// What belongs to the first and to the second halves of blocks, in the order of a section.
#[inline(always)]
fn between(low: [u32; SLOTS], high: [u32; SLOTS], width: usize) -> [u32; 2 * SLOTS] {
    let mut both = [0; 2 * SLOTS];
    if width == 1 {
        for slot in 0..SLOTS {
            (both[2 * slot], both[2 * slot + 1]) = (low[slot], high[slot]);
        }
    } else {
        const { assert!(SLOTS == 2 * GROUP) };
        for (i, half) in
            [&low[..GROUP], &high[..GROUP], &low[GROUP..], &high[GROUP..]].iter().enumerate()
        {
            both[GROUP * i..GROUP * (i + 1)].copy_from_slice(half);
        }
    }
    both
}

/// The first `n` of some words.
#[inline(always)]
unsafe fn write<const N: usize>(out: *mut u32, words: &[u32; N], n: usize) {
    unsafe {
        if n == N {
            out.cast::<[u32; N]>().write(*words);
        } else {
            std::ptr::copy_nonoverlapping(words.as_ptr(), out, n);
        }
    }
}

/// The scales of blocks, and what their values are multiplied with.
#[inline(always)]
unsafe fn scale_slots<L: Lanes>(from: &[*const f32; SLOTS]) -> (L::V, L::V) {
    unsafe {
        let (zero, most) = (L::splat(0.0), L::splat(127.0));
        let mut tops = [zero; SLOTS];
        for (x, top) in from.iter().zip(&mut tops) {
            let (low, high) = (L::load(*x), L::load(x.add(16)));
            // `max` gives its second operand for NaN: a NaN does not become the scale.
            *top = L::max(L::abs(high), L::max(L::abs(low), zero));
        }
        let top = L::largest_each(&tops);
        (L::div(top, most), L::select_lt(zero, top, L::div(most, top), zero))
    }
}

/// Quantizes blocks and writes their codes one after the other. Returns, with a block a lane, the sums of
/// the codes, and with `BY16` those of each half. The codes are whole numbers as floats until they are
/// written, so that their sums, which are below 2^24, are exact in any order.
#[inline(always)]
unsafe fn quantize_slots<L: Lanes, const BY16: bool>(
    from: &[*const f32; SLOTS],
    inverse: &[f32; SLOTS],
    codes: *mut i8,
) -> (L::V, [L::V; 2]) {
    unsafe {
        let (zero, low, high) = (L::splat(0.0), L::splat(-127.0), L::splat(127.0));
        let round = L::splat(ROUND);
        // Not zeroed first: the compiler would call for that.
        let mut sums = [const { MaybeUninit::<[L::V; SLOTS]>::uninit() }; 2];
        let [a, b] = &mut sums;
        let (a, b) = (a.as_mut_ptr().cast::<L::V>(), b.as_mut_ptr().cast::<L::V>());
        for slot in (0..SLOTS).step_by(2) {
            let mut t = [zero; 4];
            for (j, t) in t.iter_mut().enumerate() {
                let (x, inverse) = (from[slot + j / 2].add(16 * (j % 2)), inverse[slot + j / 2]);
                let y = L::mul(L::load(x), L::splat(inverse));
                *t = L::add(L::min(L::max(y, low), high), round);
            }
            L::store_i8_rounded(codes.add(32 * slot), t);
            for j in 0..2 {
                let (x, y) = (L::sub(t[2 * j], round), L::sub(t[2 * j + 1], round));
                if BY16 {
                    a.add(slot + j).write(x);
                    b.add(slot + j).write(y);
                } else {
                    a.add(slot + j).write(L::add(x, y));
                }
            }
        }
        let first = L::sum_each(&*a.cast());
        if BY16 {
            let second = L::sum_each(&*b.cast());
            (L::add(first, second), [first, second])
        } else {
            (first, [zero; 2])
        }
    }
}
