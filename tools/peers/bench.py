#!/usr/bin/env python3
"""Siskin and llama.cpp on the same file, one after the other, again and again.

A machine's speed drifts by more than the two differ: with its heat, its neighbours and its clock.
So the two are never measured in blocks. Each round runs one, then the other, each in a fresh
process with the same file, threads and lengths, and the next round begins with the other one. What
is reported is the median of the rounds, and the median of each round's own ratio.

Both do what llama-bench does: prefill is one prompt of `-p` meaningless tokens into an empty
context (or one with `--depth` tokens), decode is `-n` single tokens after that many, and each
process first does both once without measuring. Beside Siskin's figure stands its share of what the
machine can do: of the read bandwidth for decoding, of the rate of 8-bit multiplications for prefill.
It is measured just before and after each of Siskin's runs (`siskin bench --limits`), because a machine
whose memory is shared reads half as fast from one second to the next; beside it stands the share of
the fastest pass over memory, or loop of multiplications, of the process. That leaves Siskin's weights
out of the caches when a run begins, as llama.cpp's are not.

    python tools/peers/bench.py -m MODEL.gguf [-m MORE.gguf] [--shape llama-1b:q4_0] [-d 0 -d 4096]
        [--record NAME]
"""

import argparse
import contextlib
import datetime
import itertools
import json
import os
import pathlib
import platform
import statistics
import subprocess
import sys
import tempfile
import time

HERE = pathlib.Path(__file__).resolve().parent
ROOT = HERE.parents[1]
RECORD = ROOT / "benches" / "record"
TESTS = {"prefill": "n_prompt", "decode": "n_gen"}
LIMITS = {"read_bytes": ("memory read at", 1e9, "GB/s", 1),
          "int8_ops": ("bytes multiplied at", 1e12, "Tops/s", 2)}


def arguments():
    a = argparse.ArgumentParser(description="Siskin against llama.cpp, in turn, on one machine.")
    a.add_argument("-m", "--model", action="append", default=[], help="a GGUF file; repeatable")
    a.add_argument("--shape", action="append", default=[], metavar="SHAPE:TYPE",
                   help="random weights of a shape and type that `siskin bench --shape` knows, "
                        "for example llama-1b:q4_k_m; repeatable")
    a.add_argument("-p", "--n-prompt", type=int, default=512, help="tokens of the prompt")
    a.add_argument("-n", "--n-gen", type=int, default=128, help="tokens to generate")
    a.add_argument("-t", "--threads", type=int, action="append",
                   help="threads; repeatable, to show how Siskin scales (default: 2)")
    a.add_argument("-d", "--depth", type=int, action="append",
                   help="tokens in the context before; repeatable (default: 0)")
    a.add_argument("-r", "--rounds", type=int, default=5)
    a.add_argument("--reps", type=int, default=1, help="samples per process and round")
    a.add_argument("--flash", choices=("auto", "off", "on"), default="auto",
                   help="llama.cpp's flash attention (auto is llama-bench's default)")
    a.add_argument("--siskin", default=str(ROOT / "target" / "release" / "siskin"),
                   help="the command to measure (default: target/release/siskin)")
    a.add_argument("--cpu", help="the kernel level that Siskin is held to, for example avx2")
    a.add_argument("--peer", default=sys.executable, metavar="PYTHON",
                   help="the Python that has the llama-cpp-python to measure (default: this one)")
    a.add_argument("--only", choices=("siskin", "llama.cpp"), help="leave the other one out")
    a.add_argument("--scratch", help="folder for the files of --shape (default: a temporary one)")
    a.add_argument("-o", "--output", help="write all samples here, as JSON")
    a.add_argument("--record", metavar="NAME",
                   help="write benches/record/NAME.json (all samples) and NAME.md (the table)")
    a.add_argument("--worker", choices=("bench", "version"), help=argparse.SUPPRESS)
    args = a.parse_args()
    args.depth = args.depth or [0]
    args.threads = args.threads or [2]
    if not args.worker and not args.model and not args.shape:
        a.error("nothing to measure: give -m or --shape")
    return args


