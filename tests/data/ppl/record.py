#!/usr/bin/env python3
"""Records llama.cpp's perplexity of the three real models, chunk by chunk.

The rule is that of llama.cpp's own tool (tools/perplexity): the text is tokenized once, with BOS if
the model asks for it; each chunk of 512 tokens starts with an empty cache, its first token replaced
by BOS if the model asks for it; positions 256 to 510 are scored on the token that follows them.

The text is the test part of WikiText-2 (raw), which is not ours to ship: its SHA-256 and that of
the tokens stand in the recording, so that a test knows whether it was given the same.

    pip install llama-cpp-python
    python tests/data/ppl/record.py TEXT smollm2=FILE gemma3=FILE qwen=FILE
"""

import hashlib
import json
import math
import pathlib
import sys

import numpy as np

HERE = pathlib.Path(__file__).resolve().parent
sys.path.insert(0, str(HERE.parents[2] / "tools" / "peers"))
import llamacpp  # noqa: E402

N_CTX = 512
CHUNKS = 16
# The figures do not depend on it, and two threads that spin are slow on a machine with other work.
THREADS = 1


def chunk_nlls(peer, tokens):
    """The negative log-likelihood of every scored token of one chunk."""
    if peer.add_bos:
        tokens = [peer.bos] + tokens[1:]
    first = N_CTX // 2
    peer.clear()
    peer.decode(tokens[:first], outputs="none")
    # Some rows at a time: 256 rows of 262,144 float64 would be half a gigabyte, several times over.
    nll = []
    for at in range(first, N_CTX - 1, 32):
        part = tokens[at:min(at + 32, N_CTX - 1)]
        logp = llamacpp.log_softmax(peer.decode(part, start=at))
        follow = tokens[at + 1:at + 1 + len(part)]
        nll.extend(-logp[np.arange(len(part)), follow])
    return nll


def record(name, path, text, flash):
    with llamacpp.Peer(path, n_ctx=N_CTX, threads=THREADS, kv="f16", flash=flash) as peer:
        # Tokenizing slows down with length in some models; the first chunks need far less.
        tokens = peer.tokenize(text[:200_000])[:CHUNKS * N_CTX]
        assert len(tokens) == CHUNKS * N_CTX
        nlls, chunks = [], []
        for i in range(CHUNKS):
            part = chunk_nlls(peer, tokens[i * N_CTX:(i + 1) * N_CTX])
            chunks.append(float(np.mean(part)))
            nlls.extend(part)
        used = peer.settings()
    mean = float(np.mean(nlls))
    ppl = math.exp(mean)
    spread = math.sqrt((float(np.mean(np.square(nlls))) - mean * mean) / (len(nlls) - 1))
    print(f"{name}: {ppl:.4f} +/- {spread * ppl:.4f}  flash {flash}, {len(nlls)} scored", flush=True)
    return dict(
        model=name,
        file_sha256=llamacpp.sha256(path),
        settings=used,
        tokens_sha256=hashlib.sha256(np.array(tokens, dtype="<u4").tobytes()).hexdigest(),
        ppl=round(ppl, 4),
        stderr=round(spread * ppl, 4),
        scored=len(nlls),
        chunk_mean_nll=[round(c, 6) for c in chunks],
        chunk_ppl=[round(math.exp(c), 4) for c in chunks],
    )


def main():
    raw = pathlib.Path(sys.argv[1]).read_bytes()
    text = raw.decode()
    models = [arg.split("=", 1) for arg in sys.argv[2:]]
    out = dict(
        about="llama.cpp's perplexity on the first chunks of WikiText-2 raw, test part",
        ctx=N_CTX,
        chunks=CHUNKS,
        text_sha256=hashlib.sha256(raw).hexdigest(),
        text_bytes=len(raw),
        tokens_sha256="of the scored chunks' token ids as little-endian u32, before BOS replaces",
        peer=llamacpp.version(),
    )
    rows = [record(name, path, text, flash) for flash in ("off", "on") for name, path in models]
    lines = ",\n  ".join(json.dumps(r) for r in rows)
    text = json.dumps({**out, "models": "@"}, indent=1).replace('"@"', f"[\n  {lines}\n ]")
    json.loads(text)
    (HERE / "ppl.json").write_text(text + "\n")


if __name__ == "__main__":
    main()
