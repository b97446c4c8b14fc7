"""Header, build files and README: what compilers and build tools say about them."""

from __future__ import annotations

import hashlib
import shutil
from pathlib import Path

import numpy as np
import pytest
from pydantic import ValidationError

from mfn_compile.arm.firmware.golden import GoldenVector, golden_files
from mfn_compile.arm.firmware.render import render
from mfn_compile.arm.firmware.stack import StackRow
from mfn_compile.errors import InternalCheckError
from tests.arm.firmware import stub

STRICT = ("-Wall", "-Wextra", "-Wpedantic", "-pedantic", "-Werror", "-fsyntax-only")
HOSTILE = 'x */ int y; /* `|\n#include "z"\u202e $ENV{HOME} \\'
VARIANTS = [("neon",), ("dotprod",), ("neon", "dotprod"), ("neon", "dotprod", "i8mm")]


def _header(folder: Path, **changes: object) -> Path:
    stub.write(folder, render(stub.facts(**changes)))
    return folder / "include"


@pytest.mark.parametrize("variants", VARIANTS)
@pytest.mark.parametrize("chosen", [None, "neon", "dotprod"])
@pytest.mark.parametrize("quantized", [True, False])
@pytest.mark.parametrize(
    ("tool", "language", "standard"),
    [("gcc", "c", "c99"), ("gcc", "c", "c17"), ("g++", "c++", "c++11"), ("g++", "c++", "c++20")],
)
def test_the_header_is_plain_c_and_cpp(
    tmp_path: Path,
    variants: tuple[str, ...],
    chosen: str | None,
    quantized: bool,
    tool: str,
    language: str,
    standard: str,
) -> None:
    include = _header(tmp_path, variants=variants, quantized_input=quantized)
    source = tmp_path / "use.txt"
    source.write_text(
        "#include <mfn.h>\n#include <mfn.h>\n"
        "int use(const uint8_t *a, const int8_t *b, float *e, void *w);\n"
        "int use(const uint8_t *a, const int8_t *b, float *e, void *w) {\n"
        "#ifdef MFN_HAS_QUANTIZED_INPUT\n"
        "  if (b) return mfn_embed_quantized(b, e, w);\n"
        "#endif\n"
        "  if (!w) return mfn_embed_parallel(a, e, w, (mfn_parallel_for *)0, w);\n"
        "  return mfn_embed(a, e, w) + (b != 0) + MFN_INPUT_HEIGHT +\n"
        "    MFN_PARALLEL_WORKSPACE_BYTES + MFN_PARALLEL_TASKS +\n"
        "    MFN_INPUT_WIDTH + MFN_EMBEDDING_DIM + MFN_WORKSPACE_BYTES + MFN_WORKSPACE_ALIGNMENT;\n"
        "}\n"
    )
    choice = [f"-DMFN_VARIANT={chosen}"] if chosen else []
    command = (stub.tool(tool), f"-std={standard}", *STRICT, f"-I{include}", *choice)
    done = stub.run(*command, "-x", language, source)
    if chosen is None or chosen in variants:
        assert (done.returncode, done.stderr) == (0, b"")
    else:
        assert done.returncode == 1
        assert b"MFN_VARIANT must be" in done.stderr


@pytest.mark.parametrize("variants", VARIANTS)
@pytest.mark.parametrize("options", [(), ("-DMFN_NO_THREADS",), ("-DMFN_VARIANT=0",)])
@pytest.mark.parametrize("quantized", [True, False])
@pytest.mark.parametrize("program", ["verify.c", "example.c", "parallel.c"])
def test_the_programs_have_no_warning(
    tmp_path: Path,
    variants: tuple[str, ...],
    options: tuple[str, ...],
    program: str,
    quantized: bool,
) -> None:
    include = _header(tmp_path, variants=variants, quantized_input=quantized)
    options = tuple(option.replace("=0", f"={variants[0]}") for option in options)
    more = ("-Wshadow", "-Wstrict-prototypes", "-Wmissing-prototypes", "-Wvla", "-O2")
    standard = "c11" if program == "parallel.c" else "c99"  # it has atomics
    command = (stub.tool("gcc"), f"-std={standard}", *STRICT, *more, f"-I{include}", *options)
    stub.succeed(*command, tmp_path / program)


