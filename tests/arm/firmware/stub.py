"""A stand-in for the compiled network, in C, and bundles made of it."""

from __future__ import annotations

import shutil
import subprocess
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pytest

from mfn_compile.arm.firmware.archive import make_archive
from mfn_compile.arm.firmware.elf import check_objects
from mfn_compile.arm.firmware.facts import FirmwareFacts, SizeRow
from mfn_compile.arm.firmware.golden import GoldenVector, golden_files
from mfn_compile.arm.firmware.linker import CROSS, link_shared, native_aarch64
from mfn_compile.arm.firmware.render import render
from mfn_compile.arm.firmware.stack import stack_rows

SOURCE = Path(__file__).parent / "stub_c"
HEIGHT, WIDTH, DIM, WORKSPACE, MODULUS = 6, 4, 8, 128, 80
FREESTANDING = ("-O2", "-c", "-std=c99", "-ffreestanding", "-fno-stack-protector", "-fPIC")
MARCH = {"neon": "armv8-a", "dotprod": "armv8.2-a+dotprod"}
SECONDS = 120


def tool(name: str) -> str:
    """The tool's path, or a skip that names it."""
    path = shutil.which(name)
    if path is None:
        pytest.skip(f"{name} is not installed")
    return path


def cross() -> str:
    """A compiler for AArch64."""
    return tool("cc" if native_aarch64() else CROSS)


def run(
    *command: str | Path,
    cwd: Path | None = None,
    stdin: bytes | None = None,
    env: dict[str, str] | None = None,
) -> subprocess.CompletedProcess[bytes]:
    """Run a tool; its output is kept."""
    return subprocess.run(
        [str(part) for part in command],
        cwd=cwd,
        input=stdin,
        env=env,
        capture_output=True,
        timeout=SECONDS,
        check=False,
    )


def succeed(
    *command: str | Path,
    cwd: Path | None = None,
    stdin: bytes | None = None,
    env: dict[str, str] | None = None,
) -> str:
    """Run a tool that must succeed; what it printed."""
    done = run(*command, cwd=cwd, stdin=stdin, env=env)
    assert done.returncode == 0, (command, done.returncode, done.stdout, done.stderr)
    return done.stdout.decode()


def weights() -> np.ndarray:
    """int8 [DIM, MODULUS], zero behind the last value of the input."""
    values = np.random.default_rng(5).integers(-127, 128, (DIM, MODULUS)).astype(np.int8)
    values[:, HEIGHT * WIDTH * 3 :] = 0
    return values


def compile_c(folder: Path, name: str, source: str, *options: str, suffix: str = "c") -> bytes:
    """An AArch64 object of a source text."""
    path = folder / f"{name}.{suffix}"
    path.write_text(source)
    out = folder / f"{name}.o"
    succeed(cross(), "-O2", "-c", "-fno-stack-protector", *options, path, "-o", out)
    return out.read_bytes()


def objects(
    folder: Path,
    variants: Sequence[str] = ("neon", "dotprod"),
    faults: Sequence[str] = (),
    compiler: str | None = None,
) -> dict[str, bytes]:
    """The stub's objects by member name; the host's own with its compiler."""
    rows = ["{" + ", ".join(map(str, row)) + "}" for row in weights().tolist()]
    (folder / "weights.inc").write_text(",\n".join(rows) + "\n")
    command = [compiler or cross(), *FREESTANDING, "-Wall", "-Wextra", f"-I{folder}", *faults]
    found = {}
    for variant in variants:
        out = folder / f"mfn_{variant}.o"
        march = [] if compiler else [f"-march={MARCH[variant]}"]
        source = SOURCE / "variant.c"
        succeed(*command, *march, f"-DVARIANT={variant}", source, "-o", out)
        found[out.name] = out.read_bytes()
    only = [f"-DONLY={variants[0]}"] if len(variants) == 1 else []
    out = folder / "mfn_dispatcher_of_variants.o"  # longer than an ar header's field
    succeed(*command, *only, SOURCE / "dispatcher.c", "-o", out)
    return {**found, out.name: out.read_bytes()}


