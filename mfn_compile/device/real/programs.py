"""What a board gets: golden vectors, the library, and one that tells its kernels' times."""

from __future__ import annotations

import json
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from mfn_compile.arm.firmware.archive import make_archive
from mfn_compile.arm.firmware.facts import VARIANTS, Variant
from mfn_compile.arm.firmware.linker import INSTALL
from mfn_compile.arm.firmware.process import run_tool
from mfn_compile.bundle.manifest import read_manifest
from mfn_compile.device.runner import open_bundle
from mfn_compile.errors import BadInputError, DeviceError
from mfn_compile.model.preprocessing import Preprocessing
from mfn_compile.target import Code, Target
from mfn_compile.tomlfile import validate

if TYPE_CHECKING:
    from mfn_compile.arm.schedules import Schedules

SOURCE = Path(__file__).parent / "board.c"
CONVENTION = SOURCE.with_name("tvm_call.h")
BUILD_SECONDS = 300.0
GOLDEN, LIBRARY, LAYERS, RESULT = "golden.bin", "board.so", "layers.so", "result.txt"
QDQ, TARGET = "onnx/model_int8_qdq.onnx", "target.json"
QUANTIZED = "#define MFN_HAS_QUANTIZED_INPUT 1"
FLAGS = ("-std=c99", "-O2", "-Wall", "-Wextra")
_HAS = re.compile(r"^#define MFN_HAS_(NEON|DOTPROD|I8MM) 1$", re.MULTILINE)


@dataclass(frozen=True)
class LayerSource:
    """What the kernels of a library are compiled from once more, with marks between them."""

    qdq: Path
    preprocessing: Preprocessing
    code: Code


@dataclass(frozen=True)
class Marked:
    """A library that calls mfn_mark.

    Attributes:
        archive: the static library.
        workspace: bytes that it needs.
        calls: by variant, layer and kernel of every call in order.
    """

    archive: bytes
    workspace: int
    calls: Mapping[Variant, tuple[tuple[str, str], ...]]


def variants_of(bundle: Path) -> tuple[Variant, ...]:
    """The variants of a bundle's library.

    Raises:
        BadInputError: the bundle lacks a file.
    """
    header = open_bundle(bundle).header.read_text(encoding="utf-8")
    names = {name.lower() for name in _HAS.findall(header)}
    return tuple(name for name in VARIANTS if name in names)


def pack_golden(bundle: Path) -> bytes:
    """All golden vectors in the form that board.c reads.

    Raises:
        BadInputError: the bundle lacks a file.
    """
    opened = open_bundle(bundle)
    quantized = QUANTIZED in opened.header.read_text(encoding="utf-8").splitlines()
    kinds = (".rgb", ".i8", ".f32") if quantized else (".rgb", ".f32")
    content = bytearray()
    try:
        for image in sorted(opened.image.parent.glob("[0-9][0-9][0-9].rgb")):
            for kind in kinds:
                content += image.with_suffix(kind).read_bytes()
    except OSError as error:
        raise BadInputError(
            "A golden vector of the bundle cannot be read",
            where=str(error.filename),
            why=error.strerror or str(error),
            hint="Compile the bundle again",
        ) from error
    return bytes(content)


def find_layers(bundle: Path) -> LayerSource | None:
    """What a finished bundle's kernels are compiled from; None where it lacks a part of that.

    Raises:
        BadInputError: a part is damaged.
    """
    parts = [bundle / QDQ, bundle / TARGET, bundle / "manifest.json"]
    if not all(part.is_file() for part in parts):
        return None
    text = json.loads(parts[1].read_text(encoding="utf-8"))
    target = validate(Target, text, where=str(parts[1]), kind="target")
    if target.code is None:
        return None
    return LayerSource(parts[0], read_manifest(bundle).preprocessing, target.code)


def mark_layers(source: LayerSource, schedules: Sequence[Schedules] | None = None) -> Marked:
    """Compile the network with a mark before every kernel; the shipped library stays as it is.

    Args:
        schedules: of the kernels of each variant; those that ship by default.

    Raises:
        BadInputError: the network cannot be compiled.
    """
    from mfn_compile.arm.codegen import (  # noqa: PLC0415 - loads TVM
        Compiled,
        Machine,
        library_ir,
        object_code,
    )
    from mfn_compile.arm.library import MEMBER, RESERVED  # noqa: PLC0415
    from mfn_compile.arm.lower import make_target, to_llvm  # noqa: PLC0415
    from mfn_compile.arm.network import network_ir  # noqa: PLC0415
    from mfn_compile.arm.plan import make_plan  # noqa: PLC0415
    from mfn_compile.arm.prepared import prepared  # noqa: PLC0415
    from mfn_compile.arm.program import make_program  # noqa: PLC0415
    from mfn_compile.arm.reader import read_graph  # noqa: PLC0415

    graph = prepared(read_graph(source.qdq, source.preprocessing))
    compiled = []
    for place, variant in enumerate(source.code.variants):
        features = (*variant.features, *RESERVED)
        machine = Machine(variant.name, source.code.triple, variant.cpu, features)
        program = make_program(graph, schedules[place] if schedules else machine.schedules())
        plan = make_plan(program)
        target = make_target(machine.triple, machine.cpu, features)
        kernels = to_llvm({name: build() for name, build in program.kernels.items()}, target)
        suffix = f"_{variant.name}"
        llvm = network_ir(program, plan, kernels, suffix, marks=True)
        compiled.append(Compiled(machine, program, plan, llvm, suffix))
    calls = {
        variant.name: tuple((call.layer, call.kernel) for call in made.program.calls())
        for variant, made in zip(source.code.variants, compiled, strict=True)
    }
    archive = make_archive({MEMBER: object_code(library_ir(compiled, RESERVED))})
    return Marked(archive, max(made.plan.peak for made in compiled), calls)


def mark_options(marked: Marked) -> tuple[str, ...]:
    """How board.c is compiled around a marked library."""
    counts = {name: len(calls) for name, calls in marked.calls.items()}
    return (
        f"-DMFN_BOARD_WORKSPACE={marked.workspace}",
        *(f"-DMFN_MARKS_{name.upper()}={counts.get(name, 0)}" for name in VARIANTS),
    )


def build_shared(
    command: tuple[str, ...], header: Path, archive: Path, out: Path, extra: tuple[str, ...] = ()
) -> Path:
    """The shared object for TVM's RPC server; it exports its one function.

    Raises:
        DeviceError: the compiler failed.
    """
    script = out.with_suffix(".map")
    script.write_text("{ global: __tvm_ffi_mfn_board; local: *; };\n", encoding="ascii")
    options = ("-shared", "-fPIC", "-DMFN_BOARD_SHARED", f"-Wl,--version-script={script}")
    _compile((*command, *FLAGS, *options, *extra), header, archive, out)
    return out


def build_program(
    command: tuple[str, ...], header: Path, archive: Path, out: Path, extra: tuple[str, ...] = ()
) -> Path:
    """The same as a program of its own.

    Raises:
        DeviceError: the compiler failed.
    """
    _compile((*command, *FLAGS, *extra), header, archive, out)
    return out


def _compile(command: tuple[str, ...], header: Path, archive: Path, out: Path) -> None:
    files = (f"-I{header.parent}", str(SOURCE), str(archive), "-o", str(out))
    done = run_tool([*command, *files], timeout=BUILD_SECONDS)
    if done.code != 0:
        raise DeviceError(
            "The program that measures cannot be built",
            where=str(archive),
            why=done.first_lines() or f"the compiler ended with {done.code}",
            hint=f"Check the compiler, or install another: {INSTALL}",
        )
