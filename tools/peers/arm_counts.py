#!/usr/bin/env python3
"""Instructions per weight in the inner loops of aarch64 kernels, Siskin's and llama.cpp's.

For machines that are not to be had: the loops are found in the disassembly by their backward
branches, and their instructions are counted by kind. One turn of a loop is known to multiply a number
of weights with a number of columns, and the multiply-accumulate instructions in it must add up to
that, else the script stops. An issue bound goes with it: cycles for a product if nothing but the
pipes limits (PIPES), which is what arm_estimate.py builds on.

    python tools/peers/arm_counts.py --siskin BINARY --llama DIR     the tables of benches/record/arm.md
    python tools/peers/arm_counts.py FILE --function REGEX           all loops of some functions

See benches/record/arm.md for how the binary and the objects are made.
"""

import argparse
import collections
import dataclasses
import pathlib
import re
import subprocess
import sys

OBJDUMP = "aarch64-linux-gnu-objdump"
KINDS = ["load", "store", "mac", "simd", "float", "scalar"]
CPU = {"neon": "a72", "dotprod": "a76", "i8mm": None}

# Weights in a unit of a type, and bytes of its file; Siskin's names of the types' blocks.
TYPES = {
    "Q4_0": (32, 18), "Q4_1": (32, 20), "Q5_0": (32, 22), "Q8_0": (32, 34), "Q3_K": (256, 110),
    "Q4_K": (256, 144), "Q5_K": (256, 176), "Q6_K": (256, 210), "IQ4_XS": (256, 136),
}


@dataclasses.dataclass(frozen=True)
class Kernel:
    """A loop to be counted: `products` for each turn of it, and how often the loops in it that
    multiply turn, the innermost first; `others`, how often loops in it that multiply nothing do."""

    who: str
    level: str
    columns: int
    type: str
    file: str
    function: str
    products: int
    trips: tuple = ()
    others: int = 2


def siskin_kernels(binary):
    """Its kernels take 4 rows, and 1 or 8 columns, at a time; one function holds both."""
    for level in CPU:
        for type, (unit, _) in TYPES.items():
            name = rf"gemm_{level}::gemm::<.*::Block{type.replace('_K', 'K').replace('_XS', 'XS')}>>$"
            for columns in (1, 8):
                yield Kernel("siskin", level, columns, type, binary, name, 4 * columns * unit, (8, 8))


def llama_kernels(folder):
    """What ggml_repack_get_optimal_repack_type chooses: interleaved rows where the CPU has sdot, for
    the types that have them; else a row and a column at a time."""
    repacked = {"Q4_0": (4, ()), "Q8_0": (4, ()), "Q4_K": (8, (4,)), "Q5_K": (8, (4,)), "Q6_K": (8, (4, 2))}
    gemm_trips = {
        ("dotprod", "Q5_K"): (8, 4), ("i8mm", "Q5_K"): (4, 4), ("dotprod", "Q6_K"): (4, 2),
        ("i8mm", "Q6_K"): (4, 2), ("dotprod", "Q4_K"): (4,), ("i8mm", "Q4_K"): (4,),
    }
    for level in CPU:
        for type, (unit, _) in TYPES.items():
            act = "q8_K" if unit == 256 else "q8_1" if type == "Q4_1" else "q8_0"
            name = type.replace("IQ4_XS", "iq4_xs")
            name = name if name.islower() else name[0].lower() + name[1:]
            if level != "neon" and type in repacked:
                rows, trips = repacked[type]
                by = f"{rows}x{8 if level == 'i8mm' else 4}"
                where = f"{folder}/{level}/repack.o"
                yield Kernel("llama.cpp", level, 1, type, where, f"^ggml_gemv_{name}_{by}_{act}$", rows * unit, trips)
                # Q4_0's takes 16 columns, the others 4.
                columns = 16 if type == "Q4_0" else 4
                yield Kernel("llama.cpp", level, columns, type, where, f"^ggml_gemm_{name}_{by}_{act}$",
                             rows * columns * unit, gemm_trips.get((level, type), ()))
            else:
                # The legacy types' loops take two blocks at a turn.
                yield Kernel("llama.cpp", level, 1, type, f"{folder}/{level}/quants.o",
                             f"^ggml_vec_dot_{name}_{act}$", max(unit, 64), (2,))
                if level == "i8mm" and type == "Q4_1":
                    # Two rows and two columns, where there are two.
                    yield Kernel("llama.cpp", level, 2, type, f"{folder}/{level}/quants.o",
                                 f"^ggml_vec_dot_{name}_{act}$", 4 * unit)


# The disassembly.

Instruction = collections.namedtuple("Instruction", "address name arguments")
BRANCH = re.compile(r"b(\.\w+)?|cbn?z|tbn?z")


