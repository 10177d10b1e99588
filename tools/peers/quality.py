#!/usr/bin/env python3
"""Quality at equal size: Siskin's quantized files beside llama.cpp's, from one source.

Each file type is made by both, with and without the same importance matrix; without, Siskin measures
its own (--calibrate), quickly and in full. All files are then run by `siskin compare` on the same
text, so that nothing but the weights differs. Prints a table of the mean KL divergence from the
source, and how long each took to make.

    pip install gguf llama-cpp-python
    python tools/peers/quality.py -m model-f32.gguf -f test.txt --imatrix imatrix.gguf
"""

import argparse
import json
import pathlib
import tempfile
import time

import gguf
import numpy as np

import llamacpp
from command import siskin

FILE_TYPES = {
    "q4_0": 2, "q4_k_m": 15, "q5_k_m": 17, "q6_k": 18, "q8_0": 7, "q3_k_m": 12, "q2_k": 10,
    "iq4_xs": 30,
}


def importance(path):
    """The mean squares of each tensor's columns, as llama.cpp's quantizer takes them."""
    tensors = {t.name: t for t in gguf.GGUFReader(path).tensors}
    means = {}
    for name, tensor in tensors.items():
        base = name.removesuffix(".in_sum2")
        if base == name:
            continue
        counts = np.array(tensors[base + ".counts"].data, dtype=np.float32).reshape(-1, 1)
        sums = np.array(tensor.data, dtype=np.float32).reshape(len(counts), -1)
        mean = np.where(counts > 0, sums / np.maximum(counts, 1), 1)
        means[base] = np.ascontiguousarray(mean.reshape(-1), dtype=np.float32)
    return means


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("-m", "--model", type=pathlib.Path, required=True, help="the source")
    parser.add_argument("-f", "--file", required=True, help="the text that is scored")
    parser.add_argument("--imatrix", help="an importance matrix in llama.cpp's GGUF format")
    parser.add_argument("--types", default=",".join(FILE_TYPES))
    parser.add_argument("--chunks", type=int, default=8)
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--siskin", default="target/release/siskin")
    parser.add_argument(
        "--calibrate", default="quick,full", help="how Siskin does without a matrix"
    )
    parser.add_argument("--budget", help="also a file of the size of llama.cpp's of this type")
    args = parser.parse_args()
    matrices = dict.fromkeys(filter(None, args.calibrate.split(",")))
    if args.imatrix:
        matrices["imatrix"] = importance(args.imatrix)
    made = {}
    with tempfile.TemporaryDirectory() as folder:
        folder = pathlib.Path(folder)
        rows = []
        for with_matrix, values in matrices.items():
            extra = ["--imatrix", args.imatrix] if values else ["--calibrate", with_matrix]
            for name in args.types.split(","):
                ours = folder / f"s-{name}-{with_matrix}.gguf"
                theirs = folder / f"l-{name}-{'imatrix' if values else 'none'}.gguf"
                start = time.perf_counter()
                siskin(args.siskin, "quantize", args.model, ours, name, "-t", args.threads, *extra)
                took = time.perf_counter() - start
                if theirs not in made:
                    made[theirs] = llamacpp.quantize(
                        args.model, theirs, FILE_TYPES[name], args.threads, values
                    )
                llama = made[theirs]
                rows.append((name, with_matrix, ours, theirs, took, llama))
                if name == args.budget:
                    fitted = folder / f"s-size-{with_matrix}.gguf"
                    size = theirs.stat().st_size
                    options = ["--size", size, "-t", args.threads, *extra]
                    start = time.perf_counter()
                    siskin(args.siskin, "quantize", args.model, fitted, *options)
                    took = time.perf_counter() - start
                    rows.append((f"size of {name}", with_matrix, fitted, theirs, took, llama))
        paths = sorted({path for row in rows for path in row[2:4]})
        compare = ["compare", args.model, *paths, "-f", args.file, "--chunks", args.chunks]
        found = json.loads(siskin(args.siskin, *compare, "--json"))
        kl = dict(zip(paths, (m["kl_mean"] for m in found["models"])))
        print("| type | importance | Siskin | llama.cpp | ratio | MB | seconds |")
        print("|---|---|---|---|---|---|---|")
        for name, with_matrix, ours, theirs, took, llama in rows:
            megabytes = " / ".join(f"{p.stat().st_size / 1e6:.1f}" for p in (ours, theirs))
            print(
                f"| {name} | {with_matrix} | {kl[ours]:.5f} | {kl[theirs]:.5f} "
                f"| {kl[ours] / kl[theirs]:.3f} | {megabytes} | {took:.1f} / {llama:.1f} |"
            )


if __name__ == "__main__":
    main()
