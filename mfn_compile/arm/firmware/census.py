"""What a kernel's machine code is made of: proof that an INT8 layer multiplies in integers.

Instructions are counted inside and outside of innermost loops. A loop is what a backward branch
closes: the code from its target to the branch. It is innermost when it holds no other loop.
"""

from __future__ import annotations

from bisect import bisect_left, bisect_right
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from typing import Literal

from pydantic import Field

from mfn_compile.arm.firmware.code import Function, Instruction, read_functions
from mfn_compile.errors import InternalCheckError
from mfn_compile.frozen import Frozen

Kind = Literal["dense-int8", "depthwise-int8", "float"]

DOT = frozenset({"sdot", "udot", "usdot", "sudot"})
MATRIX = frozenset({"smmla", "ummla", "usmmla"})
ALLOWED: Mapping[str, frozenset[str]] = {  # of these, by variant
    "neon": frozenset(),
    "dotprod": frozenset({"sdot", "udot"}),
    "i8mm": DOT | MATRIX,
}
WIDENING = frozenset(
    sign + name + half for sign in "su" for name in ("mull", "mlal", "mlsl") for half in ("", "2")
)
PAIRWISE = frozenset({"sadalp", "saddlp", "uadalp", "uaddlp"})
MULTIPLY = frozenset({"mla", "mls", "mul"})
SCALAR = frozenset({"madd", "msub", "mul", "mneg"})
FLOAT_MULTIPLY_ADD = frozenset(
    {"fmla", "fmls", "fmadd", "fmsub", "fnmadd", "fnmsub", "fmlal", "fmlal2", "fmlsl", "fmlsl2"}
    | {"fcmla", "bfdot", "bfmmla", "bfmlalb", "bfmlalt"}
)
FLOAT_MULTIPLY = frozenset({"fmul", "fmulx", "fnmul"})
SUM = 3  # integer multiplications at least, before one float multiply-add scales their sum
FLOAT_ADD = frozenset({"fadd", "fsub", "faddp"})


class Counts(Frozen):
    """Arithmetic instructions by what they do."""

    dot: int = Field(default=0, description="sdot and its like: 16 int8 products each")
    matrix: int = Field(default=0, description="smmla and its like: 32 int8 products each")
    widening: int = Field(default=0, description="smull, smlal and their like, vector")
    pairwise: int = Field(default=0, description="sadalp, saddlp: sums of neighbours")
    multiply: int = Field(default=0, description="mla, mls, mul on integer vectors")
    scalar_multiply: int = Field(default=0, description="32-bit integers, one at a time")
    float_multiply_add: int = Field(default=0, description="fmla, fmadd and their like")
    float_multiply: int = Field(default=0, description="fmul: the requantization")
    float_add: int = 0
    instructions: int = 0

    @property
    def integer_macs(self) -> int:
        """Instructions that multiply integer vectors."""
        return self.dot + self.matrix + self.widening + self.multiply

    def text(self) -> str:
        """The counts that are not zero."""
        pairs = self.model_dump().items()
        return ", ".join(f"{count} {name}" for name, count in pairs if count) or "nothing"


class CensusRow(Frozen):
    """One function."""

    function: str
    layer: str = ""
    kind: Kind | None = None
    loops: int = 0
    innermost_loops: int = 0
    scalar_loops: int = Field(
        default=0, description="innermost loops that load bytes and multiply-add them one by one"
    )
    inner: Counts = Field(description="inside of innermost loops")
    outer: Counts = Field(description="everywhere else")


def census(objects: Mapping[str, bytes]) -> tuple[CensusRow, ...]:
    """The census of every function, by name.

    Raises:
        InternalCheckError: code that cannot be disassembled.
    """
    functions = read_functions(objects)
    return tuple(_row(functions[key]) for key in sorted(functions))


def check_integer(
    name: str,
    content: bytes,
    variant: str,
    kernels: Mapping[str, Kind],
    layers: Mapping[str, str] | None = None,
    *,
    scope: str = "",
) -> tuple[CensusRow, ...]:
    """Prove that the kernels of an object are what the report says they are.

    Args:
        name: the object's name, for messages.
        content: the object.
        variant: what the CPU may be asked to do: "i8mm", "dotprod", or "neon" for plain Armv8.0.
        kernels: what each function is.
        layers: the layer that each function computes, for messages and the report.
        scope: what the names of the variant's functions begin with, where the object has others.

    Returns:
        One row a kernel, in the order given.

    Raises:
        InternalCheckError: a kernel is missing, multiplies in float where it must not, does not
            use the vector integer instructions, or uses some that the variant does not have.
    """
    by_symbol = {function.symbol: function for function in read_functions({name: content}).values()}
    rows = []
    for function in by_symbol.values():
        foreign = _foreign(function, variant) if function.symbol.startswith(scope) else ""
        if foreign:
            why = f"the instruction {foreign} is not for the variant {variant}"
            raise _wrong(function.symbol, (layers or {}).get(function.symbol, ""), why)
    for kernel, kind in kernels.items():
        if kernel not in by_symbol:
            raise _wrong(kernel, (layers or {}).get(kernel, ""), f"{name} has no such function")
        facts = {"kind": kind, "layer": (layers or {}).get(kernel, "")}
        row = _row(by_symbol[kernel]).model_copy(update=facts)
        problem = _problem(row, variant)
        if problem:
            raise _wrong(kernel, row.layer, f"{problem}; {_counted(row)}")
        rows.append(row)
    return tuple(rows)