def vectors() -> list[GoldenVector]:
    """Inputs with the embeddings that the stub must compute."""
    shape = (HEIGHT, WIDTH, 3)
    rng = np.random.default_rng(7)
    images = {
        "black": np.zeros(shape, np.uint8),
        "white": np.full(shape, 255, np.uint8),
        "noise 1": rng.integers(0, 256, shape).astype(np.uint8),
        "noise 2": rng.integers(0, 256, shape).astype(np.uint8),
    }
    found = []
    for name, rgb in images.items():
        quantized = (rgb[..., ::-1].astype(np.int16) - 128).astype(np.int8)
        flat = np.zeros(MODULUS, np.int64)
        flat[: quantized.size] = quantized.reshape(-1)
        accumulators = weights().astype(np.int64) @ flat
        embedding = accumulators.astype(np.float32) * np.float32(0.1)
        found.append(GoldenVector(name, rgb, quantized, embedding))
    return found


def facts(**changes: object) -> FirmwareFacts:
    """Facts of the stub."""
    values: dict[str, object] = {
        "model": "stub.pt",
        "checkpoint_sha256": "0123456789abcdef" * 4,
        "target": "arm64",
        "description": "AArch64 Linux",
        "version": "0.1.0",
        "height": HEIGHT,
        "width": WIDTH,
        "embedding_dim": DIM,
        "workspace_bytes": WORKSPACE,
        "parallel_workspace_bytes": WORKSPACE + 64,
        "parallel_tasks": DIM,
        "color": "BGR",
        "mean": (128.0, 128.0, 128.0),
        "std": (1.0, 1.0, 1.0),
        "normalized": False,
        "quantized_input": True,
        "variants": ("neon", "dotprod"),
        "shared": True,
        **changes,
    }
    return FirmwareFacts.model_validate(values)


def write(folder: Path, files: dict[str, bytes]) -> None:
    """Files by path."""
    for name, content in files.items():
        path = folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(content)


def build(
    folder: Path, variants: Sequence[str] = ("neon", "dotprod"), faults: Sequence[str] = ()
) -> Path:
    """A bundle of the stub for AArch64, as the compiler will make it."""
    work, bundle = folder / "work", folder / "bundle"
    work.mkdir(parents=True)
    members = objects(work, variants, faults)
    checked = check_objects(members)
    write(bundle, {"lib/libmfn.a": make_archive(members)})
    shared = link_shared(bundle / "lib/libmfn.a", bundle / "lib/libmfn.so")
    sizes = tuple(SizeRow(name=o.name, text=o.text, rodata=o.rodata) for o in checked)
    about = facts(
        variants=tuple(variants),
        shared=shared is not None,
        sizes=sizes,
        stack=stack_rows(members),
    )
    write(bundle, {**render(about), **golden_files(vectors())})
    return bundle


def build_host(folder: Path, faults: Sequence[str] = ()) -> Path:
    """The same for this machine, with its own ar, to run without an emulator."""
    work, bundle = folder / "work", folder / "bundle"
    work.mkdir(parents=True)
    members = objects(work, faults=faults, compiler=tool("gcc"))
    write(bundle, {**render(facts()), **golden_files(vectors())})
    (bundle / "lib").mkdir(exist_ok=True)
    paths = [work / name for name in members]
    succeed(tool("ar"), "rcsD", bundle / "lib/libmfn.a", *paths)
    succeed(tool("gcc"), "-shared", *paths, "-o", bundle / "lib/libmfn.so")
    return bundle


def same(lines: Sequence[str], index: int) -> bool:
    """Whether printed floats read back to the bits of a vector's embedding."""
    found = np.array([float(line) for line in lines], np.float32)
    return bool(np.array_equal(found, vectors()[index].embedding))


def snippet(bundle: Path, language: str) -> str:
    """The first block of a language in the bundle's README."""
    text = (bundle / "README.md").read_text()
    return text.split(f"```{language}\n", 1)[1].split("```", 1)[0]


def emulate(program: Path, *arguments: str | Path, cpu: str = "max") -> list[str]:
    """Command that runs an AArch64 program here."""
    words = [str(program), *map(str, arguments)]
    return words if native_aarch64() else [tool("qemu-aarch64"), "-cpu", cpu, *words]
