#!/usr/bin/env python3
"""Instructions per weight in the inner loops of aarch64 kernels, Siskin's and llama.cpp's.

For machines that are not to be had: the loops are found in the disassembly by their backward
branches, and their instructions counted by kind. A turn of a kernel's loop is known to multiply
some weights with some columns, and its multiply-accumulate instructions must add up to that, else
the script stops. With the count goes an issue bound: the cycles for a product if nothing but a core's
decoder and pipes limits.

    python tools/peers/arm_counts.py --siskin BINARY --llama DIR
    python tools/peers/arm_counts.py FILE --function REGEX           all loops of some functions

See benches/record/arm.md for the tables, and for how the binary and the objects are made.
"""

import argparse
import collections
import dataclasses
import re
import sys

from aarch64 import CORES, KINDS, functions, kind, loops, products

# The cores that are counted for, by Siskin's name of their level.
LEVELS = {"neon": CORES["cortex-a72"], "dotprod": CORES["cortex-a76"], "i8mm": None}

# Weights of a unit, and its bytes in a file.
TYPES = {
    "Q4_0": (32, 18),
    "Q4_1": (32, 20),
    "Q5_0": (32, 22),
    "Q8_0": (32, 34),
    "Q3_K": (256, 110),
    "Q4_K": (256, 144),
    "Q5_K": (256, 176),
    "Q6_K": (256, 210),
    "IQ4_XS": (256, 136),
}


@dataclasses.dataclass(frozen=True)
class Kernel:
    """A loop to be counted: the `products` of a turn, and how often the loops in it that multiply
    turn, the innermost first (more may be named than there are)."""

    who: str
    level: str
    columns: int
    type: str
    file: str
    function: str
    products: int
    trips: tuple


def siskin_kernels(binary):
    """4 rows, and 1 or 8 columns, at a time. With one column, two of the short units in a turn."""
    for level in LEVELS:
        for type, (unit, _) in TYPES.items():
            block = type.replace("_K", "K").replace("_XS", "XS")
            for columns, name in (1, "few"), (8, "many"):
                n = 4 * (max(unit, 64) if columns == 1 else columns * unit)
                name = rf"gemm_{level}::{name}::<.*::Block{block}>, 1>$"
                yield Kernel("siskin", level, columns, type, binary, name, n, (8, 8))


# Rows of llama.cpp's interleaved types, columns of their products of matrices, and trips.
REPACKED = {
    "Q4_0": (4, 16, ()),
    "Q8_0": (4, 4, ()),
    "Q4_K": (8, 4, (4,)),
    "Q5_K": (8, 4, (8, 4)),
    "Q6_K": (8, 4, (4, 2)),
}


def llama_kernels(folder):
    """As ggml_repack_get_optimal_repack_type chooses: interleaved rows for the types that have
    them, where the CPU has sdot; else a row and a column at a time."""
    for level in LEVELS:
        for type, (unit, _) in TYPES.items():
            act = "q8_K" if unit == 256 else "q8_1" if type == "Q4_1" else "q8_0"
            name = type.lower().replace("_k", "_K")

            def kernel(columns, object, function, n, trips):
                path = f"{folder}/{level}/{object}.o"
                function = f"^ggml_{function}_{act}$"
                return Kernel("llama.cpp", level, columns, type, path, function, n, trips)

            if level != "neon" and type in REPACKED:
                rows, columns, trips = REPACKED[type]
                interleaved = f"{name}_{rows}x{8 if level == 'i8mm' else 4}"
                if (level, type) == ("i8mm", "Q5_K"):
                    trips = (4, 4)
                one = trips[-1:] if type == "Q5_K" else trips
                yield kernel(1, "repack", f"gemv_{interleaved}", rows * unit, one)
                n = rows * columns * unit
                yield kernel(columns, "repack", f"gemm_{interleaved}", n, trips)
            else:
                # Two blocks of 32 in a turn.
                yield kernel(1, "quants", f"vec_dot_{name}", max(unit, 64), (2,))
                if level == "i8mm" and type == "Q4_1":
                    # With smmla two rows and two columns.
                    yield kernel(2, "quants", f"vec_dot_{name}", 4 * unit, ())


