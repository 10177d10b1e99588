"""Records what llama.cpp makes of texts with its sample vocabularies: llama_cpp.json.

Needs llama-cpp-python (0.3.36 made the file here) and the vocabularies that fetch.py fetches:
python record.py FOLDER

It adds to llama.cpp's own .inp and .out files the vocabularies that have none, and what these
files leave out: special tokens in the text, and the tokens that begin and end a sequence.
"""

import json
import sys
from pathlib import Path

from llama_cpp import Llama

TEXTS = [
    "",
    "Hello, world!",
    " leading and trailing ",
    "   many   spaces\n\n\nand\tlines \r\n end",
    "It's what we'd've DON'T'RE they'LL 'x",
    "1 12 123 1234 12345.678 ½ ² ٣٤ Ⅷ",
    "def f(x):\n    return {'a': x[0] + 1}  # note\n",
    "日本語の文章、中文。한국어 ไทย العربية ελληνικά Русский",
    "naïve café Ångström e\u0301 ﬁ Ａ① ﷺ",
    "😀👨\u200d👩\u200d👧 €5 … “quoted” — dash",
    "\u0001\u200b\u00ad\ufeff\u0378\U000e0001",
    "<s>text</s><unk><0x0A>▁▁a",
    "<|user|> \n Hi <|end|> \n<|assistant|>\n",
    "a <mask>  b [MASK] [UNK]<pad>",
    "<|im_start|>user\nHi<|im_end|><|endoftext|><|eot_id|><bos><eos>",
    "x" * 50 + " " * 50 + "1" * 50 + "\n" * 10,
    "<｜begin▁of▁sentence｜>x<｜end▁of▁sentence｜>",
]


def main():
    folder = Path(sys.argv[1])
    vocabularies = {}
    for path in sorted(folder.glob("*.gguf")):
        model = Llama(str(path), vocab_only=True, verbose=False)
        vocabularies[path.stem] = {
            name: [model.tokenize(text.encode(), add_bos=on, special=on) for text in TEXTS]
            for name, on in (("plain", False), ("special", True))
        }
    out = Path(__file__).with_name("llama_cpp.json")
    lines = ",\n".join(
        f"  {json.dumps(name)}: {json.dumps(cases, separators=(',', ':'))}"
        for name, cases in vocabularies.items()
    )
    texts = json.dumps(TEXTS, separators=(",", ":"))
    out.write_text(f'{{"texts": {texts},\n "vocabularies": {{\n{lines}\n}}}}\n')


if __name__ == "__main__":
    main()