# llama.cpp, in a process of its own.


def worker(args):
    """Measures llama.cpp here and prints what llama-bench -o json would."""
    import random

    import llamacpp

    random.seed(1)
    depth = args.depth[0]
    n_ctx = depth + max(args.n_prompt, args.n_gen, 1)
    with llamacpp.Peer(args.model[0], n_ctx=n_ctx, n_batch=512, threads=args.threads[0],
                       kv="f16", flash=args.flash) as peer:
        def tokens(n, at):
            out = [random.randrange(peer.n_vocab) for _ in range(n)]
            if at == 0 and out and peer.add_bos:
                out[0] = peer.bos
            return out

        def run(n_prompt, n_gen):
            if not peer.rewind(depth):
                peer.clear()
                peer.run(tokens(depth, 0))
            batch = tokens(n_prompt + n_gen, depth)
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
                "n_depth": depth,
                "avg_ts": statistics.fmean(ts),
                "stddev_ts": statistics.stdev(ts) if len(ts) > 1 else 0.0,
                "samples_ns": ns,
                "samples_ts": ts,
            })
    print(json.dumps(rows))


def llama_cpp(args, model, depth, threads):
    command = [args.peer, str(HERE / "bench.py"), "--worker", "bench", "-m", model,
               "--flash", args.flash, "--reps", str(args.reps)]
    return measured(command + common(args, depth, threads))


def siskin(args, model, depth, threads):
    command = [args.siskin, "bench", "-m", model, "-r", str(args.reps), "--json", "--limits"]
    level = ["--cpu", args.cpu] if args.cpu else []
    return measured(command + level + common(args, depth, threads))


def common(args, depth, threads):
    return ["-p", str(args.n_prompt), "-n", str(args.n_gen), "-t", str(threads),
            "--depth", str(depth)]


def output(command):
    """What a process printed."""
    done = subprocess.run(command, capture_output=True, text=True)
    if done.returncode != 0:
        sys.exit(f"{' '.join(command)}\nexited with {done.returncode}:\n{done.stderr[-2000:]}")
    return done.stdout


def measured(command):
    """Runs one process; its samples by test."""
    rows = json.loads(output(command))
    return {test: next((r for r in rows if r[field] > 0), None) for test, field in TESTS.items()}


# Rounds and what they say.


def rounds(args, model, depth, threads, engines):
    """samples[engine][test] = one list of tokens/s per round; the settings of the first; and
    limits[test] = what each round found of the machine's limits, and Siskin's share of them."""
    samples = {e: {t: [] for t in TESTS} for e in engines}
    first_rows, limits = {}, {t: [] for t in TESTS}
    for i in range(args.rounds):
        for engine in list(engines)[::1 if i % 2 == 0 else -1]:
            row = engines[engine](args, model, depth, threads)
            first_rows.setdefault(engine, row)
            for test in TESTS:
                if row[test]:
                    samples[engine][test].append(row[test]["samples_ts"])
                    if row[test].get("limits"):
                        limits[test].append(row[test]["limits"])
            said = ", ".join(f"{t} {statistics.median(row[t]['samples_ts']):.1f}"
                             for t in TESTS if row[t])
            print(f"  round {i + 1}: {engine:9} {said}", file=sys.stderr, flush=True)
    return samples, first_rows, limits


def range_of(values):
    return {"median": statistics.median(values), "min": min(values), "max": max(values)}