def test_names_of_the_users_cannot_break_the_syntax(tmp_path: Path) -> None:
    include = _header(tmp_path, model=HOSTILE, target=HOSTILE, description=HOSTILE)
    header = (include / "mfn.h").read_text()
    assert header.splitlines()[1].startswith(" * mfn.h - x * / int y; / * #include z")
    (tmp_path / "use.c").write_text("#include <mfn.h>\n")
    stub.succeed(stub.tool("gcc"), "-std=c99", *STRICT, f"-I{include}", tmp_path / "use.c")


@pytest.mark.parametrize("variants", VARIANTS)
@pytest.mark.parametrize("quantized", [True, False])
def test_header_and_readme_fit_the_page(variants: tuple[str, ...], quantized: bool) -> None:
    facts = stub.facts(demo=True, normalized=True, variants=variants, quantized_input=quantized)
    files = render(facts)
    for name in ("include/mfn.h", "verify.c", "example.c", "parallel.c", "README.md"):
        lines = files[name].decode().splitlines()
        assert max(map(len, lines)) <= 100, name
        assert not any(line != line.rstrip() for line in lines), name
        assert files[name].endswith(b"\n")


def test_the_readme_says_what_is_known() -> None:
    stack = (
        StackRow(function="mfn_embed", bytes=4321, chain=("mfn_embed",), external=("memcpy",)),
        StackRow(function="mfn_embed_parallel", bytes=9, task=7654, chain=("x",), external=()),
        StackRow(function="mfn_kernel_3", bytes=77, chain=("mfn_kernel_3",), external=()),
    )
    changes = {"mean": (1.5, 2.0, 3.0), "normalized": True, "workspace_bytes": 1234567}
    text = render(stub.facts(stack=stack, **changes))["README.md"].decode()
    assert "| `mfn_embed` | 4,321 |" in text
    assert "mfn_kernel_3" not in text
    assert "runs tasks needs 7,654." in text
    assert "what `memcpy` of your C" in text
    assert (
        "(pixel - (1.5, 2, 3)) / 1 is inside of the\n  library (channels in the order BGR)." in text
    )
    assert "Their length is 1" in text
    assert "1,234,567 bytes" in text
    assert "demo model" not in text
    assert "demo model" in render(stub.facts(demo=True))["README.md"].decode()


def test_without_a_shared_library_nothing_speaks_of_it() -> None:
    files = render(stub.facts(shared=False))
    for name, content in files.items():
        assert b"libmfn.so" not in content, name
        assert b"ctypes" not in content, name
        assert b"mfn_shared" not in content, name


def test_without_a_quantized_input_nothing_speaks_of_it() -> None:
    files = render(stub.facts(quantized_input=False))
    for name in ("include/mfn.h", "README.md"):
        text = files[name].decode()
        assert not [word for word in ("mfn_embed_quantized", "QUANTIZED", ".i8") if word in text]
    assert "computes in float, so there is no function" in files["README.md"].decode()


def test_rendering_is_the_same_every_time() -> None:
    assert render(stub.facts()) == render(stub.facts())


@pytest.mark.parametrize(
    "changes",
    [
        {"variants": ()},
        {"variants": ("neon", "neon")},
        {"variants": ("sve",)},
        {"workspace_bytes": 0},
        {"checkpoint_sha256": "x"},
        {"version": "1\n#error"},
    ],
)
def test_facts_that_cannot_be_are_refused(changes: dict[str, object]) -> None:
    with pytest.raises(ValidationError):
        stub.facts(**changes)


def test_pkg_config_gives_flags_wherever_the_bundle_lies(bundle: Path, tmp_path: Path) -> None:
    moved = shutil.copytree(bundle, tmp_path / "moved")
    environment = {"PKG_CONFIG_PATH": str(moved / "lib/pkgconfig"), "PATH": "/usr/bin:/bin"}
    tool = stub.tool("pkg-config")
    flags = stub.succeed(tool, "--cflags", "--libs", "mfn", env=environment).split()
    assert stub.succeed(tool, "--modversion", "mfn", env=environment).strip() == "0.1.0"
    program = tmp_path / "example"
    stub.succeed(stub.cross(), "-static", moved / "example.c", *flags, "-o", program)
    lines = stub.succeed(*stub.emulate(program, moved / "golden/000.rgb")).splitlines()
    assert stub.same(lines, 0)


