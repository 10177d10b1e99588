#!/usr/bin/env python3
"""Siskin and llama.cpp on the same file, one after the other, again and again.

A machine's speed drifts by more than the two differ: with its heat, its neighbours and its clock.
So the two are never measured in blocks. Each round runs one, then the other, each in a fresh
process with the same file, threads and lengths, and the next round begins with the other one. What
is reported is the median of the rounds, and the median of each round's own ratio.

Both do what llama-bench does: prefill is one prompt of `-p` meaningless tokens into an empty
context (or one with `--depth` tokens), decode is `-n` single tokens after that many, and each
process first does both once without measuring.

    python tools/peers/bench.py -m MODEL.gguf [-m MORE.gguf] [-o FILE.json]
"""

import argparse
import datetime
import json
import os
import pathlib
import platform
import statistics
import subprocess
import sys
import time

HERE = pathlib.Path(__file__).resolve().parent
ROOT = HERE.parents[1]
TESTS = {"prefill": "n_prompt", "decode": "n_gen"}


def arguments():
    a = argparse.ArgumentParser(description="Siskin against llama.cpp, in turn, on one machine.")
    a.add_argument("-m", "--model", action="append", required=True, help="a GGUF file; repeatable")
    a.add_argument("-p", "--n-prompt", type=int, default=512, help="tokens of the prompt")
    a.add_argument("-n", "--n-gen", type=int, default=128, help="tokens to generate")
    a.add_argument("-t", "--threads", type=int, default=2)
    a.add_argument("-d", "--depth", type=int, default=0, help="tokens in the context before")
    a.add_argument("-r", "--rounds", type=int, default=5)
    a.add_argument("--reps", type=int, default=1, help="samples per process and round")
    a.add_argument("--flash", choices=("auto", "off", "on"), default="auto",
                   help="llama.cpp's flash attention (auto is llama-bench's default)")
    a.add_argument("--siskin", default=str(ROOT / "target" / "release" / "siskin"),
                   help="the command to measure (default: target/release/siskin)")
    a.add_argument("--only", choices=("siskin", "llama.cpp"), help="leave the other one out")
    a.add_argument("-o", "--output", help="write all samples here, as JSON")
    a.add_argument("--worker", action="store_true", help=argparse.SUPPRESS)
    return a.parse_args()


# llama.cpp, in a process of its own.


def worker(args):
    """Measures llama.cpp here and prints what llama-bench -o json would."""
    import random

    import llamacpp

    random.seed(1)
    n_ctx = args.depth + max(args.n_prompt, args.n_gen, 1)
    with llamacpp.Peer(args.model[0], n_ctx=n_ctx, n_batch=512, threads=args.threads,
                       kv="f16", flash=args.flash) as peer:
        def tokens(n, at):
            out = [random.randrange(peer.n_vocab) for _ in range(n)]
            if at == 0 and out and peer.add_bos:
                out[0] = peer.bos
            return out

        def run(n_prompt, n_gen):
            peer.clear()
            peer.run(tokens(args.depth, 0))
            batch = tokens(n_prompt + n_gen, args.depth)
            start = time.perf_counter_ns()
            if n_prompt:
                peer.run(batch)
            for i in range(n_gen):
                peer.run(batch[i:i + 1])
            return time.perf_counter_ns() - start

        rows = []
        for n_prompt, n_gen in ((args.n_prompt, 0), (0, args.n_gen)):
            if n_prompt + n_gen == 0:
                continue
            run(n_prompt, min(n_gen, 8))
            ns = [run(n_prompt, n_gen) for _ in range(args.reps)]
            ts = [(n_prompt + n_gen) * 1e9 / x for x in ns]
            rows.append({
                **peer.settings(),
                "n_prompt": n_prompt,
                "n_gen": n_gen,
                "n_depth": args.depth,
                "avg_ts": statistics.fmean(ts),
                "stddev_ts": statistics.stdev(ts) if len(ts) > 1 else 0.0,
                "samples_ns": ns,
                "samples_ts": ts,
            })
    print(json.dumps(rows))


def llama_cpp(args, model):
    command = [sys.executable, str(HERE / "bench.py"), "--worker", "-m", model,
               "--flash", args.flash, "--reps", str(args.reps), *common(args)]
    return measured(command)


def siskin(args, model):
    command = [args.siskin, "bench", "-m", model, "-r", str(args.reps), "--json"]
    return measured(command + common(args))


def common(args):
    out = ["-p", str(args.n_prompt), "-n", str(args.n_gen), "-t", str(args.threads)]
    # Left out where it is nothing, so that a command without it can be measured too.
    return out + (["--depth", str(args.depth)] if args.depth else [])


def measured(command):
    """Runs one process; its samples by test."""
    done = subprocess.run(command, capture_output=True, text=True)
    if done.returncode != 0:
        sys.exit(f"{' '.join(command)}\nexited with {done.returncode}:\n{done.stderr[-2000:]}")
    rows = json.loads(done.stdout)
    return {test: next((r for r in rows if r[field] > 0), None) for test, field in TESTS.items()}


# Rounds and what they say.


