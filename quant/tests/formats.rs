//! Every format against what ggml makes of the same bytes, recorded by
//! tests/data/formats/record.py.

use std::path::PathBuf;

use bytemuck::bytes_of_mut;
use siskin_quant::formats::*;
use siskin_quant::table::KernelTable;
use siskin_quant::types::Act;
use siskin_quant::{GgmlType, for_each_format};

fn data(file: &str) -> Vec<u8> {
    let path = PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("../tests/data/formats").join(file);
    std::fs::read(&path).unwrap_or_else(|e| panic!("{}: {e}", path.display()))
}

fn floats(bytes: &[u8]) -> Vec<f32> {
    bytes.chunks_exact(4).map(|b| f32::from_le_bytes([b[0], b[1], b[2], b[3]])).collect()
}

/// The recorded blocks of a type and their values.
fn recorded(ty: GgmlType) -> (Vec<u8>, Vec<f32>) {
    let mut blocks = data(&format!("{ty}.dequant"));
    let count = blocks.len() / (ty.block_bytes() + 4 * ty.block_len());
    let values = blocks.split_off(count * ty.block_bytes());
    assert_eq!(values.len(), 4 * count * ty.block_len(), "{ty}: the recording has a whole size");
    (blocks, floats(&values))
}

/// Types with values that ggml dequantizes.
fn types_with_values() -> impl Iterator<Item = GgmlType> {
    GgmlType::ALL.iter().copied().filter(|ty| ty.info().act != Act::None && *ty != GgmlType::F32)
}

/// The same bits, but any NaN is as good as another.
fn same(a: f32, b: f32) -> bool {
    a.to_bits() == b.to_bits() || a.is_nan() && b.is_nan()
}

/// Bytes that look random and are the same on every run.
fn noise(seed: u32) -> impl Iterator<Item = u8> {
    let mut state = seed.wrapping_mul(0x9e37_79b9) | 1;
    std::iter::repeat_with(move || {
        state ^= state << 13;
        state ^= state >> 17;
        state ^= state << 5;
        (state >> 11) as u8
    })
}

fn noise_block<B: Block>(seed: u32) -> B {
    let mut block = B::zeroed();
    bytes_of_mut(&mut block).iter_mut().zip(noise(seed)).for_each(|(byte, n)| *byte = n);
    block
}

#[test]
fn dequantizes_every_type_to_the_bits_of_ggml() {
    for ty in types_with_values() {
        let (blocks, expected) = recorded(ty);
        let mut values = vec![0.0; expected.len()];
        dequantize_row(ty, &blocks, &mut values).unwrap();
        for (i, (got, want)) in values.iter().zip(&expected).enumerate() {
            assert!(
                same(*got, *want),
                "{ty} block {} value {}: {got} ({:#010x}), ggml has {want} ({:#010x})",
                i / ty.block_len(),
                i % ty.block_len(),
                got.to_bits(),
                want.to_bits()
            );
        }
    }
}

#[test]
fn singles_and_ggml_activation_types_dequantize_too() {
    let mut out = [0.0; 2];
    let row: Vec<u8> = [1.5f32, -0.0].iter().flat_map(|x| x.to_le_bytes()).collect();
    dequantize_row(GgmlType::F32, &row, &mut out).unwrap();
    assert_eq!(out.map(f32::to_bits), [1.5f32, -0.0].map(f32::to_bits));

    let mut q8_1 = [0u8; 36];
    q8_1[..2].copy_from_slice(&0x3800u16.to_le_bytes()); // 0.5
    q8_1[4] = 3;
    q8_1[35] = 0x80;
    let mut out = [0.0; 32];
    dequantize_row(GgmlType::Q8_1, &q8_1, &mut out).unwrap();
    assert_eq!((out[0], out[1], out[31]), (1.5, 0.0, -64.0));

    let mut q8_k = [0u8; 292];
    q8_k[..4].copy_from_slice(&0.25f32.to_le_bytes());
    q8_k[4] = 0xff;
    q8_k[259] = 127;
    let mut out = [0.0; 256];
    dequantize_row(GgmlType::Q8_K, &q8_k, &mut out).unwrap();
    assert_eq!((out[0], out[255]), (-0.25, 31.75));
}

