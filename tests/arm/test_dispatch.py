"""Which variant the entry points choose, on emulated CPUs."""

from __future__ import annotations

import json
import subprocess
from pathlib import Path

import pytest

from mfn_compile.arm.codegen import object_code
from mfn_compile.arm.dispatch import dispatch_ir
from mfn_compile.arm.module import Part, merge
from tests.arm import emulated

NUMBERS = {"neon": 1, "dotprod": 2, "i8mm": 3}
CPUS = {"cortex-a53": 1, "cortex-a76": 2, "max": 3}  # the best that each runs
SOURCE = """
#include <stdio.h>
int mfn_embed(const void *, void *, void *);
int main(void) { return printf("%d", mfn_embed(0, 0, 0)) != 1; }
"""


def _variant(name: str) -> Part:
    symbol = f"mfn_embed_{name}"
    body = f"(ptr %a, ptr %b, ptr %c) {{\n  ret i32 {NUMBERS[name]}\n}}"
    head = f'target triple = "{emulated.TRIPLE}"'
    return Part(name, f"{head}\ndefine i32 @{symbol}{body}\n", (symbol,))


@pytest.mark.parametrize(
    "variants",
    [("neon",), ("neon", "dotprod"), ("neon", "dotprod", "i8mm"), ("i8mm", "neon"), ("i8mm",)],
)
def test_the_best_variant_that_the_cpu_has(variants: tuple[str, ...], tmp_path: Path) -> None:
    emulated.need_emulator()
    target = json.dumps({"kind": "llvm", "mtriple": emulated.TRIPLE})
    ir = merge(list(map(_variant, variants)), dispatch_ir(variants, ("mfn_embed",)), target)
    network, main, program = (tmp_path / name for name in ("network.o", "main.c", "main"))
    network.write_bytes(object_code(ir))
    main.write_text(SOURCE)
    subprocess.run([emulated.COMPILER, "-static", main, network, "-o", program], check=True)
    for cpu, most in CPUS.items():
        done = subprocess.run([emulated.EMULATOR, "-cpu", cpu, program], capture_output=True)
        able = [NUMBERS[name] for name in variants if NUMBERS[name] <= most]
        only = NUMBERS[variants[0]]  # of one variant, which nobody asks about
        assert int(done.stdout) == (max(able) if len(variants) > 1 else only)
