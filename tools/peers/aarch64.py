"""aarch64 code as objdump prints it: instructions, loops, and what a core's pipes do with them."""

import collections
import dataclasses
import re
import subprocess
import sys

OBJDUMP = "aarch64-linux-gnu-objdump"
KINDS = ["load", "store", "mac", "simd", "float", "scalar"]
BRANCH = re.compile(r"b(\.\w+)?|cbn?z|tbn?z")

Instruction = collections.namedtuple("Instruction", "address name arguments")


def functions(path):
    """The instructions of each function of an object or binary, by demangled name."""
    command = [OBJDUMP, "-d", "-C", "--no-show-raw-insn", path]
    done = subprocess.run(command, capture_output=True, text=True)
    if done.returncode:
        sys.exit(done.stderr)
    found, code = {}, None
    for line in done.stdout.splitlines():
        if head := re.match(r"[0-9a-f]+ <(.*)>:$", line):
            code = found.setdefault(head[1], [])
        elif m := re.match(r"\s+([0-9a-f]+):\s+(\S+)\s*([^/]*)", line):
            code.append(Instruction(int(m[1], 16), m[2], m[3].strip()))
    return found


# Loops.


class Loop:
    """What a backward branch repeats: the instructions from which it can be reached without its
    target, which must be passed to get to them."""

    def __init__(self, body):
        self.body = body
        self.own = body
        self.inner = []


def flow(code):
    """Which instructions may follow each."""
    at = {i.address: n for n, i in enumerate(code)}
    after = []
    for n, i in enumerate(code):
        to = [] if i.name in ("b", "ret", "br") or n + 1 == len(code) else [n + 1]
        if BRANCH.fullmatch(i.name):
            to.append(at.get(int(re.search(r"([0-9a-f]+) <", i.arguments)[1], 16)))
        after.append([t for t in to if t is not None])
    return after


def dominators(after):
    """The last instruction that must be passed to get to each, and those that come before each:
    Cooper, Harvey and Kennedy, "A Simple, Fast Dominance Algorithm"."""
    order, seen, stack = [], {0}, [(0, iter(after[0]))]
    while stack:
        n, rest = stack[-1]
        new = next((t for t in rest if t not in seen), None)
        if new is None:
            order.append(stack.pop()[0])
        else:
            seen.add(new)
            stack.append((new, iter(after[new])))
    rank = {n: i for i, n in enumerate(order)}
    before = collections.defaultdict(list)
    for n in order:
        for t in after[n]:
            before[t].append(n)
    above, changed = {0: 0}, True
    while changed:
        changed = False
        for n in order[-2::-1]:
            known = [p for p in before[n] if p in above]
            new = known[0]
            for p in known[1:]:
                while p != new:
                    if rank[p] < rank[new]:
                        p = above[p]
                    else:
                        new = above[new]
            changed |= above.get(n) != new
            above[n] = new
    return above, before


def loops(code):
    """The loops of a function from small to large, each with those directly in it."""
    above, before = dominators(flow(code))

    def dominates(head, n):
        while n not in (0, head):
            n = above[n]
        return n == head

    bodies = collections.defaultdict(set)
    for head, ends in list(before.items()):
        for end in ends:
            if dominates(head, end):
                body, todo = {head, end}, [end] if end != head else []
                while todo:
                    new = set(before[todo.pop()]) - body
                    body |= new
                    todo.extend(new)
                bodies[head] |= body
    found = [Loop(body) for body in sorted(bodies.values(), key=len)]
    for n, loop in enumerate(found):
        outer = next((o for o in found[n + 1 :] if loop.body < o.body), None)
        if outer:
            outer.inner.append(loop)
            outer.own = outer.own - loop.body
    return found


# What instructions are.


def products(i):
    """Products of bytes that an instruction makes."""
    if i.name in ("sdot", "udot", "usdot"):
        return 16
    if i.name in ("smmla", "usmmla"):
        return 32
    bytes = re.match(r"v\d+\.8h, v\d+\.(8|16)b", i.arguments)
    return 8 if bytes and re.match(r"[su]m(ul|la|ls)l2?$", i.name) else 0