/// What the kernels rely on: the integer form says the same as `dequantize`, the products are
/// exact, and the unit sizes fit together.
fn check_integer_form<B: IntBlock>() {
    let ty = B::TYPE;
    assert!(matches!(B::UNIT, 16 | 32 | 256), "{ty}: unit of {}", B::UNIT);
    assert!(B::LEN.is_multiple_of(B::UNIT), "{ty}");
    assert_eq!(ty.info().act, Act::Q8, "{ty}");
    assert!(B::SUB == 16 || B::SUB == 32, "{ty}");
    assert!(!B::HAS_MIN || B::UNIT >= 32, "{ty}");

    for seed in 0..200 {
        let block: B = noise_block(seed);
        let mut values = vec![0.0; B::LEN];
        block.dequantize(&mut values);
        for (index, values) in values.chunks(B::UNIT).enumerate() {
            // Filled with what must not be seen.
            let mut unit = Unit { q: [99; 256], scale: [99; 16], ..Unit::default() };
            block.unpack(index, &mut unit);
            if !B::HAS_MIN {
                assert_eq!((unit.min, unit.dmin), ([0; 16], 0.0), "{ty} sets minimums");
            }
            // Inexact only where it is infinite, as are MXFP4's largest scales times a code.
            if values.iter().any(|value| !value.is_finite()) {
                continue;
            }
            let (d, dmin) = (f64::from(unit.d), f64::from(unit.dmin));
            for (i, value) in values.iter().enumerate() {
                let product = d * f64::from(unit.scale[i / 16]) * f64::from(unit.q[i]);
                let min = dmin * f64::from(unit.min[i / 16]);
                assert_eq!(f64::from(product as f32), product, "{ty} {seed} {i}: inexact product");
                assert_eq!(f64::from(min as f32), min, "{ty} {seed} {i}: inexact minimum");
                let sum = (product + min) as f32;
                assert_eq!(*value, sum, "{ty} seed {seed} value {i}");
            }
            // The worst activations a kernel can meet: all of them at full scale, signs agreeing.
            let groups = B::UNIT / 16;
            let worst: i64 = (0..B::UNIT)
                .map(|i| i64::from(unit.scale[i / 16]).abs() * i64::from(unit.q[i]).abs() * 127)
                .sum();
            assert!(worst <= i64::from(i32::MAX), "{ty}: {worst} is too much for i32");
            assert!(unit.scale[..groups].iter().all(|s| s.abs() <= 128), "{ty}: scale fits i8 + 1");
            assert!(unit.min[..groups].iter().all(|m| (0..=127).contains(m)), "{ty}: min fits i8");
        }
    }
}

#[test]
fn the_integer_form_of_every_format_agrees_with_its_values() {
    macro_rules! check {
        ([] $(($variant:ident, $block:ident))*) => {
            $( assert_eq!($block::TYPE, GgmlType::$variant);
               check_integer_form::<$block>(); )*
        };
    }
    for_each_format! { check [] }
}

/// The largest codes and scales that a format has at all, whatever the noise above drew.
#[test]
fn the_extremes_of_every_format_leave_room_in_i32() {
    fn extremes<B: IntBlock>(scale: i64, q: i64) {
        let mut unit = Unit::default();
        for seed in 0..2000 {
            noise_block::<B>(seed).unpack(0, &mut unit);
            for i in 0..B::UNIT {
                assert!(i64::from(unit.q[i]).abs() <= q, "{}: code {}", B::TYPE, unit.q[i]);
                let s = i64::from(unit.scale[i / 16]).abs();
                assert!(s <= scale, "{}: scale {s}", B::TYPE);
            }
        }
        let worst = scale * q * 128 * 32;
        assert!(worst <= i64::from(i32::MAX), "{}: {worst}", B::TYPE);
    }
    extremes::<BlockQ4_0>(1, 8);
    extremes::<BlockQ4_1>(1, 15);
    extremes::<BlockQ5_0>(1, 16);
    extremes::<BlockQ5_1>(1, 31);
    extremes::<BlockQ8_0>(1, 128);
    extremes::<BlockQ2K>(15, 3);
    extremes::<BlockQ3K>(32, 4);
    extremes::<BlockQ4K>(63, 15);
    extremes::<BlockQ5K>(63, 31);
    extremes::<BlockQ6K>(128, 32);
    extremes::<BlockIQ1S>(15, 9);
    extremes::<BlockIQ1M>(15, 9);
    extremes::<BlockIQ2XXS>(31, 43);
    extremes::<BlockIQ2XS>(31, 43);
    extremes::<BlockIQ2S>(31, 43);
    extremes::<BlockIQ3XXS>(31, 62);
    extremes::<BlockIQ3S>(31, 15);
    extremes::<BlockIQ4NL>(1, 127);
    extremes::<BlockIQ4XS>(32, 127);
    extremes::<BlockTQ1_0>(1, 1);
    extremes::<BlockTQ2_0>(1, 2);
    extremes::<BlockMXFP4>(1, 12);
    extremes::<BlockNVFP4>(1, 12);
    extremes::<BlockQ1_0>(1, 1);
    extremes::<BlockQ2_0>(1, 2);
}

