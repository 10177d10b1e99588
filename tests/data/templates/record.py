"""Records what chat templates render to, as `transformers` renders them with Python's jinja2.

    python record.py DIR_OF_LLAMA_CPP

DIR_OF_LLAMA_CPP is the source of llama.cpp (the llama-cpp-python package carries it under
vendor/llama.cpp; 0.3.36 made the files here); its models/templates are third parties' and not in
this repository, so third_party.json holds sizes and hashes only. With llama_cpp importable, the
built-in templates are recorded too, from llama.cpp itself. Needs jinja2 3.1.
"""

import ctypes
import json
import sys
from datetime import datetime
from pathlib import Path

import jinja2
import jinja2.ext
from jinja2.ext import Extension, loopcontrols
from jinja2.sandbox import ImmutableSandboxedEnvironment

HERE = Path(__file__).parent
NOW = datetime(2025, 6, 5, 14, 7, 9)

TOOLS = [
    {
        "type": "function",
        "function": {
            "name": "get_weather",
            "description": 'The weather of a "city" <now> & later',
            "parameters": {
                "type": "object",
                "properties": {
                    "city": {"type": "string", "description": "Where: Köln, 東京"},
                    "days": {"type": "integer", "enum": [1, 3, 7], "default": 1},
                    "units": {"type": ["string", "null"]},
                },
                "required": ["city"],
            },
        },
    },
    {"type": "function", "function": {"name": "stop", "description": "Stops.", "parameters": {"type": "object", "properties": {}}}},
]
CALL = {
    "role": "assistant",
    "content": "",
    "tool_calls": [
        {
            "id": "call00001",
            "type": "function",
            "function": {"name": "get_weather", "arguments": {"city": "Köln", "days": 3, "share": 0.5, "exact": True, "more": None}},
        }
    ],
}
CONVERSATION = [
    {"role": "system", "content": "You are brief."},
    {"role": "user", "content": "Hello, who are you?"},
    {"role": "assistant", "content": "I am a model."},
    {"role": "user", "content": "Why is the sky blue?"},
]
THOUGHT = [
    {"role": "user", "content": "1+1?"},
    {"role": "assistant", "content": "<think>\nEasy.\n</think>\n\n2"},
    {"role": "user", "content": "2+2?"},
]

# name: messages, options
CASES = {
    "conversation": (CONVERSATION, {}),
    "question": (CONVERSATION[1:2], {}),
    "without prompt": (CONVERSATION[1:3], {"add_generation_prompt": False}),
    "no thinking": (CONVERSATION[:2], {"enable_thinking": False, "thinking": False}),
    "thinking": (THOUGHT, {"enable_thinking": True, "thinking": True}),
    "reasoning": (
        [
            THOUGHT[0],
            {"role": "assistant", "content": "2", "reasoning_content": "Easy."},
            THOUGHT[2],
        ],
        {},
    ),
    "markup": (
        [
            {"role": "system", "content": "  Ends with spaces \n"},
            {"role": "user", "content": "<b>\"quotes\" & 'more' \\ {{ x }} {% y %}\n\tKöln 東京 🦀  "},
        ],
        {},
    ),
    "tools": (CONVERSATION[:2], {"tools": TOOLS}),
    "tool call": (
        [*CONVERSATION[:2], CALL, {"role": "tool", "tool_call_id": "call00001", "name": "get_weather", "content": '{"temp": 21.5, "sky": "cloudy & <grey>"}'}],
        {"tools": TOOLS},
    ),
    "call without tools": (
        [CONVERSATION[1], CALL, {"role": "tool", "tool_call_id": "call00001", "name": "get_weather", "content": "21"}, {"role": "assistant", "content": "21 degrees."}, CONVERSATION[3]],
        {},
    ),
    "documents": (CONVERSATION, {"documents": [{"title": "Light", "text": "Blue scatters more."}]}),
    "parts": ([{"role": "user", "content": [{"type": "text", "text": "Hello"}]}], {}),
    "nobody": ([], {}),
}


class Generation(Extension):
    """The part of transformers' AssistantTracker that matters for the text."""

    tags = {"generation"}

    def parse(self, parser):
        lineno = next(parser.stream).lineno
        body = parser.parse_statements(["name:endgeneration"], drop_needle=True)
        call = self.call_method("_support")
        return jinja2.nodes.CallBlock(call, [], [], body).set_lineno(lineno)

    def _support(self, caller):
        return caller()


