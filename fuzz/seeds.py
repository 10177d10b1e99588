#!/usr/bin/env python3
"""Fills fuzz/corpus with what the targets begin with: the small files of tests/data, in the form that
each target reads, and checkpoint.dict, the words that the readers of checkpoints know.

    python3 fuzz/seeds.py
"""

import json
import math
import pathlib
import re
import struct

HERE = pathlib.Path(__file__).resolve().parent
DATA = HERE.parent / "tests" / "data"
SIZES = {"F32": 4, "F16": 2, "BF16": 2, "F8_E4M3": 1}
FOLDER = ["config.json", None, "tokenizer.json", "tokenizer_config.json", "adapter_config.json",
          None, "generation_config.json", "chat_template.jinja", "vocab.txt", "README.md"]


def put(target, name, *parts):
    folder = HERE / "corpus" / target
    folder.mkdir(parents=True, exist_ok=True)
    (folder / f"seed-{name}").write_bytes(b"".join(parts))


def read(path):
    return path.read_bytes() if path.is_file() else b""


def as_json(value):
    return json.dumps(value, separators=(",", ":")).encode()


# Checkpoints.


def tensors(folder):
    """What the header says of each tensor, without the offsets."""
    data = (folder / "model.safetensors").read_bytes()
    header = json.loads(data[8:8 + struct.unpack("<Q", data[:8])[0]])
    return {k: dict(dtype=e["dtype"], shape=e["shape"])
            for k, e in header.items() if k != "__metadata__"}


def header(tensors):
    at, all = 0, {}
    for name, entry in tensors.items():
        n = math.prod(entry["shape"]) * SIZES[entry["dtype"]]
        all[name] = entry | {"data_offsets": [at, at + n]}
        at += n
    return as_json(all), at


def folder(name, base, change=None, adapter=None):
    """A folder of two layers. `change` is called with the configuration and the tensors."""
    path = DATA / "checkpoints" / base
    config = json.loads((path / "config.json").read_text())
    config["num_hidden_layers"] = 2
    config["layer_types"] = config.get("layer_types", [])[:2] or None
    parts = [f"{kind}.{i}." for kind in ("layers", "layer") for i in range(2, 64)]
    kept = {k: e for k, e in tensors(path).items() if not any(p in k for p in parts)}
    if change:
        kept = change(config, kept) or kept
    texts = [read(path / file) if file else b"" for file in FOLDER]
    if base == "gemma2":
        # Its tokenizer.model is no text.
        texts[2] = read(DATA / "checkpoints" / "gemma3" / "tokenizer.json")
    texts[0], texts[1] = as_json(config), header(kept)[0]
    if adapter:
        texts[4] = as_json({"peft_type": "LORA", "lora_alpha": 16, "r": 2})
        texts[5] = header(adapter)[0]
    put("checkpoint_folder", name, b"\0".join(texts))


