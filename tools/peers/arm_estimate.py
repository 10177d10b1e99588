#!/usr/bin/env python3
"""Tokens per second to be expected of a Raspberry Pi 4 and 5, which are not to be had: an estimate.

Prefill is as fast as the pipes of four cores let the inner loops be (arm_counts.py), decode as fast
as memory or they, whichever is slower for a type of weights. Nothing else counts: no attention, no
cache miss, no waiting. So these are ceilings, and what can be learned from them is what each of the
two is bound by, and by how much the kernels differ.

    siskin inspect --json --tensors MODEL.gguf > MODEL.json
    python tools/peers/arm_estimate.py --siskin BINARY --llama DIR MODEL.json ...
"""

import argparse
import collections
import json
import math
import pathlib
import sys

import arm_counts

# Level, GHz, and GB/s that decoding reads: see benches/record/arm.md for where from.
BOARDS = {"Pi 4": ("neon", 1.8, 5.5), "Pi 5": ("dotprod", 2.4, 10.7)}
CORES = 4


def matrices(path):
    """The weights of each type that layers multiply with, and that the head does."""
    tensors = json.loads(pathlib.Path(path).read_text())["tensors"]
    layers, heads = collections.Counter(), {}
    for t in tensors:
        if len(t["shape"]) == 2 and t["type"] not in arm_counts.TYPES:
            sys.exit(f"{path}: no kernel is counted of {t['type']} ({t['name']})")
        if t["name"] in ("output.weight", "token_embd.weight"):
            heads[t["name"]] = collections.Counter({t["type"]: math.prod(t["shape"])})
        elif len(t["shape"]) == 2:
            layers[t["type"]] += math.prod(t["shape"])
    return layers, heads.get("output.weight", heads["token_embd.weight"])


def prefill(layers, cycles, clock):
    return CORES * clock * 1e9 / sum(n * cycles[type] for type, n in layers.items())


def decode(weights, cycles, clock, bandwidth):
    """Tokens per second, and the part of the time in which memory is what is waited for."""
    seconds = memory = 0
    for type, n in weights.items():
        unit, size = arm_counts.TYPES[type]
        read = n * size / unit / (bandwidth * 1e9)
        compute = n * cycles[type] / (CORES * clock * 1e9)
        seconds += max(read, compute)
        memory += read if read > compute else 0
    return 1 / seconds, memory / seconds


def main():
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--siskin", metavar="BINARY", required=True)
    parser.add_argument("--llama", metavar="DIR", required=True)
    parser.add_argument("models", nargs="+", metavar="MODEL.json")
    args = parser.parse_args()
    kernels = [*arm_counts.siskin_kernels(args.siskin), *arm_counts.llama_kernels(args.llama)]
    one, many = collections.defaultdict(dict), collections.defaultdict(dict)
    for kernel, _, cycles in arm_counts.rows(kernels):
        (one if kernel.columns == 1 else many)[kernel.who, kernel.level][kernel.type] = cycles
    for board, (level, clock, bandwidth) in BOARDS.items():
        print(f"\n### {board}: {CORES} cores of {clock} GHz, {bandwidth} GB/s\n")
        print("| model | prefill, siskin | llama.cpp | ratio | decode, siskin | llama.cpp | waits |")
        print("|---|---:|---:|---:|---:|---:|---:|")
        for path in args.models:
            layers, head = matrices(path)
            first, then = [], []
            for who in ("siskin", "llama.cpp"):
                # A type without a kernel for many columns takes them one at a time.
                first.append(prefill(layers, one[who, level] | many[who, level], clock))
                then.append(decode(layers + head, one[who, level], clock, bandwidth))
            speed = [f"{x:.0f}" for x in first] + [f"{first[0] / first[1]:.1f}x"]
            waits = "/".join(f"{memory:.0%}" for _, memory in then)
            cells = [pathlib.Path(path).stem, *speed, *(f"{x:.1f}" for x, _ in then), waits]
            print("|", " | ".join(cells), "|")


if __name__ == "__main__":
    try:
        main()
    except arm_counts.Mismatch as error:
        sys.exit(str(error))
