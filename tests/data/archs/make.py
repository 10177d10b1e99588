#!/usr/bin/env python3
"""Makes the architecture fixtures: tiny random models with the logits `transformers` computes.

For each case: a model of a few thousand weights from a fixed seed, its logits over one token
sequence computed in float32 by `transformers`, and the same weights as an f32 GGUF with the names,
permutations and metadata that llama.cpp's converter writes. Each file is then run by llama.cpp,
which must agree, so a mistake of this script cannot become the truth that Siskin is tested with.

Every case also lists what it is there to catch. Each such feature is taken away from the
`transformers` model in turn and the logits must move by far more than the test's tolerance;
otherwise the fixture could not fail, and the script stops.

    pip install torch transformers gguf llama-cpp-python
    python tests/data/archs/make.py            # writes beside itself
"""

import importlib.metadata
import json
import math
import pathlib
import sys

import gguf
import numpy as np
import torch
import transformers

HERE = pathlib.Path(__file__).resolve().parent
sys.path.insert(0, str(HERE.parents[2] / "tools" / "peers"))
import llamacpp  # noqa: E402

N_VOCAB = 96
N_TOKENS = 40
PEER_TOLERANCE = 1e-3
# An ablation must move some logit by this much, in units of the logits' own spread.
MIN_EFFECT = 0.02


def base(**over):
    return dict(
        vocab_size=N_VOCAB,
        num_hidden_layers=2,
        num_attention_heads=4,
        num_key_value_heads=2,
        max_position_embeddings=256,
        rms_norm_eps=1e-5,
        bos_token_id=0,
        eos_token_id=1,
        pad_token_id=None,
    ) | over


def rope(theta, **more):
    return {"rope_type": "default", "rope_theta": theta} | more


LLAMA3_ROPE = rope(
    500000.0,
    rope_type="llama3",
    factor=8.0,
    low_freq_factor=1.0,
    high_freq_factor=4.0,
    original_max_position_embeddings=64,
)


def gemma3_rope(local, full):
    return {"sliding_attention": rope(local), "full_attention": full}


