#!/usr/bin/env python3
"""Greedy text of GGUF files in both runtimes: what Siskin writes, llama.cpp must read and run alike.

Completes the prompts of tests/data/greedy in llama.cpp and in Siskin, 32 tokens each at temperature 0.
Two runtimes that round differently part where the two best tokens are nearly tied, so the prompts are
told apart by the least margin of llama.cpp's logits on the way.

    pip install llama-cpp-python
    python tools/peers/greedy.py --siskin target/release/siskin a.gguf b.gguf
"""

import argparse
import json
import pathlib
import sys

import numpy as np

ROOT = pathlib.Path(__file__).resolve().parents[2]
sys.path.insert(0, str(ROOT / "tests" / "data" / "greedy"))

import llamacpp  # noqa: E402
from command import siskin  # noqa: E402
from record import PROMPTS  # noqa: E402

TOKENS = 32


def complete(peer, prompt):
    """llama.cpp's text, and the least margin between the two best tokens on the way."""
    peer.clear()
    tokens = peer.tokenize(prompt)
    start, least = len(tokens), np.inf
    logits = peer.decode(tokens, outputs="last")[0]
    for _ in range(TOKENS):
        second, best = np.argsort(logits)[-2:]
        least = min(least, float(logits[best] - logits[second]))
        if peer.is_end(int(best)):
            break
        tokens.append(int(best))
        logits = peer.decode(tokens[-1:], start=len(tokens) - 1)[0]
    return peer.detokenize(tokens[start:]), least


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("files", nargs="+", type=pathlib.Path)
    parser.add_argument("--siskin", default="target/release/siskin")
    parser.add_argument("--margin", type=float, default=0.5, help="what is a clear margin")
    parser.add_argument("--threads", type=int, default=2)
    args = parser.parse_args()
    print(f"| file | same text, margin of {args.margin} and more | same text, smaller margins |")
    print("|---|---|---|")
    failed = False
    for path in args.files:
        same = {True: [], False: []}
        with llamacpp.Peer(path, n_ctx=512, threads=args.threads) as peer:
            for prompt in PROMPTS.values():
                theirs, margin = complete(peer, prompt)
                run = ["run", "-m", path, "--raw", "--temp", 0, "-n", TOKENS, "--json"]
                ours = json.loads(siskin(args.siskin, *run, "-t", args.threads, prompt))["text"]
                same[margin >= args.margin].append(ours.strip() == theirs.strip())
        cells = [f"{sum(same[clear])} of {len(same[clear])}" for clear in (True, False)]
        print(f"| {path.name} | {' | '.join(cells)} |", flush=True)
        failed |= not all(same[True])
    sys.exit(failed)


if __name__ == "__main__":
    main()
