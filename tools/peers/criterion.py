#!/usr/bin/env python3
"""Runs criterion benchmarks of this project and records what they found, as tables.

    python tools/peers/criterion.py matmul attention sampler --record NAME

writes benches/record/NAME.md: for each benchmark the median of its samples and, where it has one, how
much it did a second. Options after `--` are the benchmark's own, for example a filter.
"""

import argparse
import json
import os
import pathlib
import subprocess
import sys
import time

from bench import RECORD, ROOT, machine


def arguments():
    a = argparse.ArgumentParser(description="Records what criterion benchmarks find.")
    a.add_argument("bench", nargs="+", help="matmul, attention, model, load, tokenizer or sampler")
    a.add_argument("--record", metavar="NAME", help="write benches/record/NAME.md")
    a.add_argument("--models", default="", help="SISKIN_BENCH_MODELS, for model")
    cut = sys.argv.index("--") if "--" in sys.argv else len(sys.argv)
    return a.parse_args(sys.argv[1:cut]), sys.argv[cut + 1:]


def results(since):
    """What was measured since then, in the order in which it was."""
    found = []
    for path in (ROOT / "target" / "criterion").rglob("new/estimates.json"):
        if path.stat().st_mtime >= since:
            about = json.loads((path.parent / "benchmark.json").read_text())
            median = json.loads(path.read_text())["median"]
            found.append((path.stat().st_mtime, about, median))
    return [(about, median) for _, about, median in sorted(found, key=lambda x: x[0])]


def duration(ns):
    for unit, size in (("s", 1e9), ("ms", 1e6), ("µs", 1e3)):
        if ns >= size:
            return f"{ns / size:.3g} {unit}"
    return f"{ns:.3g} ns"


def rate(about, ns, name):
    """How much was done a second: bytes, multiplications of a matrix, or tokens."""
    if not about["throughput"]:
        return ""
    (kind, amount), = about["throughput"].items()
    # Per nanosecond, which is billions a second.
    if kind == "Bytes":
        return f"{amount / ns:.4g} GB/s"
    if name == "matmul":
        return f"{amount / ns:.4g} GMAC/s"
    return f"{1e9 * amount / ns:.4g} tokens/s"


def main():
    args, theirs = arguments()
    info = machine()
    text = [f"{info['date']}: {info['cpu']}, {info['cores']} cores ({' '.join(info['features'])}), "
            f"{info['system']}. `python tools/peers/criterion.py {' '.join(args.bench)}`: medians of "
            "criterion's samples, with the 95% interval of the median."]
    for name in args.bench:
        since = time.time()
        command = ["cargo", "bench", "-p", "siskin", "--bench", name, "--", *theirs]
        subprocess.run(command, cwd=ROOT, check=True,
                       env=os.environ | {"SISKIN_BENCH_MODELS": args.models})
        rows = [f"## {name}\n", "| benchmark | time | from | to | |", "|---|---:|---:|---:|---:|"]
        for about, median in results(since):
            ns, between = median["point_estimate"], median["confidence_interval"]
            times = ns, between["lower_bound"], between["upper_bound"]
            cells = [about["full_id"], *map(duration, times), rate(about, ns, name)]
            rows.append(f"| {' | '.join(cells)} |")
        text.append("\n".join(rows))
    text = "\n\n".join(text)
    print(text)
    if args.record:
        (RECORD / f"{args.record}.md").write_text(f"# {args.record}\n\n{text}\n")


if __name__ == "__main__":
    main()