def functions(path):
    """The instructions of each function of an object or binary."""
    done = subprocess.run([OBJDUMP, "-d", "-C", "--no-show-raw-insn", path], capture_output=True, text=True)
    if done.returncode:
        sys.exit(done.stderr)
    found, code = {}, None
    for line in done.stdout.splitlines():
        if head := re.match(r"[0-9a-f]+ <(.*)>:$", line):
            code = found.setdefault(head[1], [])
        elif line.startswith(" ") and (m := re.match(r"\s*([0-9a-f]+):\s+(\S+)\s*([^/]*)", line)):
            code.append(Instruction(int(m[1], 16), m[2], m[3].strip()))
    return found


class Loop:
    """The instructions that a backward branch repeats: those from which it can be reached without its
    target."""

    def __init__(self, body):
        self.body = body
        self.inner = []
        self.outer = None
        self.own = body

    def __repr__(self):
        return f"loop at instruction {min(self.body)}"


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
    """The instruction through which each is first to be reached, and the order of those that can be:
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
        while n > 0 and n != head:
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
    found = [Loop(b) for b in sorted(bodies.values(), key=len)]
    for n, loop in enumerate(found):
        outer = next((o for o in found[n + 1 :] if loop.body < o.body), None)
        if outer:
            loop.outer = outer
            outer.inner.append(loop)
            outer.own = outer.own - loop.body
    return found


# What instructions are.


def products(i):
    """Products of bytes that an instruction adds up or makes."""
    if i.name in ("sdot", "udot", "usdot"):
        return 16
    if i.name in ("smmla", "usmmla"):
        return 32
    bytes = re.match(r"v\d+\.8h, v\d+\.(8|16)b", i.arguments)
    return 8 if bytes and re.match(r"[su]m(ul|la|ls)l2?$", i.name) else 0


def kind(i):
    """One of KINDS."""
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
    """How much a core does in a cycle, and which pipes instructions take: patterns of name and
    operands, the first that fits, and how many slots of a pipe. V0 and V1 are the two SIMD pipes, V is
    either of them."""

    name: str
    decode: int
    loads: int
    pipes: list


LOADS = [
    (r"ld1r|ld1 \{v\d+\.\w+\}\[", {"L": 1, "V": 1}),
    (r"ld1 \{v\d+\.\w+-v\d+|ld[234]", {"L": 4}),
    (r"ldp q", {"L": 2}),
    (r"ld|prf", {"L": 1}),
]
SHIFT = r"([us]shll?2?|[us]?shll?2?|[us]shr|[us]xtl2?|shrn2?|s[lr]i|[us]sra|[us]adalp) "
LONG = r"[us]m(ul|la|ls)l2? "
# Arm's Software Optimization Guides of the two cores, and for what they leave open LLVM's scheduling
# models of Cortex-A57 and Neoverse N1, which have the same SIMD pipes.
CORES = {
    "a72": Core("Cortex-A72", 3, 1, LOADS + [
        (r"st[rpu]\w* q|st1", {"S": 2}), (r"st", {"S": 1}),
        (LONG, {"V0": 1}), (r"ml?[asu]l? v\d+\.(4s|8h)", {"V0": 2}),
        (r"[us]shl v\d+\.(16b|8h|4s|2d)", {"V1": 2}), (SHIFT, {"V1": 1}),
        (r"fcvtl|fcvtn", {"V": 3}), (r"(f\w+|[su]cvtf) v\d+\.(4s|2d)", {"V": 2}),
        (r"(tbl|zip[12]|uzp[12]) v\d+\.(16b|8h|4s|2d)", {"V": 3}),
        (r"umov|smov|mov [wx]\d+, v", {"L": 1}), (r"(dup|mov|fmov) [vsd]\S+, [wx]", {"L": 1, "V": 1}),
    ]),
    "a76": Core("Cortex-A76", 4, 2, LOADS + [
        (r"st[rpu]\w* q|st1", {"L": 2, "V": 2}), (r"st", {"L": 1}),
        (LONG, {"V0": 1}), (r"(mul|ml[as]) v\d+\.(4s|8h)", {"V0": 2}),
        (SHIFT, {"V1": 1}), (r"umov|smov|f?mov [wx]\d+, [vsd]", {"V1": 1}),
        (r"fcvtl|fcvtn|[su]cvtf v\d+\.4s|fcvt\w+ v\d+\.4s", {"V0": 2}),
        (r"(dup|fmov) [vsd]\S+, [wx]", {}), (r"mov v\S+, [wx]", {"V": 1}),
    ]),
}


def pipes(core, i):
    """The slots that an instruction takes."""
    text = f"{i.name} {i.arguments}"
    for pattern, slots in core.pipes:
        if re.match(pattern, text):
            return slots
    return {"V": 1} if kind(i) in ("mac", "simd", "float") else {}


def bound(core, slots, instructions):
    """Cycles if nothing else limits."""
    simd = slots["V0"] + slots["V1"] + slots["V"]
    return max(instructions / core.decode, slots["V0"], slots["V1"], simd / 2, slots["L"] / core.loads, slots["S"])


# Counting.


class Mismatch(Exception):
    """No loop multiplies what it should."""


def multiplied(code, indices):
    return sum(products(code[n]) for n in indices)


def times(code, loop, kernel, trips):
    """How often each instruction of a loop is executed in one turn, if those in it that multiply turn
    as often as the last of `trips` says, and those in them likewise; none, if there are more of them.
    Others are prefetches, one for a line of 64 bytes, or decode scales."""
    found = dict.fromkeys(loop.own, 1)
    prefetches = [i for i in loop.inner if any(code[n].name == "prfm" for n in i.body)]
    for inner in loop.inner:
        if multiplied(code, inner.body):
            turns, rest = (trips[-1], trips[:-1]) if trips else (0, ())
        else:
            turns, rest = kernel.others, ()
            if inner in prefetches:
                turns = 4 * TYPES[kernel.type][1] / 64 / len(prefetches)
        found |= {n: turns * t for n, t in times(code, inner, kernel, rest).items()}
    return found


def executed(code, kernel):
    """How often each instruction of a kernel's loop is executed in a turn that multiplies
    `kernel.products`."""
    for loop in loops(code):
        prefetches = any(code[n].name == "prfm" for n in loop.body)
        if kernel.who == "siskin" and prefetches != (kernel.columns == 1):
            continue
        for depth in range(len(kernel.trips) + 1):
            found = times(code, loop, kernel, kernel.trips[:depth])
            if sum(products(code[n]) * t for n, t in found.items()) == kernel.products:
                return found
    raise Mismatch(f"{kernel.function}: no loop multiplies {kernel.products} in a turn")


def count(code, kernel):
    """Instructions of each kind for a weight and column, and the cycles that the core's pipes need."""
    found = executed(code, kernel)
    kinds, slots = collections.Counter(), collections.Counter()
    core = CORES.get(CPU[kernel.level])
    for n, t in found.items():
        kinds[kind(code[n])] += t / kernel.products
        for pipe, k in pipes(core, code[n]).items() if core else ():
            slots[pipe] += t * k
    cycles = bound(core, slots, sum(found.values())) / kernel.products if core else None
    return kinds, cycles


