#!/usr/bin/env python3
"""Makes the checkpoint fixtures: folders as the hub serves them, with what must come of them.

The models are those of ../archs/make.py, by the same seeds. Saved in f32, a checkpoint must give the
tensors of ../archs/NAME.gguf bit for bit, and so its logits. Saved in bf16, it must give the logits
that `transformers` computes from the rounded weights, which are kept here.

Each checkpoint has a tokenizer of another kind, with the ids that the `tokenizers` or `sentencepiece`
library gives for a few texts.

    pip install torch transformers gguf sentencepiece
    python tests/data/checkpoints/make.py            # writes beside itself
"""

import io
import json
import pathlib
import shutil
import sys
import types

import sentencepiece
import torch
import transformers
from tokenizers import AddedToken, Regex, Tokenizer, decoders, models, normalizers
from tokenizers import pre_tokenizers as pre
from tokenizers import processors

HERE = pathlib.Path(__file__).resolve().parent
sys.path.insert(0, str(HERE.parent / "archs"))
# The script of the architectures runs llama.cpp on what it makes; nothing here needs that.
sys.modules["llamacpp"] = types.ModuleType("llamacpp")
import make as archs  # noqa: E402

N_VOCAB = archs.N_VOCAB
TEXTS = [
    "the one in there",
    "He said: 'an error, 1234 times!'",
    "  two  spaces\nand (a) line",
    "X=2007/12; I'm on it, THEY'RE not",
]
LINES = r"\s*[\r\n]+|\s+(?!\S)|\s+"
CONTRACTIONS = "(?i:'s|'t|'re|'ve|'m|'ll|'d)"


def words(numbers):
    return CONTRACTIONS + (
        r"|[^\r\n\p{L}\p{N}]?\p{L}+|" + numbers + r"| ?[^\s\p{L}\p{N}]+[\r\n]*|" + LINES
    )


def split(pattern):
    return pre.Split(Regex(pattern), behavior="isolated", invert=False)


def byte_level(pre_tokenizer, ignore_merges=False, bos=False):
    tokens, merges = archs.vocab()
    pairs = [tuple(m.split(" ")) for m in merges]
    vocab = {t: i for i, t in enumerate(tokens)}
    tok = Tokenizer(models.BPE(vocab, pairs, ignore_merges=ignore_merges))
    tok.pre_tokenizer = pre_tokenizer
    tok.decoder = decoders.ByteLevel()
    tok.add_special_tokens(["<s>", "</s>"])
    if bos:
        tok.post_processor = processors.TemplateProcessing(
            single="<s> $A", pair="<s> $A <s> $B", special_tokens=[("<s>", 0)]
        )
    return tok


def pieces(prefix, unk=True):
    """Merges of characters with U+2581 for a space: SentencePiece's kind without its file."""
    tokens, merges = archs.vocab()
    escape = {"Ġ": "\u2581", "Ċ": "\n"}
    fix = lambda t: "".join(escape.get(c, c) for c in t)
    tokens = ["<unk>" if t == "%" and unk else fix(t) for t in tokens]
    pairs = [tuple(fix(m).split(" ")) for m in merges]
    vocab = {t: i for i, t in enumerate(tokens)}
    tok = Tokenizer(models.BPE(vocab, pairs, unk_token="<unk>", byte_fallback=True, fuse_unk=True))
    replace = normalizers.Replace(" ", "\u2581")
    steps = [normalizers.Prepend("\u2581"), replace] if prefix else [replace]
    tok.normalizer = normalizers.Sequence(steps) if prefix else replace
    if not prefix:
        tok.pre_tokenizer = pre.Split(" ", behavior="merged_with_previous", invert=False)
    tok.decoder = decoders.Sequence([decoders.Replace("\u2581", " "), decoders.ByteFallback(), decoders.Fuse()])
    tok.add_special_tokens(["<s>", "</s>"] + (["<unk>"] if unk else []))
    tok.post_processor = processors.TemplateProcessing(
        single="<s> $A", pair="<s> $A <s> $B", special_tokens=[("<s>", 0)]
    )
    return tok


