#!/usr/bin/env python3
"""Tokens per second to be expected of a Raspberry Pi 4 and 5, which are not to be had: an estimate.

Prefill is as fast as the pipes of four cores let the inner loops be (arm_counts.py), decode as fast
as memory or they, whichever is slower for a type of weights. Nothing else counts: no attention, no
cache miss, no waiting. So these are ceilings, and what can be learned from them is where each of
the two is bound, and by how much their kernels differ.

    siskin inspect --json --tensors MODEL.gguf > MODEL.json
    python tools/peers/arm_estimate.py --siskin BINARY --llama DIR MODEL.json ...
"""

import argparse
import collections
import json
import math
import pathlib

import arm_counts

# Level, clock in GHz, GB/s that decoding reads: see benches/record/arm.md for where from.
BOARDS = {"Pi 4": ("neon", 1.8, 5.5), "Pi 5": ("dotprod", 2.4, 10.7)}
THREADS = 4


def matrices(path):
    """Weights and bytes of each type that a layer multiplies with, and that the head does."""
    layers, head = collections.Counter(), collections.Counter()
    tensors = json.loads(pathlib.Path(path).read_text())["tensors"]
    last = "output.weight" if any(t["name"] == "output.weight" for t in tensors) else "token_embd.weight"
    for t in tensors:
        if len(t["shape"]) == 2 and t["name"] in (last, "output.weight"):
            head[t["type"]] += math.prod(t["shape"])
        elif len(t["shape"]) == 2 and t["name"] != "token_embd.weight":
            layers[t["type"]] += math.prod(t["shape"])
    return layers, head


def prefill(layers, cycles, clock):
    return THREADS * clock * 1e9 / sum(n * cycles[type] for type, n in layers.items())


def decode(weights, cycles, clock, bandwidth):
    """Tokens per second, and the part of the time in which memory is what is waited for."""
    seconds = memory = 0
    for type, n in weights.items():
        unit, size = arm_counts.TYPES[type]
        read = n * size / unit / (bandwidth * 1e9)
        compute = n * cycles[type] / (THREADS * clock * 1e9)
        seconds += max(read, compute)
        memory += read if read > compute else 0
    return 1 / seconds, memory / seconds


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--siskin", metavar="BINARY", required=True)
    parser.add_argument("--llama", metavar="DIR", required=True)
    parser.add_argument("models", nargs="+", metavar="MODEL.json")
    args = parser.parse_args()
    one, many = collections.defaultdict(dict), collections.defaultdict(dict)
    kernels = [*arm_counts.siskin_kernels(args.siskin), *arm_counts.llama_kernels(args.llama)]
    for kernel, _, cycles in arm_counts.rows(kernels):
        of = (one if kernel.columns == 1 else many)[kernel.who, kernel.level]
        of[kernel.type] = cycles
    for board, (level, clock, bandwidth) in BOARDS.items():
        print(f"\n### {board}: {THREADS} cores of {clock} GHz, {bandwidth} GB/s\n")
        print("| model | prefill: siskin | llama.cpp | ratio | decode: siskin | waits for memory | llama.cpp | waits for memory |")
        print("|---|---:|---:|---:|---:|---:|---:|---:|")
        for path in args.models:
            layers, head = matrices(path)
            cells, first = [pathlib.Path(path).stem], {}
            for who in ("siskin", "llama.cpp"):
                # A type without a kernel for many columns takes them one at a time.
                first[who] = prefill(layers, one[who, level] | many[who, level], clock)
                cells.append(f"{first[who]:.0f}")
            cells.append(f"{first['siskin'] / first['llama.cpp']:.1f}x")
            for who in ("siskin", "llama.cpp"):
                rate, memory = decode(layers + head, one[who, level], clock, bandwidth)
                cells += [f"{rate:.1f}", f"{memory:.0%}"]
            print(f"| {' | '.join(cells)} |")


if __name__ == "__main__":
    main()
