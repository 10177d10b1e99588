#!/usr/bin/env python3
"""A source for measuring quantizers where only a quantized model is at hand.

The weights of a model that was quantized and unpacked again lie on the grid of its type: a quantizer
of the same type finds them all, and one of another type meets what no real weights have. Here every
weight is moved within its cell, by up to half the distance of the nearest two of its 16 neighbours,
which leaves about the distribution that the weights had before they were quantized. The same
`--seed` gives the same source. One file's divergence swings by chance: sources of several seeds say
more.

    siskin quantize model-q4_k_m.gguf unpacked.gguf f32
    python tools/peers/ungrid.py unpacked.gguf source.gguf
"""

import argparse
import pathlib
import shutil

import gguf
import numpy as np

NEIGHBOURS = 16
ROWS = 1 << 20


def moved(x, random):
    """Rows of neighbours, moved."""
    apart = np.diff(np.sort(x, axis=1), axis=1)
    # Closer ones are the same value but for rounding.
    apart = np.where(apart > 1e-3 * np.abs(x).max(axis=1, keepdims=True), apart, np.inf)
    step = apart.min(axis=1, keepdims=True)
    step = np.where(np.isfinite(step), step, 0)
    return x + (random.random(x.shape, dtype=np.float32) - 0.5) * step


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("source", type=pathlib.Path, help="a GGUF file of F32 weights")
    parser.add_argument("out", type=pathlib.Path)
    parser.add_argument("--seed", type=int, default=1, help="of the random numbers (%(default)s)")
    args = parser.parse_args()
    shutil.copy(args.source, args.out)
    random = np.random.default_rng(args.seed)
    file = np.memmap(args.out, dtype=np.uint8, mode="r+")
    for tensor in gguf.GGUFReader(args.source).tensors:
        if len(tensor.shape) < 2 or tensor.tensor_type != gguf.GGMLQuantizationType.F32:
            continue
        x = np.array(tensor.data, dtype=np.float32).reshape(-1, NEIGHBOURS)
        for start in range(0, len(x), ROWS):
            x[start : start + ROWS] = moved(x[start : start + ROWS], random)
        data = x.reshape(-1).view(np.uint8)
        file[tensor.data_offset : tensor.data_offset + data.size] = data
    file.flush()


if __name__ == "__main__":
    main()
