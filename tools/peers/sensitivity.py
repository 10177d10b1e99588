#!/usr/bin/env python3
"""How much a model suffers from noise in each of its tensors.

Quantizes one role at a time, in a third of the layers, and divides the mean KL divergence from the
original by the noise (the relative squared error of each tensor, summed over the tensors). These are
the figures behind `siskin quantize --size` (tools/convert/src/budget.rs), times the number of layers.

    pip install gguf
    python tools/peers/sensitivity.py -m model-f16.gguf -f text.txt --type q4_0
"""

import argparse
import json
import pathlib
import re
import tempfile

import gguf
import numpy as np
from gguf.quants import dequantize

from command import siskin

ROLES = ["attn_q", "attn_k", "attn_v", "attn_output", "ffn_gate", "ffn_up", "ffn_down"]
# Files that are compared at a time.
GROUP = 6


def values(tensor):
    return dequantize(tensor.data, tensor.tensor_type).astype(np.float32)


def noise(before, after, names):
    """The relative squared errors of some tensors, summed."""
    total = 0.0
    for name in names:
        a, b = values(before[name]), values(after[name])
        total += float(((a - b) ** 2).sum() / (a**2).sum())
    return total


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("-m", "--model", required=True, help="the original")
    parser.add_argument("-f", "--file", required=True, help="the text that is scored")
    parser.add_argument("--type", default="q4_0", help="what tensors are quantized to")
    parser.add_argument("--chunks", type=int, default=2)
    parser.add_argument("--siskin", default="target/release/siskin")
    args = parser.parse_args()
    before = {t.name: t for t in gguf.GGUFReader(args.model).tensors}
    layers = 1 + max(int(m[1]) for n in before if (m := re.match(r"blk\.(\d+)\.", n)))
    groups = [("token_embd", ["token_embd.weight"])]
    if "output.weight" in before:
        groups.append(("output", ["output.weight"]))
    for role in ROLES:
        for third in range(3):
            part = range(third * layers // 3, (third + 1) * layers // 3)
            groups.append((f"{role} {third}", [f"blk.{i}.{role}.weight" for i in part]))
    print("| tensors | noise | mean KL | KL / noise | times layers |")
    print("|---|---|---|---|---|")
    with tempfile.TemporaryDirectory() as folder:
        for start in range(0, len(groups), GROUP):
            now = groups[start : start + GROUP]
            paths = [pathlib.Path(folder) / f"{i}.gguf" for i in range(len(now))]
            for (_, names), path in zip(now, paths):
                pattern = "^(" + "|".join(map(re.escape, names)) + ")$"
                rule = f"{pattern}={args.type}"
                siskin(
                    args.siskin, "quantize", args.model, path, "f16", "--tensor", rule, "--force"
                )
            compare = ["compare", args.model, *paths, "-f", args.file, "--chunks", args.chunks]
            found = json.loads(siskin(args.siskin, *compare, "--json"))
            for (label, names), path, model in zip(now, paths, found["models"]):
                after = {t.name: t for t in gguf.GGUFReader(path).tensors}
                e, kl = noise(before, after, names), model["kl_mean"]
                print(f"| {label} | {e:.5f} | {kl:.5f} | {kl / e:.3f} | {kl / e * layers:.1f} |")


if __name__ == "__main__":
    main()
