#!/usr/bin/env python3
"""Converted checkpoints beside those of llama.cpp's converter: whether the tensors are the same bit for
bit, without which this fails, and which metadata differs.

    python tools/peers/convert.py --llama-cpp CHECKOUT --siskin target/release/siskin FOLDER ...

The checkout's convert_hf_to_gguf.py is imported. Two things are done for it that change no weights: it
knows pre-tokenizers by a hash of what they make of a text, and of one that it does not know it takes
the name from Siskin's file; and the tokenizer is of the class that tokenizer_config.json names, where
`transformers` would take one by the model's type, which adds tokens.
"""

import argparse
import json
import logging
import os
import pathlib
import sys
import tempfile

import numpy as np

from command import siskin

TYPES = ["f32", "f16", "bf16", "q8_0"]
# Siskin's own: the tokenizer as the hub has it.
OURS = {"tokenizer.huggingface.json"}


class Peer:
    """llama.cpp's converter."""

    def __init__(self, checkout):
        sys.path[:0] = [str(checkout), str(checkout / "gguf-py")]
        import convert_hf_to_gguf
        import transformers
        from conversion.base import TextModel

        self.main = convert_hf_to_gguf.main
        self.pre, self.unknown = None, False
        known = TextModel.get_vocab_base_pre

        def pre(model, tokenizer):
            try:
                return known(model, tokenizer)
            except NotImplementedError:
                self.unknown = True
                return self.pre

        TextModel.get_vocab_base_pre = pre
        auto = transformers.AutoTokenizer.from_pretrained

        def tokenizer(folder, **more):
            config = json.loads((pathlib.Path(folder) / "tokenizer_config.json").read_text())
            if config.get("tokenizer_class") == "PreTrainedTokenizerFast":
                return transformers.PreTrainedTokenizerFast.from_pretrained(folder)
            return auto(folder, **more)

        transformers.AutoTokenizer.from_pretrained = tokenizer

    def convert(self, folder, out, ty, pre):
        """Whether it knows the pre-tokenizer."""
        self.pre, self.unknown = pre, False
        sys.argv = ["convert_hf_to_gguf.py", str(folder), "--outfile", str(out), "--outtype", ty]
        self.main()
        return not self.unknown


def fields(reader):
    """Values with their types, but for what the file's header itself says."""
    return {
        key: ([ty.name for ty in field.types], field.contents())
        for key, field in reader.fields.items()
        if not key.startswith("GGUF.")
    }


def metadata(ours, theirs):
    """Keys that differ, each a line."""
    a, b = fields(ours), fields(theirs)
    for key in sorted(a.keys() | b.keys()):
        if key not in b and key not in OURS:
            yield f"{key}: only ours, {str(a[key])[:80]}"
        elif key not in a:
            yield f"{key}: only theirs, {str(b[key])[:80]}"
        elif key in b and a[key] != b[key]:
            yield f"{key}: ours {str(a[key])[:80]}, theirs {str(b[key])[:80]}"


def tensors(ours, theirs):
    """Tensors that differ, each a line."""
    a, b = ({t.name: t for t in reader.tensors} for reader in (ours, theirs))
    for name in sorted(a.keys() ^ b.keys()):
        yield f"{name}: only {'ours' if name in a else 'theirs'}"
    for name in sorted(a.keys() & b.keys()):
        x, y = a[name], b[name]
        if x.tensor_type != y.tensor_type or list(x.shape) != list(y.shape):
            what = (f"{t.tensor_type.name} {[int(n) for n in t.shape]}" for t in (x, y))
            yield "{}: ours {}, theirs {}".format(name, *what)
        elif not np.array_equal(x.data.view(np.uint8), y.data.view(np.uint8)):
            n = int((x.data.view(np.uint8) != y.data.view(np.uint8)).sum())
            yield f"{name}: {n} of {x.n_bytes} bytes differ"


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--llama-cpp", type=pathlib.Path, required=True, metavar="CHECKOUT")
    parser.add_argument("--siskin", default="target/release/siskin")
    parser.add_argument("--type", action="append", choices=TYPES, help="default: all four")
    parser.add_argument("folders", nargs="+", type=pathlib.Path)
    args = parser.parse_args()

    os.environ["TQDM_DISABLE"] = "1"
    peer = Peer(args.llama_cpp.resolve())
    logging.disable(logging.WARNING)
    import gguf

    print("| checkpoint | type | tensors | that differ | keys that differ | pre-tokenizer |")
    print("|---|---|---|---|---|---|")
    # Types by what differs: most of it in all of them.
    found, wrong = {}, False
    with tempfile.TemporaryDirectory() as temp:
        paths = ours, theirs = [pathlib.Path(temp, name) for name in ("ours.gguf", "theirs.gguf")]
        for folder in args.folders:
            for ty in args.type or TYPES:
                siskin(args.siskin, "convert", folder, ours, "--type", ty, "--force")
                pre = gguf.GGUFReader(ours).fields["tokenizer.ggml.pre"].contents()
                known = "known" if peer.convert(folder, theirs, ty, pre) else f"taken as {pre}"
                readers = [gguf.GGUFReader(path) for path in paths]
                keys, weights = list(metadata(*readers)), list(tensors(*readers))
                wrong |= bool(weights)
                for line in weights + keys:
                    found.setdefault(f"{folder.name}: {line}", []).append(ty)
                counts = f"{len(readers[0].tensors)} | {len(weights)} | {len(keys)}"
                print(f"| {folder.name} | {ty} | {counts} | {known} |", flush=True)
    print()
    for line, types in found.items():
        print(f"- {line} ({', '.join(types)})")
    sys.exit(1 if wrong else 0)


if __name__ == "__main__":
    main()