def summary(samples, limits):
    out = {}
    for test in TESTS:
        medians = {e: [statistics.median(s) for s in samples[e][test]] for e in samples}
        if not all(medians.values()):
            continue
        out[test] = {e: range_of(m) for e, m in medians.items()}
        # Empty where the level has no instructions whose rate could be the limit.
        for share in ("share", "share_of_best"):
            if shares := [x[share] for x in limits[test]]:
                out[test][share] = range_of(shares)
        if len(medians) == 2:
            ratios = [a / b for a, b in zip(medians["siskin"], medians["llama.cpp"])]
            out[test]["ratio"] = range_of(ratios)
    return out


def table(args, results):
    """A markdown table; each cell is the median, the ratios' range in brackets. With several numbers
    of threads, the speed-up is Siskin's over the first of them, and the efficiency is the speed-up
    over how many times as many threads there are. They are measured one after the other, so that
    the two say little where the limits drifted; the share of the limit is of the same process."""
    n = {"prefill": args.n_prompt, "decode": args.n_gen}
    scaling = len(args.threads) > 1
    columns = ["model", "depth", "test", "siskin", "of the limit", "of its best", "llama.cpp",
               "ratio (lowest to highest round)"]
    if scaling:
        columns[2:2] = ["threads"]
        columns[5:5] = ["speed-up", "efficiency"]
    text = {"model", "test"}
    lines = [f"{threads_of(args)}, medians of {args.rounds} rounds in turn, tokens/s.", "",
             "| " + " | ".join(columns) + " |",
             "|" + "|".join("---" if c in text else "---:" for c in columns) + "|"]
    first = {}
    for result in results:
        for test, r in result["summary"].items():
            ratio = r.get("ratio")
            cell = {"model": result["model"], "depth": str(result["depth"]),
                    "test": f"{test} {n[test]}", "threads": str(result["threads"]),
                    "of the limit": percent(r.get("share")),
                    "of its best": percent(r.get("share_of_best")),
                    "ratio (lowest to highest round)":
                        f"{ratio['median']:.2f} ({ratio['min']:.2f} to {ratio['max']:.2f})"
                        if ratio else ""}
            for engine in ("siskin", "llama.cpp"):
                cell[engine] = f"{r[engine]['median']:.1f}" if engine in r else ""
            if scaling and "siskin" in r:
                speed = r["siskin"]["median"]
                threads, at_first = first.setdefault((result["model"], result["depth"], test),
                                                    (result["threads"], speed))
                up = speed / at_first
                cell["speed-up"] = f"{up:.2f}"
                cell["efficiency"] = f"{100 * up * threads / result['threads']:.0f}%"
            lines.append("| " + " | ".join(cell.get(c, "") for c in columns) + " |")
    return "\n".join(lines)


def percent(share):
    return f"{100 * share['median']:.0f}%" if share else ""


def threads_of(args):
    """The numbers of threads, in words."""
    return ", ".join(map(str, args.threads)) + (" threads" if args.threads != [1] else " thread")


def limits_of(results):
    """What all rounds found, by the number of threads and by what bounds the test."""
    out = {}
    for r in results:
        for found in (x for test in r["limits"].values() for x in test):
            of_threads = out.setdefault(r["threads"], {})
            of_threads.setdefault(found["bound"], []).append(found["per_s"])
    return {t: {bound: range_of(v) for bound, v in found.items()} for t, found in out.items()}


def between(limit, unit, name, digits):
    """The median and the range, in words."""
    median, least, most = (f"{limit[k] / unit:.{digits}f}" for k in ("median", "min", "max"))
    return f"{median} ({least} to {most}) {name}"


