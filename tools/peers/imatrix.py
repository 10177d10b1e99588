#!/usr/bin/env python3
"""Importance matrices beside llama.cpp's: how far the sums of squares of each tensor are apart.

llama.cpp's `imatrix` tool sums what it sees through the scheduler's callback; the same is done here
through llama-cpp-python, over the same chunks, so that the tool need not be built. What is left
between the two are the runtimes' own roundings.

    python tools/peers/imatrix.py -m MODEL.gguf -f TEXT --chunks 4 --siskin target/release/siskin
"""

import argparse
import ctypes
import pathlib
import subprocess
import sys
import tempfile

import gguf
import llama_cpp as ll
import numpy as np

import llamacpp

CTX = 512


class Tensor(ctypes.Structure):
    """ggml_tensor, up to its name."""


Tensor._fields_ = [
    ("type", ctypes.c_int), ("buffer", ctypes.c_void_p), ("ne", ctypes.c_int64 * 4),
    ("nb", ctypes.c_size_t * 4), ("op", ctypes.c_int), ("op_params", ctypes.c_int32 * 16),
    ("flags", ctypes.c_int32), ("src", ctypes.POINTER(Tensor) * 10),
    ("view_src", ctypes.c_void_p), ("view_offs", ctypes.c_size_t), ("data", ctypes.c_void_p),
    ("name", ctypes.c_char * 64),
]

F32 = 0


class Sums:
    """The sums of squares of what 2-dimensional weights of layers are multiplied with."""

    def __init__(self):
        self.sums, self.counts = {}, {}
        base = next(pathlib.Path(ll.__file__).parent.glob("lib/libggml-base.so"))
        self.op_name = ctypes.CDLL(str(base)).ggml_op_name
        self.op_name.restype = ctypes.c_char_p
        self.callback = ll.ggml_backend_sched_eval_callback(self.see)

    def see(self, tensor, ask, _user):
        t = ctypes.cast(tensor, ctypes.POINTER(Tensor)).contents
        if self.op_name(t.op) != b"MUL_MAT":
            return not ask
        name, x = t.src[0].contents.name.decode(), t.src[1].contents
        if not name.startswith("blk.") or x.type != F32:
            return not ask
        if not ask:
            rows, cols = x.ne[1], x.ne[0]
            raw = ctypes.string_at(x.data, x.nb[1] * rows)
            values = np.ndarray((rows, cols), np.float32, raw, strides=(x.nb[1], 4))
            squares = (values.astype(np.float64) ** 2).sum(axis=0)
            self.sums[name] = self.sums.get(name, 0) + squares
            self.counts[name] = self.counts.get(name, 0) + rows
        return True


class Collecting(llamacpp.Peer):
    """A context that shows what it computes."""

    def __init__(self, path, sums, threads):
        default = ll.llama_context_default_params

        def params():
            cp = default()
            cp.cb_eval = sums.callback
            return cp

        ll.llama_context_default_params = params
        try:
            super().__init__(path, n_ctx=CTX, threads=threads)
        finally:
            ll.llama_context_default_params = default


def main():
    a = argparse.ArgumentParser(description="Importance matrices beside llama.cpp's.")
    a.add_argument("-m", "--model", required=True)
    a.add_argument("-f", "--file", required=True)
    a.add_argument("--chunks", type=int, default=4)
    a.add_argument("-t", "--threads", type=int, default=2)
    a.add_argument("--siskin", required=True, help="the siskin command")
    args = a.parse_args()

    sums = Sums()
    with Collecting(args.model, sums, args.threads) as peer:
        tokens = peer.tokenize(pathlib.Path(args.file).read_text())
        for at in range(0, args.chunks * CTX, CTX):
            chunk = tokens[at:at + CTX]
            if peer.add_bos:
                chunk[0] = peer.bos
            peer.clear()
            # Of a token whose logits are not wanted, the last layer computes nothing more.
            peer.decode(chunk)
    with tempfile.TemporaryDirectory() as d:
        out = pathlib.Path(d) / "imatrix.gguf"
        command = [args.siskin, "imatrix", "-m", args.model, "-f", args.file, "-o", str(out),
                   "-c", str(CTX), "--chunks", str(args.chunks), "-t", str(args.threads)]
        done = subprocess.run(command, capture_output=True, text=True)
        if done.returncode != 0:
            sys.exit(f"siskin imatrix exited with {done.returncode}: {done.stderr[-2000:]}")
        tensors = {t.name: np.array(t.data) for t in gguf.GGUFReader(out).tensors}

    names = {name.removesuffix(".in_sum2") for name in tensors if name.endswith(".in_sum2")}
    if names != set(sums.sums):
        sys.exit(f"other tensors: {sorted(names ^ set(sums.sums))[:10]}")
    worst = []
    for name, want in sums.sums.items():
        got = tensors[f"{name}.in_sum2"].reshape(-1).astype(np.float64)
        if tensors[f"{name}.counts"].item() != sums.counts[name]:
            sys.exit(f"{name}: {tensors[f'{name}.counts']} tokens, not {sums.counts[name]}")
        worst.append((float(np.abs(got - want).sum() / want.sum()), name))
    worst.sort(reverse=True)
    differences = [difference for difference, _ in worst]
    print(f"{len(worst)} tensors; sum |a - b| / sum b: mean {np.mean(differences):.3%}, largest:")
    for difference, name in worst[:5]:
        print(f"  {difference:8.3%}  {name}")


if __name__ == "__main__":
    main()