#[test]
fn types_have_the_numbers_and_sizes_of_ggml() {
    // (number, name, elements in a block, bytes in a block) as ggml's type table has them.
    let table: [(u32, &str, usize, usize); 35] = [
        (0, "F32", 1, 4),
        (1, "F16", 1, 2),
        (2, "Q4_0", 32, 18),
        (3, "Q4_1", 32, 20),
        (6, "Q5_0", 32, 22),
        (7, "Q5_1", 32, 24),
        (8, "Q8_0", 32, 34),
        (9, "Q8_1", 32, 36),
        (10, "Q2_K", 256, 84),
        (11, "Q3_K", 256, 110),
        (12, "Q4_K", 256, 144),
        (13, "Q5_K", 256, 176),
        (14, "Q6_K", 256, 210),
        (15, "Q8_K", 256, 292),
        (16, "IQ2_XXS", 256, 66),
        (17, "IQ2_XS", 256, 74),
        (18, "IQ3_XXS", 256, 98),
        (19, "IQ1_S", 256, 50),
        (20, "IQ4_NL", 32, 18),
        (21, "IQ3_S", 256, 110),
        (22, "IQ2_S", 256, 82),
        (23, "IQ4_XS", 256, 136),
        (24, "I8", 1, 1),
        (25, "I16", 1, 2),
        (26, "I32", 1, 4),
        (27, "I64", 1, 8),
        (28, "F64", 1, 8),
        (29, "IQ1_M", 256, 56),
        (30, "BF16", 1, 2),
        (34, "TQ1_0", 256, 54),
        (35, "TQ2_0", 256, 66),
        (39, "MXFP4", 32, 17),
        (40, "NVFP4", 64, 36),
        (41, "Q1_0", 128, 18),
        (42, "Q2_0", 64, 18),
    ];
    assert_eq!(GgmlType::ALL.len(), table.len());
    assert_eq!(GgmlType::COUNT, 43);
    for (id, name, len, bytes) in table {
        let ty = GgmlType::from_u32(id).unwrap_or_else(|| panic!("{name} has the number {id}"));
        assert_eq!((ty.name(), ty.block_len(), ty.block_bytes()), (name, len, bytes));
        assert_eq!(GgmlType::from_name(&name.to_lowercase()), Some(ty));
        assert_eq!(ty.row_bytes(3 * len), Some(3 * bytes), "{name}");
        assert_eq!(ty.row_bytes(0), Some(0), "{name}");
        if len > 1 {
            assert_eq!(ty.row_bytes(len + 1), None, "{name}");
        }
        if bytes > len {
            assert_eq!(ty.row_bytes(usize::MAX / len * len), None, "{name}: overflow");
        }
    }
    for id in [4, 5, 31, 32, 33, 36, 37, 38, 43, u32::MAX] {
        assert_eq!(GgmlType::from_u32(id), None, "{id}");
    }
}

#[test]
fn rows_of_the_wrong_size_are_refused() {
    for &ty in GgmlType::ALL {
        let mut values = vec![0.0; 2 * ty.block_len()];
        let row = vec![0; 2 * ty.block_bytes()];
        let result = dequantize_row(ty, &row, &mut values);
        if matches!(ty.name(), "I8" | "I16" | "I32" | "I64" | "F64") {
            assert_eq!(result, Err(RowError::NoValues(ty)));
            continue;
        }
        assert_eq!(result, Ok(()), "{ty}");
        for bytes in [0, 1, ty.block_bytes(), row.len() - 1] {
            let error = RowError::Size { ty, bytes, values: values.len() };
            assert_eq!(dequantize_row(ty, &row[..bytes], &mut values), Err(error), "{ty}");
        }
        assert_eq!(dequantize_row(ty, &[], &mut []), Ok(()), "{ty}: nothing is a row");
    }
}

#[test]
fn blocks_may_stand_at_any_address() {
    for ty in types_with_values() {
        let (blocks, expected) = recorded(ty);
        let mut values = vec![0.0; expected.len()];
        for shift in 0..4 {
            let shifted = [vec![0; shift], blocks.clone()].concat();
            dequantize_row(ty, &shifted[shift..], &mut values).unwrap();
            assert!(values.iter().zip(&expected).all(|(a, b)| same(*a, *b)), "{ty} + {shift}");
        }
    }
}

