#!/usr/bin/env python3
"""The truth that quantized runtimes are measured against: the file's weights, computed in float32.

A GGUF's tensors are unpacked to float32 and given to `transformers`, so what remains of a runtime's
divergence is its own arithmetic (8-bit activations, 16-bit caches) and not the file's quantization.
For each prompt the full log-probabilities of every position go to DIR/MODEL.npy, about 4 bytes x
positions x vocabulary, and the token ids to DIR/MODEL.json.

    pip install torch transformers gguf llama-cpp-python
    python tools/peers/reference.py -o DIR smollm2=FILE gemma3=FILE qwen=FILE
"""

import argparse
import importlib.metadata
import json
import pathlib
import time

import gguf
import numpy as np
import torch
import transformers

import llamacpp

ROOT = pathlib.Path(__file__).resolve().parents[2]
PROMPTS = ROOT / "tests" / "data" / "kl" / "prompts.json"


def field(reader, key, default=None):
    f = reader.fields.get(key)
    return default if f is None else f.contents()


def configuration(reader):
    """The transformers configuration that the file's metadata describes."""
    arch = field(reader, "general.architecture")
    shapes = {t.name: t.shape.tolist() for t in reader.tensors}

    def key(name, default=None):
        return field(reader, f"{arch}.{name}", default)

    n_embd, n_head = key("embedding_length"), key("attention.head_count")
    head_dim = key("attention.key_length", n_embd // n_head)
    theta = key("rope.freq_base", 10000.0)
    if "rope_freqs.weight" in shapes or key("rope.scaling.type", "none") != "none":
        raise SystemExit("scaled rotary positions are not written here yet")
    common = dict(
        vocab_size=shapes["token_embd.weight"][1],
        hidden_size=n_embd,
        intermediate_size=key("feed_forward_length"),
        num_hidden_layers=key("block_count"),
        num_attention_heads=n_head,
        num_key_value_heads=key("attention.head_count_kv", n_head),
        max_position_embeddings=key("context_length"),
        rms_norm_eps=key("attention.layer_norm_rms_epsilon"),
        tie_word_embeddings="output.weight" not in shapes,
        attn_implementation="eager",
    )
    rope = {"rope_type": "default", "rope_theta": theta}
    if arch == "llama":
        return arch, transformers.LlamaForCausalLM, transformers.LlamaConfig(
            **common, head_dim=head_dim, rope_parameters=rope)
    if arch == "qwen2":
        return arch, transformers.Qwen2ForCausalLM, transformers.Qwen2Config(
            **common, rope_parameters=rope)
    if arch == "gemma3":
        local = rope | {"rope_theta": key("rope.freq_base_swa", 10000.0)}
        return arch, transformers.Gemma3ForCausalLM, transformers.Gemma3TextConfig(
            **common, head_dim=head_dim, query_pre_attn_scalar=head_dim,
            sliding_window=key("attention.sliding_window"),
            rope_parameters={"sliding_attention": local, "full_attention": rope})
    raise SystemExit(f"no float32 reference for {arch} yet")


def unpermute(w, n_head):
    """Puts a llama's q and k rows back as Hugging Face has them; undoes the converter."""
    shape = w.shape
    return w.reshape(n_head, shape[0] // n_head // 2, 2, *shape[1:]).swapaxes(1, 2).reshape(shape)


def load(path):
    reader = gguf.GGUFReader(path)
    arch, kind, config = configuration(reader)
    with torch.device("meta"):
        model = kind(config)
    names = gguf.get_tensor_name_map(
        {v: k for k, v in gguf.MODEL_ARCH_NAMES.items()}[arch], config.num_hidden_layers)
    tensors = {t.name: t for t in reader.tensors}
    state, used = {}, set()
    for name in model.state_dict():
        if name == "lm_head.weight" and config.tie_word_embeddings:
            continue
        stored = names.get_name(name, try_suffixes=(".weight", ".bias"))
        t = tensors[stored]
        used.add(stored)
        w = gguf.quants.dequantize(t.data, t.tensor_type).astype(np.float32)
        w = w.reshape(t.shape.tolist()[::-1])
        if arch == "llama" and ".q_proj." in name:
            w = unpermute(w, config.num_attention_heads)
        if arch == "llama" and ".k_proj." in name:
            w = unpermute(w, config.num_key_value_heads)
        if arch == "gemma3" and name.endswith("norm.weight"):
            w = w - np.float32(1.0)
        state[name] = torch.from_numpy(np.ascontiguousarray(w))
    unused = set(tensors) - used
    assert not unused, f"tensors that the model did not take: {sorted(unused)}"
    model = kind(config)
    missing, unexpected = model.load_state_dict(state, strict=False)
    assert not unexpected and set(missing) <= {"lm_head.weight"}, (missing, unexpected)
    model.tie_weights()
    return model.float().eval()


def prompt_tokens(path):
    """Each prompt's ids, with BOS where the model wants one."""
    with llamacpp.Peer(path, n_ctx=32, threads=1) as peer:
        return {p["name"]: peer.tokenize(p["text"])
                for p in json.loads(PROMPTS.read_text())}


def main():
    a = argparse.ArgumentParser(description="Float32 log-probabilities of GGUF files.")
    a.add_argument("-o", "--output", required=True, help="folder for MODEL.npy and MODEL.json")
    a.add_argument("-t", "--threads", type=int, default=1)
    a.add_argument("models", nargs="+", metavar="NAME=FILE")
    args = a.parse_args()
    torch.set_num_threads(args.threads)
    out = pathlib.Path(args.output)
    out.mkdir(parents=True, exist_ok=True)
    for spec in args.models:
        name, path = spec.split("=", 1)
        start = time.monotonic()
        prompts = prompt_tokens(path)
        model = load(path)
        rows = sum(map(len, prompts.values()))
        store = np.lib.format.open_memmap(out / f"{name}.npy", mode="w+", dtype=np.float32,
                                          shape=(rows, model.config.vocab_size))
        at = 0
        for tokens in prompts.values():
            with torch.no_grad():
                logits = model(torch.tensor([tokens])).logits[0]
            store[at:at + len(tokens)] = torch.log_softmax(logits.double(), -1).float().numpy()
            at += len(tokens)
        store.flush()
        (out / f"{name}.json").write_text(json.dumps({
            "model": name,
            "file_sha256": llamacpp.sha256(path),
            "torch": torch.__version__,
            "transformers": transformers.__version__,
            "gguf": importlib.metadata.version("gguf"),
            "prompts": prompts,
        }) + "\n")
        print(f"{name}: {rows} positions, {time.monotonic() - start:.0f} s", flush=True)


if __name__ == "__main__":
    main()
