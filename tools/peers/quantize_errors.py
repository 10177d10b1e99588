#!/usr/bin/env python3
"""The errors of ggml's quantizers on the values of quant/tests/quantize.rs: its table.

    python tools/peers/quantize_errors.py path/to/libggml-base.so

Prints for each type the mean squared error without importances, and with the importances of the
test, which then weigh the errors. The values come from the test's generator, so they are the same
bit for bit. Needs numpy and gguf.
"""

import ctypes
import sys

import numpy as np
from gguf import GGMLQuantizationType as Type
from gguf.quants import dequantize

TYPES = "Q4_0 Q4_1 Q5_0 Q5_1 Q2_K Q3_K Q4_K Q5_K Q6_K".split()
ROWS, COLUMNS = 16, 1280
F32 = np.float32


def floats(state):
    """The generator of quant/tests/support/mod.rs."""
    mask = (1 << 64) - 1
    while True:
        state ^= state << 13 & mask
        state ^= state >> 7
        state ^= state << 17 & mask
        yield F32(F32(F32(state >> 40) / F32(1 << 23)) - F32(1))


def values():
    random, x = floats(7), np.zeros(ROWS * COLUMNS, F32)
    for i in range(len(x)):
        total = F32(0)
        for _ in range(4):
            total = F32(total + next(random))
        x[i] = total * F32(0.02)
    return x.reshape(ROWS, COLUMNS)


def importances():
    random = floats(11)
    x = np.array([abs(next(random)) for _ in range(COLUMNS)], F32)
    return (x * x) * (x * x) + F32(0.001)


def quantized(lib, ty, x, importance):
    out = ctypes.create_string_buffer(4 * x.size)
    pointer = lambda a: None if a is None else a.ctypes.data_as(ctypes.c_void_p)
    lib.ggml_quantize_chunk.restype = ctypes.c_size_t
    size = lib.ggml_quantize_chunk(
        ctypes.c_int(ty), pointer(x), out, ctypes.c_int64(0), ctypes.c_int64(x.shape[0]),
        ctypes.c_int64(x.shape[1]), pointer(importance))
    rows = np.frombuffer(out.raw[:size], np.uint8).reshape(x.shape[0], -1)
    return dequantize(rows, ty).astype(np.float64)


def main():
    lib, x, importance = ctypes.CDLL(sys.argv[1]), values(), importances()
    for name in TYPES:
        plain = ((x - quantized(lib, Type[name], x, None)) ** 2).mean()
        weighted = ((x - quantized(lib, Type[name], x, importance)) ** 2 * importance).mean()
        print(f"{name} {plain:.4e} {weighted:.4e}")


if __name__ == "__main__":
    main()