#[test]
fn swapping_bytes_turns_each_field_round_and_twice_is_nothing() {
    // The bytes that change places, as (first, width) in a block.
    let fields: &[(GgmlType, &[(usize, usize)])] = &[
        (GgmlType::F32, &[(0, 4)]),
        (GgmlType::F16, &[(0, 2)]),
        (GgmlType::BF16, &[(0, 2)]),
        (GgmlType::I64, &[(0, 8)]),
        (GgmlType::F64, &[(0, 8)]),
        (GgmlType::I8, &[]),
        (GgmlType::Q4_0, &[(0, 2)]),
        (GgmlType::Q4_1, &[(0, 2), (2, 2)]),
        (GgmlType::Q5_0, &[(0, 2), (2, 4)]),
        (GgmlType::Q5_1, &[(0, 2), (2, 2), (4, 4)]),
        (GgmlType::Q8_0, &[(0, 2)]),
        (GgmlType::Q2_K, &[(80, 2), (82, 2)]),
        (GgmlType::Q3_K, &[(108, 2)]),
        (GgmlType::Q4_K, &[(0, 2), (2, 2)]),
        (GgmlType::Q5_K, &[(0, 2), (2, 2)]),
        (GgmlType::Q6_K, &[(208, 2)]),
        (GgmlType::IQ4_XS, &[(0, 2), (2, 2)]),
        (GgmlType::IQ1_M, &[(48, 2), (50, 2), (52, 2), (54, 2)]),
        (GgmlType::TQ1_0, &[(52, 2)]),
        (GgmlType::TQ2_0, &[(64, 2)]),
        (GgmlType::MXFP4, &[]),
        (GgmlType::NVFP4, &[]),
    ];
    for (ty, fields) in fields {
        let bytes = ty.block_bytes();
        let row: Vec<u8> = (0..3 * bytes).map(|i| i as u8).collect();
        let mut expected = row.clone();
        for block in expected.chunks_mut(bytes) {
            fields.iter().for_each(|(at, width)| block[*at..*at + width].reverse());
        }
        let mut swapped = row.clone();
        swap_bytes(*ty, &mut swapped).unwrap();
        assert_eq!(swapped, expected, "{ty}");
    }
    for &ty in GgmlType::ALL {
        let row: Vec<u8> = (0..3 * ty.block_bytes()).map(|i| (i * 7) as u8).collect();
        let mut swapped = row.clone();
        swap_bytes(ty, &mut swapped).unwrap();
        swap_bytes(ty, &mut swapped).unwrap();
        assert_eq!(swapped, row, "{ty}");
        if ty.block_bytes() > 1 {
            assert!(swap_bytes(ty, &mut swapped[1..]).is_err(), "{ty}: not whole blocks");
        }
    }
}

/// Types that are quantized by ggml's rule; the others' quantizers are compared with ggml's errors,
/// see tests/quantize.rs.
const GGML_RULE: [GgmlType; 1] = [GgmlType::Q8_0];

#[test]
fn quantizes_to_the_bits_of_ggml() {
    let x = floats(&data("quantize.input"));
    let table = KernelTable::detect().unwrap();
    for ty in GGML_RULE {
        let expected = data(&format!("{ty}.quant"));
        let mut row = vec![0xaa; expected.len()];
        table.quantize(ty, &x, None, &mut row).unwrap();
        let blocks = row.chunks(ty.block_bytes()).zip(expected.chunks(ty.block_bytes()));
        for (i, (got, want)) in blocks.enumerate() {
            assert_eq!(got, want, "{ty} block {i}, values from {}", i * ty.block_len());
        }
    }
}

#[test]
fn types_without_a_quantizer_say_so() {
    let table = KernelTable::detect().unwrap();
    for &ty in GgmlType::ALL {
        let x = vec![0.5; ty.block_len()];
        let mut row = vec![0; ty.block_bytes()];
        match table.quantize(ty, &x, None, &mut row) {
            Ok(()) => {
                assert!(table.can_quantize(ty), "{ty}");
                row.push(0);
                let error = RowError::Size { ty, bytes: row.len(), values: x.len() };
                assert_eq!(table.quantize(ty, &x, None, &mut row), Err(error));
            }
            Err(RowError::NoQuantizer(t)) => {
                assert!(!table.can_quantize(ty) && ty.info().act != Act::F32 && t == ty);
            }
            Err(RowError::NoValues(t)) => assert!(!table.can_quantize(ty) && t == ty),
            Err(e) => panic!("{ty}: {e}"),
        }
    }
}