def rows(kernels):
    """Kernels with their counts."""
    files = {}
    for kernel in kernels:
        if kernel.file not in files:
            files[kernel.file] = functions(kernel.file)
        code = [c for name, c in files[kernel.file].items() if re.search(kernel.function, name)]
        if len(code) != 1:
            raise Mismatch(f"{kernel.file}: {len(code)} functions are called {kernel.function}")
        yield kernel, *count(code[0], kernel)


def table(title, counted):
    print(f"\n### {title}\n\n| type | of | columns | instructions | {' | '.join(KINDS)} | cycles |")
    print("|---|---|---:|---:|" + "---:|" * (len(KINDS) + 1))
    for kernel, kinds, cycles in counted:
        numbers = [sum(kinds.values())] + [kinds[k] for k in KINDS] + [cycles]
        numbers = " | ".join("" if x is None else f"{x:.3f}" for x in numbers)
        print(f"| {kernel.type} | {kernel.who} | {kernel.columns} | {numbers} |")


def show_loops(path, pattern):
    for name, code in functions(path).items():
        if re.search(pattern, name):
            print(name)
            for loop in sorted(loops(code), key=lambda l: (min(l.body), -len(l.body))):
                depth = sum(loop.body < o.body for o in loops(code))
                kinds = collections.Counter(kind(code[n]) for n in loop.body)
                print("  " * depth, hex(code[min(loop.body)].address), len(loop.own), "of", len(loop.body),
                      "instructions,", multiplied(code, loop.body), "products,", dict(kinds))


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("file", nargs="?")
    parser.add_argument("--function", default=".")
    parser.add_argument("--siskin", metavar="BINARY")
    parser.add_argument("--llama", metavar="DIR")
    args = parser.parse_args()
    if args.file:
        return show_loops(args.file, args.function)
    counted = []
    if args.siskin:
        counted += rows(siskin_kernels(args.siskin))
    if args.llama:
        counted += rows(llama_kernels(args.llama))
    for level in CPU:
        for title, one in (("one column", True), ("many columns", False)):
            order = list(TYPES)
            part = [r for r in counted if r[0].level == level and (r[0].columns == 1) == one]
            table(f"{level}, {title}", sorted(part, key=lambda r: (order.index(r[0].type), r[0].who != "siskin")))


if __name__ == "__main__":
    try:
        main()
    except Mismatch as error:
        sys.exit(str(error))