def word_pieces():
    letters = [chr(c) for c in range(ord("a"), ord("z") + 1)]
    vocab = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]"] + letters + ["##" + c for c in letters]
    vocab += ["the", "there", "##ere", "in", "##er", ":", ",", "!", "'", "(", ")", "/", "one"]
    tok = Tokenizer(models.WordPiece({t: i for i, t in enumerate(vocab)}, unk_token="[UNK]"))
    tok.normalizer = normalizers.BertNormalizer(lowercase=True)
    tok.pre_tokenizer = pre.BertPreTokenizer()
    tok.decoder = decoders.WordPiece()
    tok.add_special_tokens(["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]"])
    tok.post_processor = processors.TemplateProcessing(
        single="[CLS] $A [SEP]", pair="[CLS] $A [SEP] $B:1 [SEP]:1",
        special_tokens=[("[CLS]", 2), ("[SEP]", 3)],
    )
    return tok


def sentence_piece():
    """The bytes of a tokenizer.model of 96 pieces."""
    tokens, _ = archs.vocab()
    text = " ".join(t for t in tokens[4:86])
    lines = [text, "the one in there and an error", "He said it on the line", "two times"] * 20
    out = io.BytesIO()
    sentencepiece.SentencePieceTrainer.train(
        sentence_iterator=iter(lines), model_writer=out, vocab_size=N_VOCAB, model_type="bpe",
        character_coverage=1.0, bos_id=0, eos_id=1, unk_id=2, pad_id=-1, minloglevel=2,
        add_dummy_prefix=False, remove_extra_whitespaces=False, normalization_rule_name="identity",
    )
    return out.getvalue()


BYTES = pre.ByteLevel(add_prefix_space=False, use_regex=False)
TEMPLATE = "{% for m in messages %}{{ m.role }}: {{ m.content }}\n{% endfor %}"

# name, dtype, tokenizer, more of tokenizer_config.json
CHECKPOINTS = [
    ("llama", "bf16", lambda: byte_level(pre.Sequence(
        [pre.Digits(individual_digits=True), pre.ByteLevel(add_prefix_space=False)])), {}),
    ("llama3-rope", "f32", lambda: byte_level(pre.Sequence([split(words(r"\p{N}{1,3}")), BYTES]),
        ignore_merges=True, bos=True), {"chat_template": TEMPLATE}),
    ("llama-bias", "bf16", lambda: byte_level(pre.Sequence(
        [split(r"[a-z]+|[A-Z]+|\p{N}{1,2}|\s+|."), BYTES])), {}),
    ("mistral", "bf16", lambda: pieces(True), {"add_bos_token": True, "add_eos_token": False}),
    ("qwen2", "f32", lambda: byte_level(pre.Sequence([split(words(r"\p{N}")), BYTES])), {
        "chat_template": [{"name": "default", "template": TEMPLATE},
                          {"name": "tool_use", "template": "tools: " + TEMPLATE}]}),
    ("qwen2-untied", "bf16", lambda: byte_level(pre.ByteLevel(add_prefix_space=False)), {}),
    ("qwen3", "bf16", lambda: byte_level(pre.Sequence([split(words(r"\p{N}")), BYTES])), {}),
    ("gemma2", "bf16", sentence_piece, {}),
    ("gemma3", "f32", lambda: pieces(False), {}),
    ("gemma3-27b", "bf16", lambda: pieces(False), {}),
]


def save_tokenizer(folder, tok, more):
    config = {"tokenizer_class": "PreTrainedTokenizerFast"} | more
    if isinstance(tok, bytes):
        (folder / "tokenizer.model").write_bytes(tok)
        sp = sentencepiece.SentencePieceProcessor(model_proto=tok)
        config |= {"bos_token": "<s>", "eos_token": "</s>", "unk_token": "<unk>"}
        ids = [[0] + sp.encode(text) for text in TEXTS]
    else:
        tok.save(str(folder / "tokenizer.json"), pretty=False)
        special = {t.content for t in tok.get_added_tokens_decoder().values() if t.special}
        names = {"bos_token": "<s>", "eos_token": "</s>", "unk_token": "<unk>", "cls_token": "[CLS]",
                 "sep_token": "[SEP]", "pad_token": "[PAD]", "mask_token": "[MASK]"}
        config |= {key: text for key, text in names.items() if text in special}
        if "[UNK]" in special:
            config["unk_token"] = "[UNK]"
        ids = [tok.encode(text).ids for text in TEXTS]
    (folder / "tokenizer_config.json").write_text(json.dumps(config, indent=1) + "\n")
    return ids