def rounds(args, model, engines):
    """samples[engine][test] = one list of tokens/s per round."""
    samples = {e: {t: [] for t in TESTS} for e in engines}
    first_rows = {}
    for i in range(args.rounds):
        for engine in list(engines)[::1 if i % 2 == 0 else -1]:
            row = engines[engine](args, model)
            first_rows.setdefault(engine, row)
            for test in TESTS:
                if row[test]:
                    samples[engine][test].append(row[test]["samples_ts"])
            said = ", ".join(f"{t} {statistics.median(row[t]['samples_ts']):.1f}"
                             for t in TESTS if row[t])
            print(f"  round {i + 1}: {engine:9} {said}", file=sys.stderr, flush=True)
    return samples, first_rows


def summary(samples):
    out = {}
    for test in TESTS:
        medians = {e: [statistics.median(s) for s in samples[e][test]] for e in samples}
        if not all(medians.values()):
            continue
        out[test] = {e: {"median": statistics.median(m), "min": min(m), "max": max(m)}
                     for e, m in medians.items()}
        if len(medians) == 2:
            ratios = [a / b for a, b in zip(medians["siskin"], medians["llama.cpp"])]
            out[test]["ratio"] = {"median": statistics.median(ratios), "min": min(ratios),
                                  "max": max(ratios)}
    return out


def table(args, results):
    """A markdown table; each cell is the median, the ratios' range in brackets."""
    where = f", {args.depth} tokens in the context before" if args.depth else ""
    n = {"prefill": args.n_prompt, "decode": args.n_gen}
    lines = [
        f"{args.threads} threads, medians of {args.rounds} rounds in turn, tokens/s{where}.", "",
        "| model | test | siskin | llama.cpp | ratio (lowest to highest round) |",
        "|---|---|---:|---:|---:|",
    ]
    for model, result in results.items():
        for test, r in result["summary"].items():
            cells = [f"{r[e]['median']:.1f}" if e in r else "" for e in ("siskin", "llama.cpp")]
            ratio = r.get("ratio")
            cells.append(f"{ratio['median']:.2f} ({ratio['min']:.2f} to {ratio['max']:.2f})"
                         if ratio else "")
            lines.append(f"| {model} | {test} {n[test]} | " + " | ".join(cells) + " |")
    return "\n".join(lines)


def machine():
    """What the figures were taken on, as far as it says."""
    cpu = {}
    try:
        for line in pathlib.Path("/proc/cpuinfo").read_text().splitlines():
            key, _, value = line.partition(":")
            cpu.setdefault(key.strip(), value.strip())
    except OSError:
        pass
    wanted = ("avx2", "avx_vnni", "avx512f", "avx512_vnni", "avx512_bf16", "asimd", "asimddp",
              "i8mm")
    flags = (cpu.get("flags") or cpu.get("Features") or "").split()
    pages = os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")
    return {
        "cpu": cpu.get("model name") or platform.processor() or platform.machine(),
        "arch": platform.machine(),
        "cores": os.cpu_count(),
        "features": [f for f in wanted if f in flags],
        "memory_gib": round(pages / 2**30, 1),
        "system": f"{platform.system()} {platform.release()}",
        "load_average": [round(x, 2) for x in os.getloadavg()],
        "date": datetime.date.today().isoformat(),
    }


def versions(args, engines):
    out = {"python": platform.python_version()}
    if "llama.cpp" in engines:
        import llamacpp

        out |= llamacpp.version()
    if "siskin" in engines:
        said = subprocess.run([args.siskin, "--version"], capture_output=True, text=True)
        commit = subprocess.run(["git", "-C", str(ROOT), "describe", "--always", "--dirty"],
                                capture_output=True, text=True)
        out |= {"siskin": said.stdout.strip(), "siskin_commit": commit.stdout.strip()}
    return out


def main():
    args = arguments()
    if args.worker:
        return worker(args)
    engines = {"siskin": siskin, "llama.cpp": llama_cpp}
    if args.only:
        engines = {args.only: engines[args.only]}
    described = machine()
    if described["load_average"][0] > 0.5:
        print(f"note: load average is {described['load_average'][0]}; a busy machine makes "
              "these figures worth little", file=sys.stderr)
    results = {}
    for model in args.model:
        name = pathlib.Path(model).stem
        print(name, file=sys.stderr, flush=True)
        samples, settings = rounds(args, model, engines)
        results[name] = {"bytes": os.path.getsize(model), "summary": summary(samples),
                         "samples_ts": samples, "first_round": without_paths(settings)}
    print(table(args, results))
    if args.output:
        whole = {"machine": described, "versions": versions(args, engines),
                 "threads": args.threads, "n_prompt": args.n_prompt, "n_gen": args.n_gen,
                 "n_depth": args.depth, "rounds": args.rounds, "reps": args.reps,
                 "models": results}
        pathlib.Path(args.output).write_text(json.dumps(whole, indent=1) + "\n")


def without_paths(settings):
    """Where a model lay on somebody's disk is no part of a recording."""
    return {engine: {test: {k: v for k, v in (row or {}).items() if k != "model_filename"}
                     for test, row in tests.items()} for engine, tests in settings.items()}


if __name__ == "__main__":
    main()