SYSROOT = "/usr/aarch64-linux-gnu"
CMAKE = """
cmake_minimum_required(VERSION 3.13)
project(firmware C)
find_package(mfn 0.1 CONFIG REQUIRED)
find_package(mfn CONFIG REQUIRED)
add_executable(example ${mfn_DIR}/../../../example.c)
target_link_libraries(example PRIVATE mfn::mfn -static)
add_executable(dynamic ${mfn_DIR}/../../../example.c)
target_link_libraries(dynamic PRIVATE mfn::mfn_shared)
"""


def test_cmake_builds_with_both_targets(bundle: Path, tmp_path: Path) -> None:
    (tmp_path / "CMakeLists.txt").write_text(CMAKE)
    system = [] if stub.native_aarch64() else ["-DCMAKE_SYSTEM_NAME=Linux"]
    config = [f"-Dmfn_DIR={bundle / 'lib/cmake/mfn'}", f"-DCMAKE_C_COMPILER={stub.cross()}"]
    cmake, out = stub.tool("cmake"), tmp_path / "build"
    stub.succeed(cmake, "-S", tmp_path, "-B", out, *system, *config)
    stub.succeed(cmake, "--build", out)
    lines = stub.succeed(*stub.emulate(out / "example", bundle / "golden/001.rgb")).splitlines()
    assert stub.same(lines, 1)
    needed = stub.succeed(stub.tool("readelf"), "-d", out / "dynamic")
    assert "Shared library: [libmfn.so]" in needed
    command, root = stub.emulate(out / "dynamic", bundle / "golden/001.rgb"), Path(SYSROOT)
    if not stub.native_aarch64():
        if not root.is_dir():
            pytest.skip(f"{root} with the C library for AArch64 is not there")
        command[1:1] = ["-L", str(root)]
    assert stub.same(stub.succeed(*command).splitlines(), 1)


def test_cmake_refuses_a_newer_version(bundle: Path, tmp_path: Path) -> None:
    (tmp_path / "CMakeLists.txt").write_text(CMAKE.replace("mfn 0.1", "mfn 7.5"))
    config = f"-Dmfn_DIR={bundle / 'lib/cmake/mfn'}"
    done = stub.run(stub.tool("cmake"), "-S", tmp_path, "-B", tmp_path / "build", config)
    assert done.returncode != 0
    assert b"version: 0.1.0" in done.stderr


def test_golden_files_have_their_sums(bundle: Path) -> None:
    folder = bundle / "golden"
    stub.succeed(stub.tool("sha256sum"), "--strict", "-c", "SHA256SUMS", cwd=folder)
    listed = {line.split("  ")[1] for line in (folder / "SHA256SUMS").read_text().splitlines()}
    assert listed == {path.name for path in folder.iterdir()} - {"SHA256SUMS"}
    first = hashlib.sha256((folder / "000.rgb").read_bytes()).hexdigest()
    assert f"{first}  000.rgb\n" in (folder / "SHA256SUMS").read_text()


def test_golden_embeddings_are_little_endian() -> None:
    vector = stub.vectors()[2]
    swapped = GoldenVector("x", vector.rgb, vector.quantized, vector.embedding.astype(">f4"))
    with pytest.raises(InternalCheckError, match="Its arrays are"):
        golden_files([swapped])
    content = golden_files([vector])["golden/000.f32"]
    assert np.frombuffer(content, "<f4").tolist() == vector.embedding.tolist()


def test_golden_vectors_that_cannot_be_are_refused() -> None:
    good = stub.vectors()[0]
    for vectors, why in [
        ([], "1 to 1000"),
        ([GoldenVector("a\nb", good.rgb, good.quantized, good.embedding)], "plain letters"),
        ([GoldenVector("a", good.rgb[:2], good.quantized, good.embedding)], "Its arrays"),
        ([good, GoldenVector("a", good.rgb, good.quantized, good.embedding[:3])], "Its arrays"),
        ([GoldenVector("a", good.rgb[0], good.quantized, good.embedding)], "The image is"),
    ]:
        with pytest.raises(InternalCheckError, match=why):
            golden_files(vectors)