def described(whole):
    """The machine, the limits and the versions, in words."""
    m, v = whole["machine"], whole["versions"]
    lines = [f"{m['date']}: {m['cpu']}, {m['cores']} cores ({' '.join(m['features'])}), "
             f"{m['memory_gib']} GiB of memory, {m['system']}; load average before: "
             f"{m['load_average'][0]}."]
    for threads, found in whole["limits"].items():
        limits = [f"{LIMITS[bound][0]} {between(limit, *LIMITS[bound][1:])}"
                  for bound, limit in found.items()]
        lines.append(f"`siskin bench --limits` with {threads} thread{'s' * (threads > 1)}, beside the "
                     f"runs of each round: {', '.join(limits)}.")
    if "siskin" in v:
        kernels = {row["kernel_level"] for r in whole["results"]
                   for row in r["first_round"].get("siskin", {}).values() if row}
        lines.append(f"{v['siskin']} ({v['siskin_commit']}), {'/'.join(sorted(kernels))} kernels.")
    if "llama_cpp_python" in v:
        lines.append(f"llama-cpp-python {v['llama_cpp_python']}: {v['system_info']}.")
    return "\n\n".join(lines)


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
        out |= json.loads(output([args.peer, str(HERE / "bench.py"), "--worker", "version"]))
    if "siskin" in engines:
        commit = subprocess.run(["git", "-C", str(ROOT), "describe", "--always", "--dirty"],
                                capture_output=True, text=True)
        out |= {"siskin": output([args.siskin, "--version"]).strip(),
                "siskin_commit": commit.stdout.strip()}
    return out


@contextlib.contextmanager
def file_of(args, spec):
    """Writes the model of `SHAPE:TYPE`, which is deleted again."""
    shape, _, ty = spec.partition(":")
    with tempfile.TemporaryDirectory(dir=args.scratch) as folder:
        path = str(pathlib.Path(folder) / f"{shape}-{ty}.gguf")
        output([args.siskin, "bench", "--shape", shape, "--type", ty, "--save", path,
                "-p", "0", "-n", "0"])
        yield path


def model_results(args, engines, name, path):
    for depth, threads in itertools.product(args.depth, args.threads):
        print(f"{name}, depth {depth}, threads {threads}", file=sys.stderr, flush=True)
        samples, settings, limits = rounds(args, path, depth, threads, engines)
        yield {"model": name, "bytes": os.path.getsize(path), "depth": depth, "threads": threads,
               "limits": limits, "summary": summary(samples, limits), "samples_ts": samples,
               "first_round": without_paths(settings)}


def main():
    args = arguments()
    if args.worker == "bench":
        return worker(args)
    if args.worker == "version":
        import llamacpp

        return print(json.dumps(llamacpp.version()))
    engines = {"siskin": siskin, "llama.cpp": llama_cpp}
    if args.only:
        engines = {args.only: engines[args.only]}
    whole = {"machine": machine(), "versions": versions(args, engines), "threads": args.threads,
             "n_prompt": args.n_prompt, "n_gen": args.n_gen, "rounds": args.rounds,
             "reps": args.reps, "results": []}
    if whole["machine"]["load_average"][0] > 0.5:
        print(f"note: load average is {whole['machine']['load_average'][0]}; a busy machine makes "
              "these figures worth little", file=sys.stderr)
    for path in args.model:
        whole["results"] += model_results(args, engines, pathlib.Path(path).stem, path)
    for spec in args.shape:
        with file_of(args, spec) as path:
            name = f"{pathlib.Path(path).stem}, random weights"
            whole["results"] += model_results(args, engines, name, path)
    whole["limits"] = limits_of(whole["results"])
    text = table(args, whole["results"]) + "\n\n" + described(whole)
    print(text)
    samples = json.dumps(whole, indent=1) + "\n"
    if args.output:
        pathlib.Path(args.output).write_text(samples)
    if args.record:
        RECORD.mkdir(exist_ok=True)
        (RECORD / f"{args.record}.json").write_text(samples)
        (RECORD / f"{args.record}.md").write_text(f"# {args.record}\n\n{text}\n")


def without_paths(settings):
    """Where a model lay on somebody's disk is no part of a recording."""
    return {engine: {test: {k: v for k, v in (row or {}).items() if k != "model_filename"}
                     for test, row in tests.items()} for engine, tests in settings.items()}


if __name__ == "__main__":
    main()
