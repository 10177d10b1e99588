#!/usr/bin/env python3
"""Records which type llama.cpp gives to which tensor, for every file type and several shapes.

Makes small GGUF files with random weights of those shapes, has llama.cpp quantize each to every
file type with and without an importance matrix, and writes the types that come out to
tools/convert/tests/data/mixes.json.

    pip install gguf llama-cpp-python
    python tools/peers/mixes.py
"""

import ctypes
import json
import pathlib
import tempfile

import gguf
import llama_cpp
import numpy as np

OUT = pathlib.Path(__file__).resolve().parents[1] / "convert" / "tests" / "data" / "mixes.json"
COLS = 256
SMALL = 96  # no whole blocks of 256
FILE_TYPES = [0, 1, 2, 3, 7, 8, 9, 10, 11, 12, 13, 14, 15, 16, 17, 18, 19, 20, 21, 22, 23, 24, 25, 26]
FILE_TYPES += [27, 28, 29, 30, 31, 32, 36, 37, 38]
SHAPES = [
    dict(name="grouped", arch="llama", layers=32, heads=8, kv=2, experts=0, tied=False),
    dict(name="ungrouped", arch="llama", layers=18, heads=4, kv=4, experts=0, tied=True),
    dict(name="70b", arch="llama", layers=80, heads=8, kv=1, experts=0, tied=False),
    dict(name="experts", arch="llama", layers=16, heads=8, kv=4, experts=8, tied=False),
    dict(name="qwen2", arch="qwen2", layers=24, heads=14, kv=2, experts=0, tied=True),
]


def tensors(shape):
    """Names and shapes, numpy's way round."""
    yield "token_embd.weight", (4, COLS)
    if not shape["tied"]:
        yield "output.weight", (4, COLS)
    yield "output_norm.weight", (COLS,)
    for layer in range(shape["layers"]):
        for part in ("attn_norm", "ffn_norm"):
            yield f"blk.{layer}.{part}.weight", (COLS,)
        for part in ("attn_q", "attn_k", "attn_v", "attn_output"):
            yield f"blk.{layer}.{part}.weight", (4, COLS)
        if shape["experts"]:
            yield f"blk.{layer}.ffn_gate_inp.weight", (shape["experts"], COLS)
            for part in ("ffn_gate_exps", "ffn_up_exps", "ffn_down_exps"):
                yield f"blk.{layer}.{part}.weight", (shape["experts"], 4, COLS)
        else:
            yield f"blk.{layer}.ffn_gate.weight", (4, COLS)
            yield f"blk.{layer}.ffn_up.weight", (4, COLS)
            yield f"blk.{layer}.ffn_down.weight", (4, COLS if layer % 5 else SMALL)


def write(shape, path):
    rng = np.random.default_rng(1)
    writer = gguf.GGUFWriter(path, shape["arch"])
    writer.add_block_count(shape["layers"])
    writer.add_context_length(128)
    writer.add_embedding_length(COLS)
    writer.add_feed_forward_length(COLS)
    writer.add_head_count(shape["heads"])
    writer.add_head_count_kv(shape["kv"])
    writer.add_layer_norm_rms_eps(1e-5)
    writer.add_rope_dimension_count(32)
    if shape["experts"]:
        writer.add_expert_count(shape["experts"])
        writer.add_expert_used_count(2)
    writer.add_vocab_size(4)
    writer.add_tokenizer_model("none")
    for name, dims in tensors(shape):
        writer.add_tensor(name, rng.standard_normal(dims, dtype=np.float32))
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()


def quantize(source, target, file_type, shape, imatrix):
    params = llama_cpp.llama_model_quantize_default_params()
    params.ftype = file_type
    params.nthread = 1
    keep = []
    if imatrix:
        for name, dims in tensors(shape):
            values = np.ones(dims[-1] * (dims[0] if len(dims) == 3 else 1), dtype=np.float32)
            keep.append(values)
            data = values.ctypes.data_as(ctypes.POINTER(ctypes.c_float))
            keep.append(llama_cpp.llama_model_imatrix_data(name.encode(), data, values.size))
        entries = [k for k in keep if isinstance(k, llama_cpp.llama_model_imatrix_data)] + [llama_cpp.llama_model_imatrix_data(None, None, 0)]
        array = (llama_cpp.llama_model_imatrix_data * len(entries))(*entries)
        keep.append(array)
        params.imatrix = array
    failed = llama_cpp.llama_model_quantize(
        str(source).encode(), str(target).encode(), ctypes.byref(params)
    )
    if failed:
        return None
    return {t.name: t.tensor_type.name for t in gguf.GGUFReader(target).tensors}


def main():
    silent = llama_cpp.llama_log_callback(lambda *_: None)
    llama_cpp.llama_log_set(silent, ctypes.c_void_p(0))
    cases = []
    with tempfile.TemporaryDirectory() as folder:
        source, target = pathlib.Path(folder) / "f32.gguf", pathlib.Path(folder) / "out.gguf"
        for shape in SHAPES:
            write(shape, source)
            for imatrix in (False, True):
                for file_type in FILE_TYPES:
                    types = quantize(source, target, file_type, shape, imatrix)
                    # What is the same in all layers is written once.
                    parts = {}
                    for name, ty in (types or {}).items():
                        layer, _, part = name.removeprefix("blk.").partition(".")
                        if name.startswith("blk."):
                            parts.setdefault(part, {}).setdefault(ty, []).append(int(layer))
                        else:
                            parts.setdefault(name, {})[ty] = []
                    kept = {p: t for p, t in parts.items() if "norm" not in p}
                    for part, of in kept.items():
                        if len(of) == 1:
                            kept[part] = next(iter(of))
                    cases.append(dict(shape=shape["name"], file_type=file_type, imatrix=imatrix, types=kept))
    versions = {"llama_cpp_python": llama_cpp.__version__}
    OUT.parent.mkdir(parents=True, exist_ok=True)
    lines = ",\n".join(json.dumps(c, separators=(",", ":")) for c in cases)
    shapes = ",\n".join(json.dumps(s, separators=(",", ":")) for s in SHAPES)
    OUT.write_text(
        f'{{"versions":{json.dumps(versions)},\n"cols":{COLS},"small":{SMALL},\n'
        f'"shapes":[\n{shapes}\n],\n"cases":[\n{lines}\n]}}\n'
    )


if __name__ == "__main__":
    main()