class Mismatch(Exception):
    """No loop multiplies what it should."""


def multiplied(code, indices):
    return sum(products(code[n]) for n in indices)


def times(code, loop, kernel, trips):
    """How often each instruction of a loop is executed in one turn, if the loops in it that
    multiply turn as often as the last of `trips` says, and those in them likewise. Others are
    llama.cpp's decoding of two rows of scales."""
    found = dict.fromkeys(loop.own, 1)
    for inner in loop.inner:
        if multiplied(code, inner.body):
            turns, rest = (trips[-1], trips[:-1]) if trips else (0, ())
        else:
            turns, rest = 2, ()
        found |= {n: turns * t for n, t in times(code, inner, kernel, rest).items()}
    return found


def executed(code, kernel):
    """How often each instruction is executed in a turn that multiplies `kernel.products`."""
    for loop in loops(code):
        for depth in range(len(kernel.trips) + 1):
            found = times(code, loop, kernel, kernel.trips[:depth])
            if sum(products(code[n]) * t for n, t in found.items()) == kernel.products:
                return found
    raise Mismatch(f"{kernel.function}: no loop multiplies {kernel.products} in a turn")


def rows(kernels):
    """Kernels with their instructions of each kind for a weight and column, and the cycles."""
    files = {}
    for kernel in kernels:
        if kernel.file not in files:
            files[kernel.file] = functions(kernel.file)
        named = [c for name, c in files[kernel.file].items() if re.search(kernel.function, name)]
        if len(named) != 1:
            raise Mismatch(f"{kernel.file}: {len(named)} functions are called {kernel.function}")
        code, core = named[0], LEVELS[kernel.level]
        kinds, slots = collections.Counter(), collections.Counter()
        found = executed(code, kernel)
        for n, t in found.items():
            kinds[kind(code[n])] += t / kernel.products
            for pipe, k in core.slots(code[n]).items() if core else ():
                slots[pipe] += t * k / kernel.products
        yield kernel, kinds, core.cycles(slots, kinds.total()) if core else None


def table(title, counted):
    print(f"\n### {title}\n")
    print(f"| type | of | columns | instructions | {' | '.join(KINDS)} | cycles |")
    print("|---|---|---:|---:|" + "---:|" * (len(KINDS) + 1))
    order = list(TYPES)
    for kernel, kinds, cycles in sorted(
        counted, key=lambda row: (order.index(row[0].type), row[0].who != "siskin")
    ):
        numbers = [kinds.total(), *(kinds[k] for k in KINDS), cycles]
        cells = ["" if x is None else f"{x:.3f}" for x in numbers]
        print("|", " | ".join([kernel.type, kernel.who, str(kernel.columns), *cells]), "|")


def show_loops(path, pattern):
    for name, code in functions(path).items():
        if not re.search(pattern, name):
            continue
        print(name)
        found = loops(code)
        for loop in sorted(found, key=lambda loop: (min(loop.body), -len(loop.body))):
            depth = sum(loop.body < outer.body for outer in found)
            kinds = dict(collections.Counter(kind(code[n]) for n in loop.body))
            at = hex(code[min(loop.body)].address)
            size = f"{len(loop.own)} of {len(loop.body)} instructions"
            print("  " * depth + f"{at}: {size}, {multiplied(code, loop.body)} products, {kinds}")


def main():
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
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
    for level in LEVELS:
        here = [row for row in counted if row[0].level == level]
        table(f"{level}, one column", [row for row in here if row[0].columns == 1])
        if many := [row for row in here if row[0].columns > 1]:
            table(f"{level}, many columns", many)


if __name__ == "__main__":
    try:
        main()
    except Mismatch as error:
        sys.exit(str(error))
