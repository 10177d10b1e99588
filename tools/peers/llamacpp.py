"""llama.cpp through llama-cpp-python's low-level calls, with every setting spelled out.

The recordings and the benchmark must know exactly what was run, so nothing here relies on a
default that a later version might change: threads, batch sizes, KV type and flash attention are
all arguments, and `settings()` returns what was used, ready to be written beside a figure.
"""

import ctypes
import hashlib
import importlib.metadata
import time

import llama_cpp as ll
import numpy as np

KV_TYPES = {"f32": 0, "f16": 1, "q8_0": 8}
FLASH = {"auto": -1, "off": 0, "on": 1}

_messages = []


@ll.llama_log_callback
def _collect(_level, text, _user):
    """llama.cpp talks on standard error; keep the last lines for an error instead."""
    _messages.append(text.decode("utf-8", "replace"))
    del _messages[:-200]


ll.llama_log_set(_collect, None)
ll.llama_backend_init()


def version():
    """The binding's version, and ggml's own build flags."""
    return {
        "llama_cpp_python": importlib.metadata.version("llama-cpp-python"),
        "system_info": ll.llama_print_system_info().decode().strip(),
    }


def sha256(path):
    with open(path, "rb") as f:
        return hashlib.file_digest(f, "sha256").hexdigest()


class Peer:
    """One model and one context."""

    def __init__(self, path, *, n_ctx, n_batch=None, threads=2, kv="f16", flash="off"):
        self.path = str(path)
        # A model or context that failed to load has nothing to free.
        self.model = self.ctx = None
        mp = ll.llama_model_default_params()
        mp.n_gpu_layers = 0
        self.model = ll.llama_model_load_from_file(self.path.encode(), mp)
        if not self.model:
            raise RuntimeError(f"llama.cpp cannot load {self.path}: {''.join(_messages[-8:])}")
        self.vocab = ll.llama_model_get_vocab(self.model)
        self.n_vocab = ll.llama_vocab_n_tokens(self.vocab)

        cp = ll.llama_context_default_params()
        cp.n_ctx = n_ctx
        cp.n_batch = cp.n_ubatch = n_batch or n_ctx
        cp.n_seq_max = 1
        cp.n_threads = cp.n_threads_batch = threads
        cp.type_k = cp.type_v = KV_TYPES[kv]
        cp.flash_attn_type = FLASH[flash]
        self.n_batch = cp.n_batch
        self._settings = {
            "n_ctx": n_ctx,
            "n_batch": cp.n_batch,
            "n_ubatch": cp.n_ubatch,
            "n_threads": threads,
            "kv": kv,
            "flash_attn": flash,
            "swa_full": bool(cp.swa_full),
        }
        self.ctx = ll.llama_init_from_model(self.model, cp)
        if not self.ctx:
            raise RuntimeError(f"no context for {self.path}: {''.join(_messages[-8:])}")

    def close(self):
        if self.ctx:
            ll.llama_free(self.ctx)
        if self.model:
            ll.llama_model_free(self.model)
        self.ctx = self.model = None

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self.close()

    def settings(self):
        return dict(self._settings)

    @property
    def add_bos(self):
        return bool(ll.llama_vocab_get_add_bos(self.vocab))

    @property
    def bos(self):
        return ll.llama_vocab_bos(self.vocab)

    def is_end(self, token):
        return bool(ll.llama_vocab_is_eog(self.vocab, token))

    def tokenize(self, text, *, bos=True, special=False):
        """Token ids; `bos` adds the BOS token only where the model asks for one."""
        raw = text.encode()
        room = len(raw) + 8
        out = (ll.llama_token * room)()
        n = ll.llama_tokenize(self.vocab, raw, len(raw), out, room, bos, special)
        if n < 0:
            raise RuntimeError(f"tokenizing {len(raw)} bytes needs {-n} slots")
        return list(out[:n])

    def detokenize(self, tokens):
        """The bytes of the tokens as text; incomplete UTF-8 at the end is replaced."""
        parts = []
        for t in tokens:
            buf = ctypes.create_string_buffer(256)
            n = ll.llama_token_to_piece(self.vocab, t, buf, len(buf), 0, True)
            parts.append(buf.raw[:max(n, 0)])
        return b"".join(parts).decode("utf-8", "replace")

    def clear(self):
        ll.llama_memory_clear(ll.llama_get_memory(self.ctx), True)

    def rewind(self, n):
        """Forgets what comes after the first `n` positions; false where they are not all held."""
        memory = ll.llama_get_memory(self.ctx)
        if n == 0 or ll.llama_memory_seq_pos_max(memory, 0) < n - 1:
            return False
        return (ll.llama_memory_seq_rm(memory, 0, n, -1)
                and ll.llama_memory_seq_pos_min(memory, 0) == 0)

    def run(self, tokens):
        """Appends tokens and computes, but does not copy, the last one's logits: for timing."""
        for at in range(0, len(tokens), self.n_batch):
            part = tokens[at:at + self.n_batch]
            ids = (ll.llama_token * len(part))(*part)
            rc = ll.llama_decode(self.ctx, ll.llama_batch_get_one(ids, len(part)))
            if rc != 0:
                raise RuntimeError(f"llama_decode returned {rc}: {''.join(_messages[-8:])}")
        ll.llama_synchronize(self.ctx)

    def decode(self, tokens, *, start=0, outputs="all"):
        """Runs tokens at positions start.. and returns the logits asked for.

        `outputs` is "all" (an array [len(tokens), n_vocab]), "last" ([1, n_vocab]) or "none".
        """
        rows = []
        for at in range(0, len(tokens), self.n_batch):
            part = tokens[at:at + self.n_batch]
            wanted = self._decode_batch(part, start + at, outputs, at + len(part) == len(tokens))
            for i in wanted:
                p = ll.llama_get_logits_ith(self.ctx, i)
                rows.append(np.ctypeslib.as_array(p, shape=(self.n_vocab,)).copy())
        return np.stack(rows) if rows else None

    def _decode_batch(self, tokens, start, outputs, is_end):
        batch = ll.llama_batch_init(len(tokens), 0, 1)
        try:
            batch.n_tokens = len(tokens)
            wanted = []
            for i, t in enumerate(tokens):
                keep = outputs == "all" or (outputs == "last" and is_end and i + 1 == len(tokens))
                batch.token[i] = t
                batch.pos[i] = start + i
                batch.n_seq_id[i] = 1
                batch.seq_id[i][0] = 0
                batch.logits[i] = keep
                if keep:
                    wanted.append(i)
            rc = ll.llama_decode(self.ctx, batch)
            if rc != 0:
                raise RuntimeError(f"llama_decode returned {rc}: {''.join(_messages[-8:])}")
            return wanted
        finally:
            ll.llama_batch_free(batch)