def fp8(config, tensors):
    config["quantization_config"] = {"quant_method": "fp8", "weight_block_size": [16, 16]}
    for name in [name for name in tensors if name.endswith("proj.weight")]:
        tensors[name]["dtype"] = "F8_E4M3"
        blocks = [-(-n // 16) for n in tensors[name]["shape"]]
        tensors[f"{name}_scale_inv"] = {"dtype": "F32", "shape": blocks}


def fused(_config, tensors):
    for layer in range(2):
        for whole, parts in (("self_attn.qkv_proj", ("q", "k", "v")), ("mlp.gate_up_proj", ("gate", "up"))):
            module = whole.split(".")[0]
            parts = [tensors.pop(f"model.layers.{layer}.{module}.{p}_proj.weight") for p in parts]
            shape = [sum(p["shape"][0] for p in parts), parts[0]["shape"][1]]
            tensors[f"model.layers.{layer}.{whole}.weight"] = parts[0] | {"shape": shape}


def rope(**values):
    return lambda config, _: config.update(rope_parameters=values)


def checkpoints():
    for path in sorted((DATA / "checkpoints").iterdir()):
        if not path.is_dir():
            continue
        name = path.name
        head, size = header(dict(list(tensors(path).items())[-2:]))
        put("checkpoint", f"safetensors-{name}", b"\0", struct.pack("<Q", len(head)), head, bytes(size))
        put("checkpoint", f"config-{name}", b"\1", read(path / "config.json"))
        if tokenizer := read(path / "tokenizer.json"):
            settings = read(path / "tokenizer_config.json")
            put("checkpoint", f"tokenizer-{name}", b"\2", tokenizer, b"\0", settings)
        if pieces := read(path / "tokenizer.model"):
            put("checkpoint", f"pieces-{name}", b"\3", pieces)
        if name != "gemma3-27b":
            folder(name, name)
    unigram = {
        "model": {"type": "Unigram", "unk_id": 0, "vocab": [["<unk>", 0.0], ["\u2581a", -1.5]]},
        "normalizer": {"type": "Precompiled", "precompiled_charsmap": "AAAAAA=="},
        "pre_tokenizer": {"type": "Metaspace", "prepend_scheme": "always"},
        "added_tokens": [{"id": 2, "content": "</s>", "special": True}],
        "post_processor": {"type": "TemplateProcessing", "single": [
            {"Sequence": {"id": "A"}}, {"SpecialToken": {"id": "</s>"}}], "pair": []},
    }
    put("checkpoint", "tokenizer-unigram", b"\2", as_json(unigram), b"\0{}")
    put("checkpoint", "adapter", b"\4", as_json({
        "peft_type": "LORA", "lora_alpha": 16, "r": 8, "use_rslora": True, "alpha_pattern": {}}))
    put("checkpoint", "index", b"\5", as_json({
        "weight_map": {"a": "model-00001-of-00002.safetensors"}}))
    folder("fp8", "llama", fp8)
    folder("fused", "llama", fused)
    original = {"original_max_position_embeddings": 32}
    folder("yarn", "qwen2", rope(rope_type="yarn", factor=4.0, **original))
    folder("linear", "qwen3", rope(rope_type="linear", factor=2.0))
    q = "model.layers.0.self_attn.q_proj"
    rows, cols = tensors(DATA / "checkpoints" / "llama")[f"{q}.weight"]["shape"]
    folder("lora", "llama", adapter={
        f"base_model.model.{q}.lora_A.weight": {"dtype": "F32", "shape": [2, cols]},
        f"base_model.model.{q}.lora_B.weight": {"dtype": "F32", "shape": [rows, 2]}})


def dictionary():
    """Keys and values that the converter's source names, quoted as in JSON."""
    words = {"null", "true", "false", "{}", "[]", "-1", "0", "1e999", "18446744073709551615"}
    for path in (HERE.parent / "tools" / "convert" / "src" / "checkpoint").rglob("*.rs"):
        words |= set(re.findall(r'"[A-Za-z_][A-Za-z0-9_]*"', path.read_text()))
    quoted = (word.replace('"', '\\"') for word in sorted(words))
    text = "".join(f'"{word}"\n' for word in quoted)
    (HERE / "corpus" / "checkpoint.dict").write_text(text)


# GGUF files.


def text(value):
    return struct.pack("<Q", len(value)) + value.encode()


def skip(data, at, ty):
    """Where a value of a type ends."""
    if ty == 8:
        return at + 8 + struct.unpack_from("<Q", data, at)[0]
    if ty == 9:
        ty, n = struct.unpack_from("<IQ", data, at)
        at += 12
        for _ in range(n):
            at = skip(data, at, ty)
        return at
    return at + {0: 1, 1: 1, 2: 2, 3: 2, 7: 1, 10: 8, 11: 8, 12: 8}.get(ty, 4)


def headers(data):
    """A file without its tensors, and one without their data."""
    (n_tensors, n), at = struct.unpack_from("<QQ", data, 8), 24
    for _ in range(n):
        at = skip(data, at, 8)
        at = skip(data, at + 4, struct.unpack_from("<I", data, at)[0])
    keys = data[:8] + bytes(8) + data[16:at] + bytes(-at % 32)
    for _ in range(n_tensors):
        at = skip(data, at, 8)
        at += 16 + 8 * struct.unpack_from("<I", data, at)[0]
    return keys, data[:at] + bytes(-at % 32)


def ggufs():
    for path in sorted((DATA / "archs").glob("*.gguf")):
        head, whole = headers(path.read_bytes())
        put("gguf", path.stem, whole)
        put("gguf", f"{path.stem}-keys", head)
        # Of 256 parts, 250 are the file.
        sample = "Hello there, 1234 the one in <s> x " * 100
        n = next(n for n in range(len(sample)) if (len(head) + n) * 250 // 256 == len(head))
        put("tokenizer_vocab", path.stem, bytes([250]), head, sample[:n].encode())


def imatrices():
    def entry(name, matrices):
        shapes = ((".in_sum2", [4, matrices]), (".counts", [1, matrices]))
        return [(name + suffix, shape) for suffix, shape in shapes]

    # Counts, which follow the sums, are large enough for a sketch.
    first = {"sketch": 3000}
    for name, entries in (("one", entry("blk.0.ffn_down.weight", 1)),
                          ("experts", entry("blk.0.ffn_up_exps.weight", 3) + entry("q", 1)),
                          ("sketch", entry("q", 1) + [("q.in_sketch", [64, 4])])):
        info, body = b"", b""
        for tensor, shape in entries:
            info += text(tensor) + struct.pack("<IQQIQ", 2, *shape, 0, len(body))
            start, n = first.get(name, 1), math.prod(shape)
            values = struct.pack(f"<{n}f", *range(start, start + n))
            body += values + bytes(-len(values) % 32)
        keys = text("general.type") + struct.pack("<I", 8) + text("imatrix")
        keys += text("imatrix.datasets") + struct.pack("<IIQ", 9, 8, 1) + text("a.txt")
        keys += text("imatrix.chunk_size") + struct.pack("<II", 4, 512)
        head = b"GGUF" + struct.pack("<IQQ", 3, len(entries), 3) + keys + info
        put("imatrix", name, head, bytes(-len(head) % 32), body)
    old = struct.pack("<ii", 2, 1) + b"a" + struct.pack("<iiff", 3, 2, 1.0, 2.0)
    old += struct.pack("<i", 1) + b"b" + struct.pack("<iif", 0, 1, 0.5)
    put("imatrix", "legacy", old)
    put("imatrix", "legacy-with-dataset", old, struct.pack("<ii", 3, 5), b"a.txt")


# Texts.


def strings(value):
    if isinstance(value, str):
        yield value
    for inner in value.values() if isinstance(value, dict) else value if isinstance(value, list) else ():
        yield from strings(inner)


def texts():
    for path in sorted((DATA / "templates").glob("*.jinja")):
        put("chat_template", path.stem, path.read_bytes())
    for path in sorted((DATA / "templates").glob("*.json")):
        templates = {s for s in strings(json.loads(path.read_text())) if "{%" in s or "{{" in s}
        for i, template in enumerate(sorted(templates)):
            put("chat_template", f"{path.stem}-{i}", template.encode())
    samples = ["Hello there, 1234 'tis I'm the one\n\n  x", "é日本語 😀 e\u0301", "<tool> a aaaa <|end|>",
               "\u2581a\u2581\u2581 b"]
    # As many tokenizers as the target has; bit 7 lets special tokens be found.
    for which in range(26):
        for i, sample in enumerate(samples):
            put("tokenizer_text", f"{which}-{i}", bytes([which + 128 * (i % 2)]), sample.encode())


if __name__ == "__main__":
    checkpoints()
    dictionary()
    ggufs()
    imatrices()
    texts()