# `key_length` and `freq_base_swa` say whether the file has that key: older converters left the
# first out where it equals n_embd / n_head, and the second for Gemma 3 (the default is 10000).
CASES = [
    dict(
        name="llama",
        arch="llama",
        kind="Llama",
        about="grouped queries, untied output, no key_length in the file",
        config=base(hidden_size=64, intermediate_size=40, rope_parameters=rope(10000.0)),
        tied=False,
        key_length=False,
        ablate={"rope base": {"rope_parameters": rope(500000.0)}},
    ),
    dict(
        name="llama3-rope",
        arch="llama",
        kind="Llama",
        about="Llama 3 rope factors (rope_freqs.weight), tied, 3 query heads on 1 KV head",
        config=base(
            hidden_size=48,
            intermediate_size=56,
            num_attention_heads=3,
            num_key_value_heads=1,
            head_dim=32,
            rope_parameters=LLAMA3_ROPE,
        ),
        tied=True,
        ablate={
            "rope factors": {"rope_parameters": rope(500000.0)},
            "smoothing": {"rope_parameters": LLAMA3_ROPE | {"high_freq_factor": 1.001}},
        },
    ),
    dict(
        name="llama-bias",
        arch="llama",
        kind="Llama",
        about="biases on q, k, v, o and the feed-forward, permuted with q and k; plain multi-head",
        config=base(
            hidden_size=48,
            intermediate_size=40,
            num_attention_heads=3,
            num_key_value_heads=3,
            attention_bias=True,
            mlp_bias=True,
            rope_parameters=rope(10000.0),
        ),
        tied=True,
        ablate={"bias": "zero:bias"},
    ),
    dict(
        name="mistral",
        arch="llama",
        kind="Mistral",
        about="heads wider than n_embd / n_head (Mistral Nemo), untied, rope base 1e6",
        config=base(
            hidden_size=48,
            intermediate_size=72,
            num_attention_heads=2,
            num_key_value_heads=1,
            head_dim=32,
            sliding_window=None,
            rope_parameters=rope(1e6),
        ),
        tied=False,
        ablate={"rope base": {"rope_parameters": rope(10000.0)}},
    ),
    dict(
        name="qwen2",
        arch="qwen2",
        kind="Qwen2",
        about="biases on q, k and v, tied",
        config=base(
            hidden_size=64,
            intermediate_size=40,
            rms_norm_eps=1e-6,
            rope_parameters=rope(1e6),
        ),
        tied=True,
        key_length=False,
        ablate={"bias": "zero:bias", "rope base": {"rope_parameters": rope(10000.0)}},
    ),
    dict(
        name="qwen2-untied",
        arch="qwen2",
        kind="Qwen2",
        about="untied output, as in Qwen2.5-Coder 0.5B; 7 query heads on 1 KV head",
        config=base(
            hidden_size=56,
            intermediate_size=40,
            num_attention_heads=7,
            num_key_value_heads=1,
            rms_norm_eps=1e-6,
            rope_parameters=rope(1e6),
        ),
        tied=False,
        key_length=False,
        ablate={"bias": "zero:bias"},
    ),
    dict(
        name="qwen3",
        arch="qwen3",
        kind="Qwen3",
        about="norms on q and k, heads wider than n_embd / n_head, tied",
        config=base(
            hidden_size=48,
            intermediate_size=40,
            head_dim=32,
            rms_norm_eps=1e-6,
            rope_parameters=rope(1e6),
        ),
        tied=True,
        ablate={"q and k norm weights": "one:_norm.weight"},
    ),
    dict(
        name="qwen3-untied",
        arch="qwen3",
        kind="Qwen3",
        about="untied output",
        config=base(
            hidden_size=32,
            intermediate_size=40,
            head_dim=16,
            rms_norm_eps=1e-6,
            rope_parameters=rope(1e6),
        ),
        tied=False,
        ablate={"q and k norm weights": "one:_norm.weight"},
    ),
    dict(
        name="gemma2",
        arch="gemma2",
        kind="Gemma2",
        about="soft caps on attention and output, a window of 8 on layers 0 and 2, post-norms",
        config=base(
            hidden_size=32,
            intermediate_size=48,
            num_hidden_layers=4,
            head_dim=16,
            query_pre_attn_scalar=16,
            attn_logit_softcapping=2.0,
            final_logit_softcapping=6.0,
            sliding_window=8,
            rms_norm_eps=1e-6,
            rope_parameters=rope(10000.0),
        ),
        tied=True,
        ablate={
            "window": {"sliding_window": 64},
            "window by one": {"sliding_window": 9},
            "attention cap": {"attn_logit_softcapping": None},
            "output cap": {"final_logit_softcapping": None},
        },
    ),
    dict(
        name="gemma2-27b",
        arch="gemma2",
        kind="Gemma2",
        about="46 layers, which is how a reader knows that queries scale by n_embd / n_head",
        config=base(
            hidden_size=16,
            intermediate_size=8,
            num_hidden_layers=46,
            num_attention_heads=2,
            num_key_value_heads=1,
            head_dim=4,
            query_pre_attn_scalar=8,
            attn_logit_softcapping=50.0,
            final_logit_softcapping=30.0,
            sliding_window=16,
            rms_norm_eps=1e-6,
            rope_parameters=rope(10000.0),
        ),
        tied=True,
        ablate={"query scale": {"query_pre_attn_scalar": 4}},
    ),
    dict(
        name="gemma3",
        arch="gemma3",
        kind="Gemma3Text",
        about="7 layers, the 6th global; a window of 8; two rope bases, the local one the default",
        config=base(
            hidden_size=32,
            intermediate_size=24,
            num_hidden_layers=7,
            num_key_value_heads=1,
            head_dim=16,
            query_pre_attn_scalar=16,
            sliding_window=8,
            rms_norm_eps=1e-6,
            rope_parameters=gemma3_rope(10000.0, rope(1e6)),
        ),
        tied=True,
        freq_base_swa=False,
        ablate={
            "window": {"sliding_window": 64},
            "window by one": {"sliding_window": 9},
            "local rope base": {"rope_parameters": gemma3_rope(1e6, rope(1e6))},
            "global rope base": {"rope_parameters": gemma3_rope(10000.0, rope(10000.0))},
            "q and k norm weights": "zero:_norm.weight",
            "global layer": {"layer_types": ["sliding_attention"] * 7},
        },
    ),
    dict(
        name="gemma3-27b",
        arch="gemma3",
        kind="Gemma3Text",
        about="62 layers, so queries scale by n_embd / n_head; global layers with positions / 8; "
        "a local rope base that the file names",
        config=base(
            hidden_size=16,
            intermediate_size=8,
            num_hidden_layers=62,
            num_attention_heads=2,
            num_key_value_heads=1,
            head_dim=4,
            query_pre_attn_scalar=8,
            sliding_window=16,
            rms_norm_eps=1e-6,
            rope_parameters=gemma3_rope(2000.0, rope(1e6, rope_type="linear", factor=8.0)),
        ),
        tied=True,
        ablate={
            "query scale": {"query_pre_attn_scalar": 4},
            "rope scaling": {"rope_parameters": gemma3_rope(2000.0, rope(1e6))},
            "local rope base": {
                "rope_parameters": gemma3_rope(10000.0, rope(1e6, rope_type="linear", factor=8.0))
            },
        },
    ),
]