def log_softmax(logits):
    """Rows of log-probabilities, in float64."""
    x = np.asarray(logits, dtype=np.float64)
    x = x - x.max(axis=-1, keepdims=True)
    return x - np.log(np.exp(x).sum(axis=-1, keepdims=True))


def quantize(source, target, file_type, threads=2, imatrix=None):
    """Has llama.cpp quantize a GGUF file to the file type with this number (`llama_ftype`).

    `imatrix` gives an array of float32 for names of tensors. Returns the seconds that it took, or
    None where llama.cpp refuses.
    """
    params = ll.llama_model_quantize_default_params()
    params.ftype = file_type
    params.nthread = threads
    if imatrix:
        entry = ll.llama_model_imatrix_data
        pointer = ctypes.POINTER(ctypes.c_float)
        entries = [
            entry(name.encode(), values.ctypes.data_as(pointer), values.size)
            for name, values in imatrix.items()
        ]
        # The end of the list; the array keeps what it points to alive until the call is over.
        array = (entry * (len(entries) + 1))(*entries, entry(None, None, 0))
        params.imatrix = array
    start = time.perf_counter()
    failed = ll.llama_model_quantize(
        str(source).encode(), str(target).encode(), ctypes.byref(params)
    )
    return None if failed else time.perf_counter() - start
