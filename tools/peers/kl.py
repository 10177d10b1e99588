#!/usr/bin/env python3
"""How far a runtime's next-token distributions are from float32: mean KL divergence, in nats.

The float32 log-probabilities are those that reference.py wrote. llama.cpp computes the same token
ids through llama-cpp-python; Siskin through `siskin logits --dump`. Every position of every prompt
counts the same.

The references are too large to ship. For the tests, `--sample` keeps a small part of each: at every
third position the 32 likeliest tokens, with the rest of the vocabulary as one more outcome. The KL
divergence of that coarser choice (`sampled_kl`) is a lower bound of the whole one, and is recorded
for llama.cpp too.

    python tools/peers/kl.py --reference DIR [--siskin FILE] [-o OUT.json] NAME=MODEL.gguf ...
"""

import argparse
import json
import math
import pathlib
import subprocess
import sys
import tempfile

import numpy as np

import llamacpp

ROOT = pathlib.Path(__file__).resolve().parents[2]
RECORD = ROOT / "tests" / "data" / "kl" / "kl.json"
SAMPLE_EVERY = 3
SAMPLE_TOP = 32


def llama_cpp(path, tokens, args, flash):
    n_ctx = max(map(len, tokens.values()))
    with llamacpp.Peer(path, n_ctx=n_ctx, threads=args.threads, kv="f16", flash=flash) as peer:
        for name, ids in tokens.items():
            peer.clear()
            yield name, peer.decode(ids)


def siskin(path, tokens, args):
    with tempfile.TemporaryDirectory() as d:
        dump = pathlib.Path(d) / "logits"
        for name, ids in tokens.items():
            command = [args.siskin, "logits", "-m", path, "-t", str(args.threads),
                       "--tokens", ",".join(map(str, ids)), "--dump", str(dump)]
            done = subprocess.run(command, capture_output=True, text=True)
            if done.returncode != 0:
                sys.exit(f"siskin logits exited with {done.returncode}: {done.stderr[-2000:]}")
            yield name, np.fromfile(dump, dtype="<f4").reshape(len(ids), -1)


def divergence(want, logits):
    """KL(want || softmax(logits)) of each row, and whether both put the same token first."""
    kl, same = [], []
    for w, x in zip(want, logits):
        w = w.astype(np.float64)
        got = llamacpp.log_softmax(x)
        kl.append(float((np.exp(w) * (w - got)).sum()))
        same.append(bool(w.argmax() == got.argmax()))
    return kl, same


def likeliest(row):
    """The ids of a row's likeliest tokens, best first, lower id first among equals."""
    ids = np.argpartition(row, -SAMPLE_TOP)[-SAMPLE_TOP:]
    return ids[np.lexsort((ids, -row[ids]))].astype("<u4")


def coarse(logp, ids):
    """Log-probabilities of these tokens, and of all others together."""
    p = logp[ids].astype(np.float64)
    return np.append(p, np.log(max(1.0 - np.exp(p).sum(), 1e-12)))


def sampled_kl(want, logits, first):
    """The divergence of the coarser choice, at the sampled positions of one prompt."""
    out = []
    for i in range(len(want)):
        if (first + i) % SAMPLE_EVERY == 0:
            ids = likeliest(want[i])
            w, got = coarse(want[i], ids), coarse(llamacpp.log_softmax(logits[i]), ids)
            out.append(float((np.exp(w) * (w - got)).sum()))
    return out


def write_sample(reference, path):
    """For each sampled position: ids as u32, then their log-probabilities as f32."""
    with open(path, "wb") as f:
        for row in reference[::SAMPLE_EVERY]:
            ids = likeliest(row)
            f.write(ids.tobytes())
            f.write(row[ids].astype("<f4").tobytes())


