"""Records what llama.cpp's sampler stages leave of rows of logits: cases.json.

Needs llama-cpp-python (0.3.36 made the file here) and any GGUF file with a vocabulary, which DRY's
constructor wants: python record.py MODEL.gguf
"""

import ctypes
import json
import sys
from pathlib import Path

import llama_cpp as ll
import numpy as np

LAST_N = 64


def logits(n, seed, scale):
    """The same numbers as `row` in tests/sampler.rs: every step is exact or one IEEE operation."""
    x = np.zeros(4 * n, dtype=np.uint64)
    state = seed
    for i in range(4 * n):
        state = (state * 1664525 + 1013904223) & 0xFFFFFFFF
        x[i] = state >> 12
    v = x.reshape(n, 4).sum(axis=1).astype(np.int64) - (1 << 21)
    v = v.astype(np.float32) * np.float32(2.0**-19)
    return v * np.abs(v) * np.float32(scale)


def stages(vocab, n, p):
    """The order of llama.cpp's common/sampling.cpp."""
    if p.get("mirostat") == 2:
        yield ll.llama_sampler_init_temp(p.get("temp", 0.8))
        yield ll.llama_sampler_init_mirostat_v2(0, p["mirostat_tau"], p["mirostat_eta"])
        return
    keep = p.get("min_keep", 0)
    make = {
        "penalties": lambda: ll.llama_sampler_init_penalties(
            n,
            p.get("penalty_last_n", LAST_N),
            p.get("penalty_repeat", 1.0),
            p.get("penalty_freq", 0.0),
            p.get("penalty_present", 0.0),
        ),
        "dry": lambda: ll.llama_sampler_init_dry(
            vocab,
            p.get("dry_multiplier", 0.0),
            p.get("dry_base", 1.75),
            p.get("dry_allowed_length", 2),
            p.get("dry_penalty_last_n", LAST_N),
            (ctypes.c_char_p * 1)(),
            0,
        ),
        "top_n_sigma": lambda: ll.llama_sampler_init_top_n_sigma(p.get("top_n_sigma", -1.0)),
        "top_k": lambda: ll.llama_sampler_init_top_k(p.get("top_k", 40)),
        "typ_p": lambda: ll.llama_sampler_init_typical(p.get("typ_p", 1.0), keep),
        "top_p": lambda: ll.llama_sampler_init_top_p(p.get("top_p", 0.95), keep),
        "min_p": lambda: ll.llama_sampler_init_min_p(p.get("min_p", 0.05), keep),
        "xtc": lambda: ll.llama_sampler_init_xtc(
            p.get("xtc_probability", 0.0), p.get("xtc_threshold", 0.1), keep, 0
        ),
        "temperature": lambda: ll.llama_sampler_init_temp_ext(
            p.get("temp", 0.8), p.get("dynatemp_range", 0.0), p.get("dynatemp_exponent", 1.0)
        ),
    }
    for name in p.get("order", make):
        yield make[name]()


def survivors(vocab, row, p, history):
    n = len(row)
    data = (ll.llama_token_data * n)()
    bias = dict((t, np.float32(b)) for t, b in p.get("logit_bias", []))
    for i in range(n):
        data[i].id = i
        data[i].logit = row[i] + bias.get(i, np.float32(0))
    array = ll.llama_token_data_array(data, n, -1, False)
    for stage in stages(vocab, n, p):
        for token in history:
            ll.llama_sampler_accept(stage, token)
        ll.llama_sampler_apply(stage, ctypes.byref(array))
        ll.llama_sampler_free(stage)
    out = [array.data[i] for i in range(array.size)]
    x = np.array([d.logit for d in out], dtype=np.float64)
    w = np.exp(x - x.max())
    w /= w.sum()
    # Masked tokens, which top-n-sigma and a temperature of 0 leave in the list.
    rows = [(int(d.id), float(q)) for d, q in zip(out, w) if d.logit > -np.inf]
    return sorted(rows, key=lambda r: (-r[1], r[0]))


OFF = {"top_k": 0, "top_p": 1.0, "min_p": 0.0, "temp": 1.0}
# Ranks: 3 is the fourth most likely token.
REPEATS = [2, 4, 3, 0, 11, 2, 4, 3, 1, 4, 3, 2, 4, 3]