def is_norm(name):
    return name.endswith("norm.weight")


def build(case, over=None):
    """The transformers model of a case, with its weights; `over` changes the configuration."""
    config = getattr(transformers, case["kind"].replace("Text", "") + (
        "TextConfig" if case["kind"].endswith("Text") else "Config"
    ))(**(case["config"] | {"tie_word_embeddings": case["tied"]} | (over or {})))
    config._attn_implementation = "eager"
    name = case["kind"].removesuffix("Text") + "ForCausalLM"
    return getattr(transformers, name)(config).float().eval()


def randomize(model, case, seed):
    """Weights that make every part of the model show in the logits.

    The usual 0.02 would leave attention nearly uniform and the soft caps idle.
    """
    gen = torch.Generator().manual_seed(seed)
    gemma = case["arch"].startswith("gemma")
    deep = model.config.num_hidden_layers > 8
    with torch.no_grad():
        for name, p in sorted(model.named_parameters()):
            r = torch.randn(p.shape, generator=gen)
            if is_norm(name):
                # Gemma stores the norm's weight less one. Deep models are damped, so that
                # rounding is not amplified over 46 or 62 layers.
                post = "post_" in name and gemma
                centre = (0.1 if deep else 0.6) if post else 1.0
                p.copy_(centre + 0.2 * centre * r - (1.0 if gemma else 0.0))
            elif name.endswith("bias"):
                p.copy_(0.5 * r)
            elif "embed_tokens" in name:
                p.copy_(0.35 * r if gemma else 0.6 * r)
            else:
                gain = 2.0 if ("q_proj" in name or "k_proj" in name) else 1.3
                p.copy_(gain / math.sqrt(p.shape[1]) * r)


def ablated(model, case, change):
    """The model without one feature, with the same weights."""
    over = change if isinstance(change, dict) else None
    other = build(case, over)
    other.load_state_dict(model.state_dict())
    if over is None:
        action, suffix = change.split(":")
        with torch.no_grad():
            for name, p in other.named_parameters():
                part = "self_attn" in name or suffix == "bias"
                if part and name.endswith(suffix):
                    p.fill_(1.0 if action == "one" else 0.0)
    return other


def logits_of(model, tokens):
    with torch.no_grad():
        return model(torch.tensor([tokens])).logits[0].float().numpy()


class PeerGelu(torch.nn.Module):
    """GELU as llama.cpp computes it on a CPU: looked up by, and stored as, a half."""

    def forward(self, x):
        y = torch.nn.functional.gelu(x.half().float(), approximate="tanh").half().float()
        return torch.where(x <= -10, torch.zeros_like(x), torch.where(x >= 10, x, y))


def peer_logits(model, case, tokens):
    """What llama.cpp should give: the reference, but for its table of GELU."""
    if not case["arch"].startswith("gemma"):
        return logits_of(model, tokens)
    other = build(case)
    other.load_state_dict(model.state_dict())
    for layer in other.model.layers:
        layer.mlp.act_fn = PeerGelu()
    return logits_of(other, tokens)


