#!/usr/bin/env python3
"""Records what ggml makes of blocks of every type, for quant/tests/formats.rs.

    record.py path/to/libggml-base.so

Writes beside itself:

NAME.dequant     blocks of the type, then their values as f32. The number of blocks follows from
                 the size. A NaN is written as the canonical one: its payload is no contract.
quantize.input   rows of 256 f32 that are quantized
NAME.quant       what ggml makes of quantize.input without an importance matrix, for the types
                 that are quantized by its rule

All little endian. Random bytes come from a fixed seed: a second run writes the same files.
"""

import ctypes
import struct
import sys
from pathlib import Path

import numpy as np

# name, values in a block, bytes in a block, offsets of the f16 scales
TYPES = [
    ("Q4_0", 32, 18, [0]),
    ("Q4_1", 32, 20, [0, 2]),
    ("Q5_0", 32, 22, [0]),
    ("Q5_1", 32, 24, [0, 2]),
    ("Q8_0", 32, 34, [0]),
    ("Q2_K", 256, 84, [80, 82]),
    ("Q3_K", 256, 110, [108]),
    ("Q4_K", 256, 144, [0, 2]),
    ("Q5_K", 256, 176, [0, 2]),
    ("Q6_K", 256, 210, [208]),
    ("IQ1_S", 256, 50, [0]),
    ("IQ1_M", 256, 56, []),
    ("IQ2_XXS", 256, 66, [0]),
    ("IQ2_XS", 256, 74, [0]),
    ("IQ2_S", 256, 82, [0]),
    ("IQ3_XXS", 256, 98, [0]),
    ("IQ3_S", 256, 110, [0]),
    ("IQ4_NL", 32, 18, [0]),
    ("IQ4_XS", 256, 136, [0]),
    ("TQ1_0", 256, 54, [52]),
    ("TQ2_0", 256, 66, [64]),
    ("MXFP4", 32, 17, []),
    ("NVFP4", 64, 36, []),
    ("Q1_0", 128, 18, [0]),
    ("Q2_0", 64, 18, [0]),
    ("F16", 1, 2, []),
    ("BF16", 1, 2, []),
]

# type numbers of ggml
QUANTIZED = {"Q8_0": 8}

# f16 bits: minus zero, infinities, NaN, a subnormal, the largest
HOSTILE = [0x8000, 0x7C00, 0xFC00, 0x7E01, 0x83FF, 0x7BFF]


def c_name(name):
    """ggml writes q4_0 but q4_K."""
    return name[:-1].lower() + "K" if name.endswith("_K") else name.lower()


def put_scale(block, name, offsets, bits):
    for n, offset in enumerate(offsets):
        # The minimum gets another bit pattern, so that inf - inf is not all there is.
        struct.pack_into("<H", block, offset, bits if n == 0 else (bits ^ 0x0200) & 0xBFFF)
    if name == "IQ1_M":  # a nibble in the upper half of every second byte
        for n in range(4):
            at = 48 + 2 * n + 1
            block[at] = block[at] & 0x0F | (bits >> (4 * n) & 0xF) << 4


def blocks_of(name, length, size, offsets, rng):
    def random_block():
        return bytearray(rng.integers(0, 256, size, dtype=np.uint8).tobytes())

    if length == 1:
        return [struct.pack("<H", bits) for bits in range(0, 0x10000, 97)]
    blocks = [bytearray(size), bytearray(b"\xff" * size)]
    for _ in range(2):
        block = random_block()
        scale = np.float16(rng.uniform(-0.1, 0.1)).view(np.uint16)
        put_scale(block, name, offsets, int(scale))
        blocks.append(block)
    if name == "MXFP4":
        for e in [0, 1, 2, 3, 100, 127, 128, 252, 253, 254, 255]:
            block = random_block()
            block[0] = e
            blocks.append(block)
    elif name == "NVFP4":
        for n in range(64):
            block = random_block()
            block[:4] = bytes(range(4 * n, 4 * n + 4))
            blocks.append(block)
    else:
        for bits in HOSTILE:
            block = random_block()
            put_scale(block, name, offsets, bits)
            blocks.append(block)
    return blocks


def dequantize(lib, name, data, count):
    out = np.zeros(count, dtype=np.float32)
    function = {"F16": "ggml_fp16_to_fp32_row", "BF16": "ggml_bf16_to_fp32_row"}.get(
        name, "dequantize_row_" + c_name(name))
    function = getattr(lib, function)
    function.restype = None
    function(ctypes.c_char_p(data), out.ctypes.data_as(ctypes.c_void_p), ctypes.c_int64(count))
    bits = out.view(np.uint32)
    bits[np.isnan(out)] = 0x7FC00000
    return bits.astype("<u4").tobytes()


def quantize(lib, name, length, size, values):
    out = ctypes.create_string_buffer(len(values) // length * size)
    function = lib.ggml_quantize_chunk
    function.restype = ctypes.c_size_t
    function(ctypes.c_int(QUANTIZED[name]), values.ctypes.data_as(ctypes.c_void_p), out,
             ctypes.c_int64(0), ctypes.c_int64(1), ctypes.c_int64(len(values)), None)
    return out.raw


def rows_to_quantize(rng):
    """Rows as weights are, and rows that reach the ends of the formats."""
    ramp = np.linspace(-1, 1, 256)
    rows = [
        np.zeros(256),
        -np.zeros(256),
        np.full(256, 0.75),
        np.full(256, -0.75),
        ramp,
        np.where(np.arange(256) % 32 == 7, 5.0, 0.01 * ramp),
        np.abs(ramp),
        -np.abs(ramp) - 1,
        ramp * 1e-8,
        ramp * 3e4,
        np.round(ramp * 8) / 8,
    ]
    rows += [rng.normal(0, 0.02, 256) for _ in range(5)]
    rows += [rng.standard_t(3, 256) * 0.02 for _ in range(3)]
    rows += [rng.normal(0.05, 0.01, 256), rng.uniform(-1, 1, 256)]
    return np.concatenate(rows).astype(np.float32)


def main():
    lib = ctypes.CDLL(sys.argv[1])
    here = Path(__file__).parent
    for index, (name, length, size, offsets) in enumerate(TYPES):
        rng = np.random.default_rng(1000 + index)
        blocks = b"".join(map(bytes, blocks_of(name, length, size, offsets, rng)))
        values = dequantize(lib, name, blocks, len(blocks) // size * length)
        (here / f"{name}.dequant").write_bytes(blocks + values)
    values = rows_to_quantize(np.random.default_rng(1))
    (here / "quantize.input").write_bytes(values.astype("<f4").tobytes())
    for name, length, size, _ in TYPES:
        if name in QUANTIZED:
            (here / f"{name}.quant").write_bytes(quantize(lib, name, length, size, values))


if __name__ == "__main__":
    main()
