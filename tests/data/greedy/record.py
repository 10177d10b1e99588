#!/usr/bin/env python3
"""Records llama.cpp's greedy text of the three real models, for Siskin to reproduce.

Each candidate prompt is completed raw (no chat template) at temperature 0. Two runtimes that round
differently part where the two best tokens are nearly tied, and that says nothing about either; so a
prompt is kept only if no step among its first 32 is such a near tie, and if llama.cpp gives the
same tokens with flash attention on, which is another order of the same sums. Small models hesitate
often: most free prose is refused, and much of what stays has a pattern to follow.

    pip install llama-cpp-python
    python tests/data/greedy/record.py smollm2=FILE gemma3=FILE qwen=FILE
"""

import json
import pathlib
import sys

import numpy as np

HERE = pathlib.Path(__file__).resolve().parent
sys.path.insert(0, str(HERE.parents[2] / "tools" / "peers"))
import llamacpp  # noqa: E402

N_PREDICT = 48
HELD = 32
MIN_MARGIN = 0.15
MIN_KEPT = 4
# The text does not depend on it, and two threads that spin are slow on a machine with other work.
THREADS = 1

PROMPTS = {
    "capital": "The capital of France is",
    "water": "Water boils at 100 degrees Celsius, which is the same as",
    "planets": "The eight planets of the solar system, in order from the Sun, are",
    "week": "The days of the week are Monday, Tuesday,",
    "count": "1, 2, 3, 4, 5, 6, 7,",
    "alphabet": "a b c d e f g h i j",
    "fibonacci": "def fibonacci(n):\n    if n <= 1:\n        return n\n    return",
    "rust": "fn main() {\n    let names = vec![\"Ada\", \"Grace\"];\n    for name in",
    "sql": "SELECT name, COUNT(*) FROM users GROUP BY",
    "html": "<!DOCTYPE html>\n<html>\n<head>\n<title>",
    "python-class": "class Stack:\n    def __init__(self):\n        self.items = []\n\n    def push(self, item):",
    "json": "{\"users\": [{\"id\": 1, \"name\": \"Alice\"}, {\"id\": 2, \"name\":",
    "c-loop": "#include <stdio.h>\n\nint main() {\n    for (int i = 0; i < 10; i++) {",
    "shopping": "Shopping list:\n- milk\n- bread\n- eggs\n-",
    "recipe": "How to boil an egg:\n1. Fill a pot with water.\n2.",
    "story": "Once upon a time, there was a little girl named",
    "lighthouse": "The lighthouse keeper climbed the stairs every night, and",
    "photosynthesis": "Photosynthesis is the process by which",
    "gravity": "Isaac Newton discovered the law of",
    "heart": "The human heart is a muscular organ that",
    "declaration": "We hold these truths to be self-evident, that all men are created",
    "hamlet": "To be, or not to be, that is the",
    "qa": "Q: What is the largest ocean on Earth?\nA:",
    "translate": "English: Good morning\nFrench: Bonjour\n\nEnglish: Thank you\nFrench:",
    "french": "La Tour Eiffel est située à",
    "german": "Der schnelle braune Fuchs springt über",
    "unicode": "Die Straße ist 5 km lang. 日本の首都は",
    "table": "| Country | Capital |\n|---|---|\n| France | Paris |\n| Germany | Berlin |\n| Italy |",
    "license": "Permission is hereby granted, free of charge, to any person obtaining a copy",
    "import": "import numpy as np\nimport matplotlib.pyplot as",
    "months": "January has 31 days.\nFebruary has 28 days.\nMarch has 31 days.\nApril has 30 days.\n"
    "May has",
    "squares": "1 squared is 1.\n2 squared is 4.\n3 squared is 9.\n4 squared is 16.\n5 squared is",
    "json-rows": "[\n  {\"id\": 1, \"name\": \"item 1\", \"ok\": true},\n"
    "  {\"id\": 2, \"name\": \"item 2\", \"ok\": true},\n"
    "  {\"id\": 3, \"name\": \"item 3\", \"ok\": true},\n  {\"id\": 4,",
    "rust-match": "enum Color { Red, Green, Blue, Black }\n\nfn name(c: Color) -> &'static str {\n"
    "    match c {\n        Color::Red => \"red\",\n        Color::Green =>",
    "bus": "The wheels on the bus go round and round,\nround and round, round and round.\n"
    "The wheels on the bus go round and round,\nall through the town.\n\n"
    "The wipers on the bus go swish, swish, swish,\nswish, swish, swish, swish, swish, swish.\n"
    "The wipers on the bus go",
    "bottles": "99 bottles of beer on the wall, 99 bottles of beer.\n"
    "Take one down and pass it around, 98 bottles of beer on the wall.\n\n"
    "98 bottles of beer on the wall, 98 bottles of beer.\nTake one down",
    "fisherman": "Copy the story.\n\nStory: The old fisherman rowed out before dawn. The sea was grey "
    "and still, and the gulls had not yet woken. He let down his net, lit his pipe, and waited for "
    "the light to come over the hills.\n\nCopy: The old fisherman",
    "market": "Original: On Saturdays my grandmother took me to the market. She bought two loaves of "
    "bread, a bag of red apples and a bunch of yellow flowers, and she let me carry the flowers "
    "home.\nOriginal again: On Saturdays my grandmother",
    "csv": "name,age,city\nAlice,30,Paris\nBob,31,Paris\nCarol,32,Paris\nDave,",
    "getters": "class Point:\n    def get_x(self):\n        return self.x\n\n"
    "    def set_x(self, x):\n        self.x = x\n\n    def get_y(self):\n",
    "ul": "<ul>\n  <li>Item 1</li>\n  <li>Item 2</li>\n  <li>Item 3</li>\n",
    "gettysburg": "Four score and seven years ago our fathers brought forth on this continent, a new "
    "nation, conceived in Liberty, and dedicated to the proposition that",
    "prayer": "Our Father, who art in heaven, hallowed be thy name; thy kingdom come; thy will be "
    "done",
    "primes": "Prime numbers: 2, 3, 5, 7, 11, 13, 17, 19, 23, 29, 31, 37,",
    "hex": "static const uint8_t table[16] = {\n    0x00, 0x01, 0x02, 0x03, 0x04,",
    "license-long": "Permission is hereby granted, free of charge, to any person obtaining a copy of "
    "this software and associated documentation files (the \"Software\"), to deal in the Software "
    "without restriction, including without limitation the rights to use, copy, modify,",
    "vehicles": "Q: How many wheels does a car have?\nA: A car has four wheels.\n\n"
    "Q: How many wheels does a bicycle have?\nA: A bicycle has two wheels.\n\n"
    "Q: How many wheels does a tricycle have?\nA:",
    "capitals": "The capital of Italy is Rome. The capital of Germany is Berlin. The capital of "
    "Spain is Madrid. The capital of France is Paris. The capital of Japan is",
    "mixed-scripts": "Привет, мир! Γειά σου Κόσμε! 你好,世界!\nПривет, мир! Γειά σου Κόσμε! 你好,世界!\n"
    "Привет, мир!",
}