def permute(w, n_head):
    """Hugging Face keeps a head's two halves apart; the GGUF of a llama interleaves them."""
    shape = w.shape
    return w.reshape(n_head, 2, shape[0] // n_head // 2, *shape[1:]).swapaxes(1, 2).reshape(shape)


def llama3_factors(dim, p):
    """The per-frequency divisors that llama.cpp's converter writes as rope_freqs.weight.

    In float32 throughout, as there, so that the bytes are the same.
    """
    low = p["original_max_position_embeddings"] / p["low_freq_factor"]
    high = p["original_max_position_embeddings"] / p["high_freq_factor"]
    out = []
    for freq in 1.0 / p["rope_theta"] ** (torch.arange(0, dim, 2, dtype=torch.float32) / dim):
        wavelen = 2 * math.pi / freq
        if wavelen < high:
            out.append(1.0)
        elif wavelen > low:
            out.append(p["factor"])
        else:
            smooth = (p["original_max_position_embeddings"] / wavelen - p["low_freq_factor"]) / (
                p["high_freq_factor"] - p["low_freq_factor"]
            )
            out.append(float(1 / ((1 - smooth) / p["factor"] + smooth)))
    return np.array(out, dtype=np.float32)


def vocab():
    """A byte-level BPE of 96 tokens: just enough for a reader to accept the file."""
    letters = [chr(c) for c in range(ord("a"), ord("z") + 1)]
    upper = [c.upper() for c in letters]
    digits = [str(d) for d in range(10)]
    punct = list(".,;:!?'\"()-+*/=<>_&%")
    merges = ["t h", "h e", "i n", "e r", "a n", "Ġ t", "Ġ a", "o n", "r e", "Ġ i"]
    tokens = ["<s>", "</s>", "Ġ", "Ċ"] + letters + upper + digits + punct
    tokens += [m.replace(" ", "") for m in merges]
    assert len(tokens) == N_VOCAB == len(set(tokens)), len(tokens)
    return tokens, merges


def write_vocab(w):
    tokens, merges = vocab()
    control = int(gguf.TokenType.CONTROL)
    w.add_tokenizer_model("gpt2")
    w.add_tokenizer_pre("gpt-2")
    w.add_token_list(tokens)
    w.add_token_types([control] * 2 + [int(gguf.TokenType.NORMAL)] * (N_VOCAB - 2))
    w.add_token_merges(merges)
    w.add_bos_token_id(0)
    w.add_eos_token_id(1)
    w.add_add_bos_token(False)


def write_hparams(w, case, cfg):
    w.add_type("model")
    w.add_name(f"siskin test {case['name']}")
    w.add_block_count(cfg.num_hidden_layers)
    w.add_context_length(cfg.max_position_embeddings)
    w.add_embedding_length(cfg.hidden_size)
    w.add_feed_forward_length(cfg.intermediate_size)
    w.add_head_count(cfg.num_attention_heads)
    w.add_head_count_kv(cfg.num_key_value_heads)
    w.add_layer_norm_rms_eps(cfg.rms_norm_eps)
    head_dim = head_dim_of(cfg)
    if case.get("key_length", True):
        w.add_key_length(head_dim)
        w.add_value_length(head_dim)
    rope_params = cfg.rope_parameters
    full = rope_params.get("full_attention", rope_params)
    # Gemma 2's converter writes no rope base; readers take the default, 10000.
    if case["arch"] != "gemma2":
        w.add_rope_freq_base(full["rope_theta"])
    if "sliding_attention" in rope_params and case.get("freq_base_swa", True):
        w.add_rope_freq_base_swa(rope_params["sliding_attention"]["rope_theta"])
    if full["rope_type"] == "linear":
        w.add_rope_scaling_type(gguf.RopeScalingType.LINEAR)
        w.add_rope_scaling_factor(full["factor"])
    if case["arch"] == "llama":
        w.add_vocab_size(N_VOCAB)
        w.add_rope_dimension_count(head_dim)
    if case["arch"] == "gemma2":
        w.add_attn_logit_softcapping(cfg.attn_logit_softcapping)
        w.add_final_logit_softcapping(cfg.final_logit_softcapping)
    if case["arch"].startswith("gemma"):
        w.add_sliding_window(cfg.sliding_window)
    w.add_file_type(gguf.LlamaFileType.ALL_F32)


def head_dim_of(cfg):
    return getattr(cfg, "head_dim", None) or cfg.hidden_size // cfg.num_attention_heads


def write_gguf(model, case, path):
    cfg = model.config
    w = gguf.GGUFWriter(path, case["arch"])
    write_hparams(w, case, cfg)
    write_vocab(w)
    w.add_quantization_version(gguf.GGML_QUANT_VERSION)
    arch = {v: k for k, v in gguf.MODEL_ARCH_NAMES.items()}[case["arch"]]
    names = gguf.get_tensor_name_map(arch, cfg.num_hidden_layers)
    if case["arch"] == "llama" and cfg.rope_parameters["rope_type"] == "llama3":
        w.add_tensor("rope_freqs.weight", llama3_factors(head_dim_of(cfg), cfg.rope_parameters))
    for name, p in model.state_dict().items():
        if name == "lm_head.weight" and case["tied"]:
            continue
        data = p.numpy()
        if case["arch"] == "llama" and ".q_proj." in name:
            data = permute(data, cfg.num_attention_heads)
        if case["arch"] == "llama" and ".k_proj." in name:
            data = permute(data, cfg.num_key_value_heads)
        if case["arch"].startswith("gemma") and is_norm(name):
            data = data + np.float32(1.0)
        new = names.get_name(name, try_suffixes=(".weight", ".bias"))
        assert new, f"{case['name']}: no GGUF name for {name}"
        w.add_tensor(new, np.ascontiguousarray(data, dtype=np.float32))
    w.write_header_to_file()
    w.write_kv_data_to_file()
    w.write_tensors_to_file()
    w.close()


def make(case, seed):
    torch.manual_seed(seed)
    model = build(case)
    randomize(model, case, seed)
    tokens = np.random.default_rng(seed).integers(2, N_VOCAB, N_TOKENS).tolist()
    tokens[0] = 0
    want = logits_of(model, tokens)
    spread = float(want.std())
    effects = {}
    for what, change in case["ablate"].items():
        moved = np.abs(logits_of(ablated(model, case, change), tokens) - want).max() / spread
        effects[what] = round(float(moved), 3)
        assert moved > MIN_EFFECT, f"{case['name']}: without {what} the logits stay ({moved:.4f})"

    path = HERE / f"{case['name']}.gguf"
    write_gguf(model, case, path)
    with llamacpp.Peer(path, n_ctx=64, threads=1, kv="f32") as peer:
        got = peer.decode(tokens)
    off = float(np.abs(got - peer_logits(model, case, tokens)).max())
    assert off <= PEER_TOLERANCE, f"{case['name']}: llama.cpp is off by {off}"
    want.astype("<f4").tofile(HERE / f"{case['name']}.logits")
    row = dict(
        name=case["name"],
        arch=case["arch"],
        about=case["about"],
        tokens=tokens,
        n_vocab=N_VOCAB,
        logits_std=round(spread, 4),
        logits_max=round(float(np.abs(want).max()), 4),
        llama_cpp_max_diff=float(f"{np.abs(got - want).max():.2e}"),
        effect_when_removed=effects,
    )
    print(f"{case['name']:13} {path.stat().st_size:7} bytes  std {spread:6.3f}  "
          f"llama.cpp off by {off:.1e}  {effects}")
    return row


def main():
    torch.set_num_threads(1)
    rows = [make(case, 1000 + i) for i, case in enumerate(CASES)]
    index = {
        "made_with": {
            "torch": torch.__version__,
            "transformers": transformers.__version__,
            "gguf": importlib.metadata.version("gguf"),
            "llama_cpp_python": llamacpp.version()["llama_cpp_python"],
        },
        "logits": "NAME.logits: float32, little-endian, [len(tokens)][n_vocab]",
        "cases": rows,
    }
    # One case a line, so that a change of one shows as one.
    text = json.dumps({**index, "cases": "@"}, indent=1)
    lines = ",\n  ".join(json.dumps(row) for row in rows)
    (HERE / "cases.json").write_text(text.replace('"@"', f"[\n  {lines}\n ]") + "\n")


if __name__ == "__main__":
    main()
