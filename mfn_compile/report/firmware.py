"""Tables of a library for firmware: sizes, memory plan, machine code, proof."""

from __future__ import annotations

from mfn_compile.report import format as fmt
from mfn_compile.report.tables import Fact
from mfn_compile.results import Firmware, KernelCensus

Rows = list[tuple[str, ...]]
SIZE_HEADER = ("Variant", "Scheduled for", "Code", "Constants", "Stack")
PLAN_HEADER = ("Offset", "Bytes", "Holds", "From", "Until")
CENSUS_HEADER = (
    "Kernel",
    "Variant",
    "Layers",
    "sdot",
    "smmla",
    "smull, smlal",
    "sadalp",
    "mla, mul",
    "Float fused",
    "Float multiply",
    "All",
)


def facts(found: Firmware) -> list[Fact]:
    """What the library is, and how it was proven."""
    agreement, plan = found.agreement, found.plan
    share = f"{fmt.count(agreement.differing)} of {fmt.count(agreement.values)}"
    rows = [
        Fact("Code for", found.triple),
        Fact("Static library", fmt.size(found.archive_bytes)),
        Fact("Shared library", _linked(found)),
        Fact("Workspace", f"{fmt.count(plan.peak)} bytes"),
        Fact("Least that any plan needs", f"{fmt.count(plan.lower_bound)} bytes"),
        Fact("Stack of one call", f"{fmt.count(found.stack)} bytes"),
        Fact("Golden vectors right to the bit", proven(found)),
        Fact("int8 values that differ from ONNX Runtime", share),
        Fact("The same, layer by layer", _by_layer(found)),
        Fact("Mean cosine to OpenVINO", fmt.cosine(found.openvino_cosine)),
        Fact("Lowest cosine to OpenVINO", fmt.cosine(found.openvino_min_cosine)),
    ]
    rows += _constant(found)
    return rows + ([Fact("Not proven here", found.unproven)] if found.unproven else [])


def short(found: Firmware) -> list[Fact]:
    """For the console."""
    variants = "; ".join(
        f"{v.variant}: code {fmt.size(v.text)}, constants {fmt.size(v.rodata)}"
        for v in found.variants
    )
    plan = f"{fmt.count(found.plan.peak)} bytes, least possible {fmt.count(found.plan.lower_bound)}"
    agreement = found.agreement
    return [
        Fact("Library", variants),
        Fact("Workspace", plan),
        Fact("Proof", proven(found)),
        Fact(
            "Against ONNX Runtime",
            f"{fmt.count(agreement.differing)} of {fmt.count(agreement.values)} int8 values "
            f"differ on {fmt.plural(agreement.images, 'image')}",
        ),
        *([Fact("Not proven here", found.unproven)] if found.unproven else []),
    ]


def proven(found: Firmware) -> str:
    """CPUs on which the golden vectors were right."""
    rows = [
        f"{p.cpu}{' (emulated)' if p.emulated else ''}: {fmt.count(p.vectors)} vectors on "
        f"{' and '.join(p.variants)}"
        for p in found.proofs
    ]
    return "; ".join(rows) or "not run here"


def sizes(found: Firmware) -> Rows:
    """One row a variant."""
    return [
        (
            v.variant,
            v.cpu,
            fmt.size(v.text),
            fmt.size(v.rodata),
            f"{fmt.count(v.stack)} bytes",
        )
        for v in found.variants
    ]


def plan(found: Firmware) -> Rows:
    """One row a block of the workspace."""
    return [
        (
            fmt.count(row.offset),
            fmt.count(row.bytes),
            ", then ".join(row.tensors),
            row.first,
            row.last,
        )
        for row in found.plan.rows
    ]


def census(found: Firmware) -> Rows:
    """One row a kernel."""
    return [_census_row(row) for row in found.census]


def _census_row(row: KernelCensus) -> tuple[str, ...]:
    counts = (
        row.layers,
        row.dot,
        row.matrix,
        row.widening,
        row.pairwise,
        row.multiply,
        row.float_multiply_add,
        row.float_multiply,
        row.instructions,
    )
    return (row.kernel, row.variant, *(fmt.count(count) for count in counts))


def _linked(found: Firmware) -> str:
    names = {"native": "linked by cc", "cross": "linked by aarch64-linux-gnu-gcc"}
    if not found.shared_library:
        return "none: no compiler for AArch64 was found, or the target has no operating system"
    return names.get(found.shared_library, f"linked by {found.shared_library}")


def _constant(found: Firmware) -> list[Fact]:
    constant = found.constant
    if constant is None:
        return []
    channels = f"{fmt.count(constant.dropped)} of {fmt.count(constant.channels)}"
    saved = f"{fmt.count(constant.multiply_adds)} of {fmt.count(constant.whole_multiply_adds)}"
    return [
        Fact("Constant channels left out", channels),
        Fact("Multiply-adds left", saved),
    ]


def _by_layer(found: Firmware) -> str:
    agreement = found.agreement
    if not agreement.differing_by_layer:
        return "none"
    return f"{fmt.count(agreement.differing_by_layer)}, by at most {agreement.largest}"