class Refused(Exception):
    """Why a prompt is no fair test."""


def complete(peer, prompt, expected=None):
    """Greedy tokens, and at each step by how much the best logit beat the second.

    With `expected`, only checks that its first tokens come out.
    """
    peer.clear()
    tokens = peer.tokenize(prompt)
    row = peer.decode(tokens, outputs="last")[0]
    out, margins = [], []
    for step in range(N_PREDICT):
        second, first = np.sort(np.partition(row, -2)[-2:])
        best = int(row.argmax())
        out.append(best)
        margins.append(float(first - second))
        if expected:
            if best != expected[step]:
                raise Refused(f"flash attention gives another token at step {step}")
        elif step < HELD and margins[-1] < MIN_MARGIN:
            raise Refused(f"margin {margins[-1]:.3f} at step {step}")
        if peer.is_end(best) or expected and step + 1 == HELD:
            break
        row = peer.decode([best], start=len(tokens) + step, outputs="last")[0]
    if len(out) < HELD:
        raise Refused(f"ended after {len(out)} tokens")
    return tokens, out, margins


def record(name, path):
    kept, refused = [], {}
    settings = dict(n_ctx=512, n_batch=512, threads=THREADS, kv="f16")
    with (
        llamacpp.Peer(path, flash="off", **settings) as peer,
        llamacpp.Peer(path, flash="on", **settings) as flash,
    ):
        for key, prompt in PROMPTS.items():
            try:
                tokens, out, margins = complete(peer, prompt)
                complete(flash, prompt, out)
            except Refused as why:
                refused[key] = str(why)
                continue
            kept.append(dict(
                name=key,
                prompt=prompt,
                prompt_tokens=tokens,
                tokens=out,
                text=peer.detokenize(out),
                min_margin_32=round(min(margins[:HELD]), 4),
                margins=[round(m, 4) for m in margins],
            ))
        used = peer.settings()
    print(f"{name}: kept {len(kept)}: " + ", ".join(
        f"{k['name']} ({k['min_margin_32']:.2f})" for k in kept))
    print("  refused:", refused, flush=True)
    assert len(kept) >= MIN_KEPT, f"{name}: too few prompts qualify"
    return dict(
        model=name,
        file_sha256=llamacpp.sha256(path),
        settings=used,
        prompts=kept,
    )


def main():
    models = [record(*arg.split("=", 1)) for arg in sys.argv[1:]]
    head = dict(
        about="llama.cpp's greedy raw completions; margins are best logit minus second, per step",
        held_tokens=HELD,
        min_margin=MIN_MARGIN,
        peer=llamacpp.version(),
    )
    lines = [json.dumps({**m, "prompts": "@"}, ensure_ascii=False).replace(
        '"@"', "[\n  " + ",\n  ".join(json.dumps(p, ensure_ascii=False) for p in m["prompts"]) + "\n ]"
    ) for m in models]
    text = json.dumps({**head, "models": "@"}, indent=1).replace(
        '"@"', "[\n " + ",\n ".join(lines) + "\n]")
    json.loads(text)
    (HERE / "greedy.json").write_text(text + "\n")


if __name__ == "__main__":
    main()