def environment():
    """transformers' utils/chat_template_utils.py, `_compile_jinja_template`."""

    def raise_exception(message):
        raise jinja2.exceptions.TemplateError(message)

    def tojson(x, ensure_ascii=False, indent=None, separators=None, sort_keys=False):
        return json.dumps(x, ensure_ascii=ensure_ascii, indent=indent, separators=separators, sort_keys=sort_keys)

    env = ImmutableSandboxedEnvironment(
        trim_blocks=True, lstrip_blocks=True, extensions=[Generation, loopcontrols]
    )
    env.filters["tojson"] = tojson
    env.globals["raise_exception"] = raise_exception
    env.globals["strftime_now"] = lambda f: NOW.strftime(f)
    return env


def render(source, case):
    messages, options = CASES[case]
    options = {"add_generation_prompt": True, "tools": None, "documents": None, **options}
    template = environment().from_string(source)
    return template.render(messages=messages, bos_token="<s>", eos_token="</s>", **options)


def fnv(text):
    h = 0xCBF29CE484222325
    for b in text.encode():
        h = ((h ^ b) * 0x100000001B3) & 0xFFFFFFFFFFFFFFFF
    return f"{h:016x}"


def outcome(source, case):
    try:
        return {"text": render(source, case)}
    except jinja2.exceptions.TemplateError as e:
        # What `raise_exception` raises; its subclasses are mistakes of the template.
        kind = "refusal" if type(e) is jinja2.exceptions.TemplateError else "error"
        return {kind: str(e)[:200]}
    except Exception as e:
        return {"error": f"{type(e).__name__}: {e}"[:200]}


def third_party(folder):
    out = {}
    for path in sorted(folder.glob("*.jinja")):
        source = path.read_bytes().decode()
        cases = {}
        for case in CASES:
            o = outcome(source, case)
            cases[case] = fnv(o["text"]) if "text" in o else next(iter(o))
            if "&#34;" in o.get("text", ""):
                # `|safe` made a Markup string, which escapes what is added to it: not what the
                # author meant, and not what the model was trained on.
                cases[case] = "escaped"
        out[path.name] = {"source": fnv(source), "cases": cases}
    return out


def builtin():
    import llama_cpp as ll

    n = ll.llama_chat_builtin_templates(None, 0)
    names = (ctypes.c_char_p * n)()
    ll.llama_chat_builtin_templates(names, n)
    conversations = {
        c: CASES[c] for c in ("conversation", "question", "without prompt", "markup")
    }
    conversations["twice"] = (CONVERSATION + [{"role": "assistant", "content": " Scattering. "}, *CONVERSATION[1:2]], {})
    conversations["tool"] = ([CONVERSATION[1], {"role": "tool", "content": "21"}], {})
    out = {}
    for name in sorted(x.decode() for x in names):
        out[name] = {}
        for case, (messages, options) in conversations.items():
            chat = (ll.llama_chat_message * len(messages))()
            for i, m in enumerate(messages):
                chat[i].role = m["role"].encode()
                chat[i].content = m["content"].encode()
            buffer = ctypes.create_string_buffer(1 << 16)
            size = ll.llama_chat_apply_template(
                name.encode(), chat, len(messages), options.get("add_generation_prompt", True), buffer, len(buffer)
            )
            out[name][case] = buffer.raw[:size].decode()
    return {"conversations": conversations, "templates": out}


def main():
    folder = Path(sys.argv[1]) / "models/templates"
    write = lambda name, data: (HERE / name).write_text(json.dumps(data, indent=1, ensure_ascii=False) + "\n")
    write("cases.json", {"now": int((NOW - datetime(1970, 1, 1)).total_seconds()), "cases": CASES})
    write("third_party.json", third_party(folder))
    ours = {}
    for path in sorted(HERE.glob("*.jinja")):
        source = path.read_bytes().decode()
        ours[path.name] = {case: outcome(source, case) for case in CASES}
    write("expected.json", ours)
    expressions = {}
    for line in (HERE / "expressions.txt").read_text().splitlines():
        if line and not line.startswith("#"):
            try:
                expressions[line] = environment().from_string(line).render(
                    s="héllo wörld", l=[3, 1, 2], d={"b": 1, "a": [None, True, "x'y"]}, n=None, f=1.5,
                    m=CONVERSATION, t=TOOLS,
                )
            except Exception as e:
                expressions[line] = None
    write("expressions.json", expressions)
    try:
        write("builtin.json", builtin())
    except ImportError:
        print("llama_cpp cannot be imported: builtin.json stays as it is")


if __name__ == "__main__":
    main()