def kind(i):
    """One of KINDS; "simd" is what handles integers."""
    if products(i):
        return "mac"
    if i.name.startswith(("ld", "prf")):
        return "load"
    if i.name.startswith("st"):
        return "store"
    if i.name.startswith("f") and i.name != "fmov" or re.match(r"[su]cvtf", i.name):
        return "float"
    return "simd" if re.search(r"\b[vqdshb]\d+\b", i.arguments) else "scalar"


@dataclasses.dataclass(frozen=True)
class Core:
    """Instructions that are decoded and loads that are issued in a cycle, and which pipes an
    instruction takes: patterns of its name and operands, the first that fits, with slots. V0 and V1
    are the two SIMD pipes, V is either of them, L loads and S stores."""

    decode: int
    loads: int
    pipes: list

    def slots(self, i):
        """The slots that an instruction takes."""
        text = f"{i.name} {i.arguments}"
        for pattern, slots in self.pipes:
            if re.match(pattern, text):
                return slots
        return {"V": 1} if kind(i) in ("mac", "simd", "float") else {}

    def cycles(self, slots, instructions):
        """The cycles that as many slots and instructions take if nothing else limits."""
        simd = slots["V0"] + slots["V1"] + slots["V"]
        return max(
            instructions / self.decode,
            simd / 2,
            slots["V0"],
            slots["V1"],
            slots["L"] / self.loads,
            slots["S"],
        )


LOADS = [
    (r"ld1r|ld1 \{v\d+\.\w+\}\[", {"L": 1, "V": 1}),
    (r"ld1 \{v\d+\.\w+-v\d+|ld[234]", {"L": 4}),
    (r"ldp q", {"L": 2}),
    (r"ld|prf", {"L": 1}),
]
LONG_MULTIPLY = (r"[us]m(ul|la|ls)l2? ", {"V0": 1})
SHIFT = r"([us]shll?2?|[us]?shll?2?|[us]shr|[us]xtl2?|shrn2?|s[lr]i|[us]sra|[us]adalp) "
# See benches/record/arm.md for where from.
CORES = {
    "cortex-a72": Core(3, 1, [
        *LOADS,
        (r"st[rpu]\w* q|st1", {"S": 2}),
        (r"st", {"S": 1}),
        LONG_MULTIPLY,
        (r"(mul|ml[as]) v\d+\.(4s|8h)", {"V0": 2}),
        (r"[us]shl v\d+\.(16b|8h|4s|2d), v\d+\.\w+, v", {"V1": 2}),
        (SHIFT, {"V1": 1}),
        (r"fcvt(l|n)", {"V": 3}),
        (r"(f\w+|[su]cvtf) v\d+\.(4s|2d)", {"V": 2}),
        (r"(tbl|zip[12]|uzp[12]) v\d+\.(16b|8h|4s|2d)", {"V": 3}),
        (r"(umov|smov|f?mov) [wx]\d+, [vsd]", {"L": 1}),
        (r"(dup|f?mov) [vsd]\S+, [wx]", {"L": 1, "V": 1}),
    ]),
    "cortex-a76": Core(4, 2, [
        *LOADS,
        (r"st[rpu]\w* q|st1", {"L": 2, "V": 2}),
        (r"st", {"L": 1}),
        LONG_MULTIPLY,
        (r"(mul|ml[as]) v\d+\.(4s|8h)", {"V0": 2}),
        (SHIFT, {"V1": 1}),
        (r"fcvt(l|n)|[su]cvtf v\d+\.4s|fcvt\w+ v\d+\.4s", {"V0": 2}),
        (r"(umov|smov|f?mov) [wx]\d+, [vsd]", {"V1": 1}),
        (r"(dup|fmov) [vsd]\S+, [wx]", {}),
    ]),
}