def _problem(row: CensusRow, variant: str) -> str:
    """What is wrong with a kernel, empty when nothing is."""
    if row.kind == "float":
        return ""
    inner, outer = row.inner, row.outer
    macs = inner.integer_macs + outer.integer_macs
    dot, widening = inner.dot + outer.dot, inner.widening + outer.widening
    fused = inner.float_multiply_add + outer.float_multiply_add
    if SUM * fused > macs:
        return f"an INT8 kernel has {fused} float multiply-adds for {macs} integer multiplications"
    if row.kind == "dense-int8":
        if variant == "dotprod" and not dot:
            return "a dense INT8 kernel for dotprod has no sdot"
        if variant == "i8mm" and not inner.matrix + outer.matrix:
            return "a dense INT8 kernel for i8mm has no smmla"
        if variant == "neon" and not widening:
            return "a dense INT8 kernel for NEON has no smull or smlal"
        floats = inner.float_multiply + outer.float_multiply
        if row.scalar_loops and not inner.integer_macs:
            return f"{row.scalar_loops} of its innermost loops multiply one value at a time"
        if floats >= macs:
            return f"{floats} float multiplications are not fewer than {macs} integer ones"
    if not macs:
        return "an INT8 kernel has no vector integer multiplication"
    return ""


def _foreign(function: Function, variant: str) -> str:
    """The first instruction that the variant's CPU does not have, empty when there is none."""
    for instruction in function.instructions:
        scalable = instruction.operands.startswith(("z", "p0", "{z"))
        products = instruction.mnemonic in DOT | MATRIX
        if scalable or (products and instruction.mnemonic not in ALLOWED[variant]):
            return instruction.text
    return ""


def _row(function: Function) -> CensusRow:
    loops = _loops(function)
    innermost = [a for a in loops if not any(b != a and _holds(a, b) for b in loops)]
    addresses = [instruction.address for instruction in function.instructions]
    bodies = [
        function.instructions[bisect_left(addresses, start) : bisect_right(addresses, end)]
        for start, end in innermost
    ]
    inside = {i.address for body in bodies for i in body}
    return CensusRow(
        function=function.symbol,
        loops=len(loops),
        innermost_loops=len(innermost),
        scalar_loops=sum(map(_is_scalar, bodies)),
        inner=_count(i for i in function.instructions if i.address in inside),
        outer=_count(i for i in function.instructions if i.address not in inside),
    )


def _is_scalar(body: Sequence[Instruction]) -> bool:
    """Whether a loop multiplies and adds bytes one by one."""
    loads = any(i.mnemonic.startswith(("ldrsb", "ldrb", "ldursb", "ldurb")) for i in body)
    adds = any(i.mnemonic in ("madd", "msub") and i.operands.startswith("w") for i in body)
    return loads and adds and not _count(body).integer_macs


def _loops(function: Function) -> list[tuple[int, int]]:
    """First and last address of every loop; branches to one target close one loop."""
    last: dict[int, int] = {}
    for address, jump in function.jumps.items():
        if jump.address is not None and jump.address <= address:
            last[jump.address] = max(address, last.get(jump.address, 0))
    return sorted(last.items())


def _holds(outer: tuple[int, int], inner: tuple[int, int]) -> bool:
    return outer[0] <= inner[0] and inner[1] <= outer[1]


def _count(instructions: Iterable[Instruction]) -> Counts:
    counts = Counter(field for i in instructions for field in _fields(i))
    return Counts(**counts)


def _fields(instruction: Instruction) -> tuple[str, ...]:
    mnemonic, operands = instruction.mnemonic, instruction.operands
    groups = {
        "dot": DOT,
        "matrix": MATRIX,
        "pairwise": PAIRWISE,
        "float_multiply_add": FLOAT_MULTIPLY_ADD,
        "float_multiply": FLOAT_MULTIPLY,
        "float_add": FLOAT_ADD,
    }
    for name, group in groups.items():
        if mnemonic in group:
            return ("instructions", name)
    if operands.startswith("v"):
        if mnemonic in WIDENING:
            return ("instructions", "widening")
        if mnemonic in MULTIPLY:
            return ("instructions", "multiply")
    elif mnemonic in SCALAR and operands.startswith("w"):  # x registers hold addresses
        return ("instructions", "scalar_multiply")
    return ("instructions",)


def _counted(row: CensusRow) -> str:
    return (
        f"counted inside of {row.innermost_loops} innermost loops: {row.inner.text()}; "
        f"elsewhere: {row.outer.text()}"
    )


def _wrong(kernel: str, layer: str, why: str) -> InternalCheckError:
    return InternalCheckError(
        "A compiled kernel does not compute in INT8 as it should",
        where=f"{layer}, {kernel}" if layer else kernel,
        why=why,
        hint="Report it with the command that you ran",
    )