CASES = [
    ("the defaults", {}),
    ("greedy", {"temp": 0.0}),
    ("temperature alone", {**OFF, "temp": 0.6}),
    ("temperature above 1", {**OFF, "temp": 1.7, "top_k": 100}),
    ("top-k", {**OFF, "top_k": 10}),
    ("top-k above 128", {**OFF, "top_k": 300}),
    ("top-p", {**OFF, "top_p": 0.9}),
    ("top-p with a nearly flat row", {**OFF, "top_p": 0.9, "scale": 0.05}),
    ("top-p of 0", {**OFF, "top_p": 0.0}),
    ("top-p of 0 keeps min-keep", {**OFF, "top_p": 0.0, "min_keep": 5}),
    ("min-p", {**OFF, "min_p": 0.1}),
    ("min-p of 1", {**OFF, "min_p": 1.0}),
    ("min-p keeps min-keep", {**OFF, "min_p": 0.9, "min_keep": 7}),
    ("typical", {**OFF, "typ_p": 0.5}),
    ("typical of a nearly flat row", {**OFF, "typ_p": 0.3, "scale": 0.05}),
    ("typical keeps min-keep", {**OFF, "typ_p": 0.1, "min_keep": 9}),
    ("typical after top-k", {**OFF, "typ_p": 0.6, "top_k": 50}),
    ("top-n-sigma", {**OFF, "top_n_sigma": 2.0}),
    ("top-n-sigma of a third", {**OFF, "top_n_sigma": 0.33}),
    ("xtc", {**OFF, "xtc_probability": 1.0, "xtc_threshold": 0.05}),
    ("xtc after top-k", {**OFF, "top_k": 20, "xtc_probability": 1.0, "xtc_threshold": 0.1}),
    ("xtc that may not remove", {**OFF, "top_k": 3, "xtc_probability": 1.0, "min_keep": 3}),
    ("xtc above a half is off", {**OFF, "xtc_probability": 1.0, "xtc_threshold": 0.51}),
    ("dynamic temperature", {**OFF, "top_k": 40, "temp": 0.8, "dynatemp_range": 0.5}),
    ("dynamic temperature with an exponent", {**OFF, "top_k": 40, "dynatemp_range": 0.9, "dynatemp_exponent": 2.0}),
    ("dynamic temperature around 0", {**OFF, "top_k": 40, "temp": 0.0, "dynatemp_range": 0.7}),
    ("dynamic temperature of a vocabulary", {**OFF, "temp": 1.0, "dynatemp_range": 0.5}),
    ("repeat penalty", {"penalty_repeat": 1.3, "history": REPEATS}),
    ("repeat penalty over the last 3", {"penalty_repeat": 1.3, "penalty_last_n": 3, "history": REPEATS}),
    ("frequency penalty", {"penalty_freq": 0.7, "history": REPEATS}),
    ("presence penalty", {"penalty_present": 0.9, "history": REPEATS}),
    ("all penalties", {**OFF, "penalty_repeat": 1.1, "penalty_freq": 0.2, "penalty_present": 0.4, "history": REPEATS}),
    ("negative penalties", {**OFF, "penalty_freq": -2.0, "history": REPEATS}),
    ("dry", {**OFF, "dry_multiplier": 0.8, "history": REPEATS}),
    ("dry with short allowance", {**OFF, "dry_multiplier": 1.5, "dry_allowed_length": 1, "history": REPEATS}),
    ("dry with no allowance", {**OFF, "dry_multiplier": 1.5, "dry_allowed_length": 0, "history": REPEATS}),
    ("dry over the last 6", {**OFF, "dry_multiplier": 1.5, "dry_penalty_last_n": 6, "history": REPEATS}),
    ("dry of a long repetition", {**OFF, "dry_multiplier": 0.1, "history": [0, 1, 2, 3] * 12 + [0]}),
    ("dry of one token", {**OFF, "dry_multiplier": 0.1, "history": [1] * 60}),
    ("dry and penalties and the rest", {"dry_multiplier": 0.8, "penalty_repeat": 1.1, "history": REPEATS}),
    ("logit bias", {"logit_bias": [[3, 30.0], [4, -1.5]]}),
    ("mirostat 2", {"mirostat": 2, "mirostat_tau": 3.0, "mirostat_eta": 0.1, "temp": 0.9}),
    ("mirostat 2 with no surprise", {"mirostat": 2, "mirostat_tau": 0.1, "mirostat_eta": 0.1, "temp": 1.0}),
    ("mirostat 2 greedy", {"mirostat": 2, "mirostat_tau": 5.0, "mirostat_eta": 0.1, "temp": 0.0}),
    ("temperature first", {"order": ["temperature", "top_k", "top_p"], "temp": 2.0}),
    ("penalties last", {"order": ["top_k", "penalties", "dry", "top_p"], "penalty_repeat": 2.0, "dry_multiplier": 0.5, "history": REPEATS}),
    ("min-p, then top-p", {"order": ["min_p", "top_p"], "min_p": 0.02, "top_p": 0.8}),
    ("xtc, then top-k", {"order": ["xtc", "top_k"], "xtc_probability": 1.0, "top_k": 5}),
    ("all at once", {"penalty_repeat": 1.1, "dry_multiplier": 0.4, "top_n_sigma": 3.0, "typ_p": 0.9, "min_p": 0.01, "history": REPEATS}),
]


def main():
    model = ll.llama_model_load_from_file(
        sys.argv[1].encode(), ll.llama_model_params(vocab_only=True)
    )
    vocab = ll.llama_model_get_vocab(model)
    cases = []
    for i, (name, params) in enumerate(CASES):
        for n in (12, 2000, 20000):
            if name == "typical of a nearly flat row" and n > 2000:
                # The entropy that llama.cpp sums in f32 is off by several tokens' distance.
                continue
            p = dict(params)
            seed = 1000 * i + n
            scale = p.pop("scale", 1.0)
            row = logits(n, seed, scale)
            # By rank, so that the history is of tokens that could be drawn.
            by_rank = np.argsort(-row, kind="stable")
            history = [int(by_rank[r]) for r in p.pop("history", [])]
            rows = survivors(vocab, row, p, history)
            cases.append(
                {
                    "name": f"{name}, {n} tokens",
                    "n_vocab": n,
                    "row_seed": seed,
                    "scale": scale,
                    "params": p,
                    "history": history,
                    "left": len(rows),
                    # Enough to see a wrong stage by.
                    "best": [[t, float(f"{q:.6g}")] for t, q in rows[:12]],
                    "worst": [[t, float(f"{q:.6g}")] for t, q in rows[-3:]],
                }
            )
    path = Path(__file__).with_name("cases.json")
    path.write_text("[\n" + ",\n".join(json.dumps(c) for c in cases) + "\n]\n")


if __name__ == "__main__":
    main()