def measure(runs, reference, tokens):
    """One runtime over all prompts."""
    at, by_prompt, all_kl, all_same, sampled = 0, {}, [], [], []
    for name, logits in runs:
        n = len(tokens[name])
        if logits.shape != (n, reference.shape[1]):
            sys.exit(f"{name}: {logits.shape} logits, expected {(n, reference.shape[1])}")
        kl, same = divergence(reference[at:at + n], logits)
        by_prompt[name] = round(float(np.mean(kl)), 7)
        all_kl += kl
        all_same += same
        sampled += sampled_kl(reference[at:at + n], logits, at)
        at += n
    return {
        "mean_kl": round(float(np.mean(all_kl)), 7),
        "stderr": round(float(np.std(all_kl) / math.sqrt(len(all_kl))), 7),
        "median_kl": round(float(np.median(all_kl)), 7),
        "p99_kl": round(float(np.quantile(all_kl, 0.99)), 7),
        "max_kl": round(max(all_kl), 6),
        "same_first": round(float(np.mean(all_same)), 5),
        "sampled_kl": round(float(np.mean(sampled)), 7),
        "by_prompt": by_prompt,
    }


def main():
    a = argparse.ArgumentParser(description="KL divergence from float32, llama.cpp's and Siskin's.")
    a.add_argument("--reference", required=True, help="the folder that reference.py wrote")
    a.add_argument("--siskin", help="measure this siskin command")
    a.add_argument("--peer", choices=("run", "recorded"), default="run",
                   help="run llama.cpp, or take its figures from tests/data/kl/kl.json")
    a.add_argument("-t", "--threads", type=int, default=2)
    a.add_argument("--sample", help="write the references' small parts into this folder")
    a.add_argument("-o", "--output", help="write the figures here, as JSON")
    a.add_argument("models", nargs="+", metavar="NAME=FILE")
    args = a.parse_args()

    rows = []
    for spec in args.models:
        name, path = spec.split("=", 1)
        folder = pathlib.Path(args.reference)
        info = json.loads((folder / f"{name}.json").read_text())
        reference = np.load(folder / f"{name}.npy", mmap_mode="r")
        tokens = info["prompts"]
        if llamacpp.sha256(path) != info["file_sha256"]:
            sys.exit(f"{path} is not the file that the reference of {name} was made from")
        row = {**{k: v for k, v in info.items() if k != "prompts"}, "positions": len(reference)}
        if args.peer == "run":
            row["llama.cpp"] = measure(llama_cpp(path, tokens, args, "off"), reference, tokens)
            row["llama.cpp, flash attention"] = measure(
                llama_cpp(path, tokens, args, "on"), reference, tokens)
        else:
            old = next(r for r in json.loads(RECORD.read_text())["models"] if r["model"] == name)
            row |= {k: v for k, v in old.items() if k.startswith("llama.cpp")}
        if args.siskin:
            row["siskin"] = measure(siskin(path, tokens, args), reference, tokens)
        if args.sample:
            write_sample(reference, pathlib.Path(args.sample) / f"{name}.top")
        rows.append({**row, "tokens": tokens})
        for what, r in row.items():
            if isinstance(r, dict):
                print(f"{name:8} {what:28} mean {r['mean_kl']:.6f} +/- {r['stderr']:.6f}  "
                      f"median {r['median_kl']:.6f}  max {r['max_kl']:.4f}  "
                      f"sampled {r['sampled_kl']:.6f}  "
                      f"same first {r['same_first']:.2%}", flush=True)
    if args.output:
        out = {
            "about": "mean KL(float32 || runtime) over every position of every prompt, in nats",
            "kv": "f16",
            "sample": {
                "about": "NAME.top: at every 3rd position (0, 3, ...) over all prompts in order, "
                "ids as u32, then log-probabilities as f32, little-endian; sampled_kl counts "
                "these tokens and the rest of the vocabulary as one outcome",
                "every": SAMPLE_EVERY,
                "top": SAMPLE_TOP,
            },
            "peer": llamacpp.version(),
            "models": "@",
        }
        lines = ",\n  ".join(json.dumps(r) for r in rows)
        text = json.dumps(out, indent=1).replace('"@"', f"[\n  {lines}\n ]")
        json.loads(text)
        pathlib.Path(args.output).write_text(text + "\n")


if __name__ == "__main__":
    main()