def save(model, folder, dtype):
    shutil.rmtree(folder, ignore_errors=True)
    model.save_pretrained(folder)
    config = json.loads((folder / "config.json").read_text())
    # The same whoever makes it.
    config.pop("transformers_version", None)
    config["dtype"] = {"f32": "float32", "bf16": "bfloat16"}[dtype]
    (folder / "config.json").write_text(json.dumps(config, indent=1) + "\n")
    generation = folder / "generation_config.json"
    if generation.is_file():
        generation.unlink()


def checkpoint(name, dtype, tokenizer, more):
    number, case = next((i, c) for i, c in enumerate(archs.CASES) if c["name"] == name)
    seed = 1000 + number
    torch.manual_seed(seed)
    model = archs.build(case)
    archs.randomize(model, case, seed)
    folder = HERE / name
    rounded = model.to(torch.bfloat16) if dtype == "bf16" else model
    save(rounded, folder, dtype)
    ids = save_tokenizer(folder, tokenizer(), more)
    if name == "llama3-rope":
        sampling = {"temperature": 0.6, "top_p": 0.9, "top_k": 40, "repetition_penalty": 1.1}
        (folder / "generation_config.json").write_text(json.dumps(sampling) + "\n")
        card = "---\nlicense: mit\nlanguage:\n- en\ntags: [test]\nbase_model: siskin/tiny-1M\n---\n"
        (folder / "README.md").write_text(card)
    if dtype == "bf16":
        cases = json.loads((HERE.parent / "archs" / "cases.json").read_text())["cases"]
        tokens = next(c["tokens"] for c in cases if c["name"] == name)
        # Not the rounded model itself, whose rotary frequencies are rounded, too.
        exact = archs.build(case)
        exact.load_state_dict({k: v.float() for k, v in rounded.state_dict().items()})
        logits = archs.logits_of(exact, tokens)
        logits.astype("<f4").tofile(HERE / f"{name}.logits")
    return dict(name=name, dtype=dtype, ids=ids)


def bert():
    torch.manual_seed(7)
    config = transformers.BertConfig(
        vocab_size=70, hidden_size=16, num_hidden_layers=2, num_attention_heads=2,
        intermediate_size=32, max_position_embeddings=32,
    )
    folder = HERE / "bert"
    save(transformers.BertModel(config).float().eval(), folder, "f32")
    ids = save_tokenizer(folder, word_pieces(), {"do_lower_case": True})
    modules = [{"idx": 0, "name": "0", "path": "", "type": "sentence_transformers.models.Transformer"},
               {"idx": 1, "name": "1", "path": "1_Pooling", "type": "sentence_transformers.models.Pooling"}]
    (folder / "modules.json").write_text(json.dumps(modules) + "\n")
    (folder / "1_Pooling").mkdir()
    pooling = {"word_embedding_dimension": 16, "pooling_mode_mean_tokens": True}
    (folder / "1_Pooling" / "config.json").write_text(json.dumps(pooling) + "\n")
    return dict(name="bert", dtype="f32", ids=ids)


def main():
    torch.set_num_threads(1)
    rows = [checkpoint(*row) for row in CHECKPOINTS] + [bert()]
    index = {
        "made_with": {"torch": torch.__version__, "transformers": transformers.__version__},
        "texts": TEXTS,
        "checkpoints": "@",
    }
    lines = ",\n  ".join(json.dumps(row) for row in rows)
    text = json.dumps(index, indent=1).replace('"@"', f"[\n  {lines}\n ]")
    (HERE / "cases.json").write_text(text + "\n")


if __name__ == "__main__":
    main()
