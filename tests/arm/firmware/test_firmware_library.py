"""A real library: what a linker takes of it, and what its kernels are made of."""

from __future__ import annotations

import os
import re
import shutil
from pathlib import Path

import pytest

from mfn_compile.arm import library
from mfn_compile.arm.codegen import compile_network, object_code
from mfn_compile.arm.firmware.census import Kind, check_integer
from mfn_compile.arm.firmware.code import read_functions
from mfn_compile.arm.firmware.elf import read_object, section_sizes
from mfn_compile.arm.firmware.facts import Variant
from mfn_compile.arm.firmware.linker import native_aarch64
from mfn_compile.arm.firmware.parts import read_parts
from mfn_compile.arm.graph import IntegerGraph
from mfn_compile.constant_result import ConstantChannels
from mfn_compile.errors import ExitCode, InternalCheckError
from mfn_compile.report.firmware import facts
from mfn_compile.target import Code, load_target
from tests.arm import emulated
from tests.arm.firmware import networks, stub
from tests.arm.firmware.networks import Made
from tests.arm.graphs import Draft

GC = "-Wl,--gc-sections"
VARIANTS: tuple[Variant, ...] = ("neon", "dotprod")
SYSROOT = "/usr/aarch64-linux-gnu"  # where Debian's cross compiler has its C library
SERVICE_CALL = re.compile(r"\tsvc\t")
# A program without a C library, so that every system call in it is the library's.
BARE = """
#include <stddef.h>
#include <mfn.h>
void *memcpy(void *to, const void *from, size_t size) {
    char *a = to;
    const char *b = from;
    while (size--) *a++ = *b++;
    return to;
}
void *memset(void *to, int value, size_t size) {
    char *a = to;
    while (size--) *a++ = (char)value;
    return to;
}
_Alignas(MFN_WORKSPACE_ALIGNMENT) unsigned char workspace[MFN_WORKSPACE_BYTES];
uint8_t face[MFN_INPUT_HEIGHT * MFN_INPUT_WIDTH * 3];
float embedding[MFN_EMBEDDING_DIM];
int result;
void _start(void) {
    result = mfn_embed(face, embedding, workspace);
    for (;;) {}
}
"""


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Made:
    return networks.make(networks.integer_network(), tmp_path_factory.mktemp("library"))


def _link(made: Made, out: Path, *options: str) -> Path:
    source = out.with_suffix(".c")
    source.write_text(BARE)
    flags = ("-O1", "-ffreestanding", "-fno-tree-loop-distribute-patterns", "-nostdlib", "-static")
    inputs = (f"-I{made.bundle / 'include'}", source, made.archive)
    stub.succeed(stub.cross(), *flags, *options, *inputs, "-o", out)
    return out


def _sizes(program: Path) -> tuple[int, int]:
    """Bytes of code and of constants."""
    listed = stub.succeed(stub.tool("aarch64-linux-gnu-size"), "-A", program)
    rows = dict(re.findall(r"^(\.\S+)\s+(\d+)", listed, re.MULTILINE))
    return int(rows[".text"]), int(rows[".rodata"])


def _names(program: Path) -> set[str]:
    listed = stub.succeed(stub.tool("aarch64-linux-gnu-nm"), program)
    return {name for name in (line.split()[-1] for line in listed.splitlines()) if "mfn_" in name}


def _disassembly(program: Path) -> str:
    return stub.succeed(stub.tool("aarch64-linux-gnu-objdump"), "-d", program)


def _member(made: Made) -> bytes:
    content = made.archive.read_bytes()
    return content[content.index(b"\x7fELF") :]


def test_the_archive_needs_memcpy_and_memset_at_most(made: Made) -> None:
    listed = stub.succeed(stub.tool("aarch64-linux-gnu-nm"), "-u", made.archive)
    found = set(re.findall(r"^\s+U (\S+)$", listed, re.MULTILINE))
    assert found <= {"memcpy", "memset"}


@pytest.mark.parametrize("variant", VARIANTS)
def test_one_variant_with_gc_sections_is_all_that_a_program_gets(
    made: Made, variant: str, tmp_path: Path
) -> None:
    choice = f"-DMFN_VARIANT={variant}"
    whole = _link(made, tmp_path / "whole", choice)
    kept = _link(made, tmp_path / "kept", choice, GC)
    (other,) = set(VARIANTS) - {variant}
    names = _names(kept)
    assert {f"mfn_embed_{variant}", f"mfn_{variant}_run", f"mfn_{variant}_constants"} <= names
    assert all(f"_{variant}" in name for name in names), names
    assert not any(other in name or "has_dotprod" in name for name in names)
    assert SERVICE_CALL.search(_disassembly(whole))
    assert not SERVICE_CALL.search(_disassembly(kept))
    assert variant == "dotprod" or "\tsdot\t" not in _disassembly(kept)
    lost = section_sizes("mfn.o", _member(made))
    text, rodata = (a - b for a, b in zip(_sizes(whole), _sizes(kept), strict=True))
    spare = 256  # bytes that the linker fills up between sections
    parallel = (f".text.mfn_{v}.parallel" for v in VARIANTS)
    unused = (f".text.mfn_{other}", ".text", ".text.mfn_embed_parallel", *parallel)
    assert abs(text - sum(lost[name] for name in unused)) < spare
    assert abs(rodata - lost[f".rodata.mfn_{other}"] - lost[".rodata.str1.1"]) < spare


def test_a_program_that_lets_the_cpu_choose_keeps_all_but_what_threads_need(
    made: Made, tmp_path: Path
) -> None:
    whole, kept = _link(made, tmp_path / "whole"), _link(made, tmp_path / "kept", GC)
    lost = _names(whole) - _names(kept)
    assert {"mfn_embed_parallel", "mfn_embed_parallel_neon", "mfn_embed_parallel_dotprod"} <= lost
    assert all("_parallel" in name or "_task_" in name for name in lost)
    assert SERVICE_CALL.search(_disassembly(kept))


@pytest.mark.parametrize("variant", VARIANTS)
def test_the_readmes_command_for_one_variant(made: Made, variant: str, tmp_path: Path) -> None:
    program, options = tmp_path / "verify", (f"-DMFN_VARIANT={variant}", GC, "-static", "-pthread")
    inputs = (f"-I{made.bundle / 'include'}", made.bundle / "verify.c", made.archive)
    stub.succeed(stub.cross(), "-std=c99", *options, *inputs, "-o", program)
    command = stub.emulate(program, made.bundle / "golden", "--threads", "2", cpu="cortex-a76")
    assert f"RESULT variants={variant} vectors=6 failures=0" in stub.succeed(*command)
    assert all(f"_{variant}" in name for name in _names(program))


def test_the_platforms_own_register_is_left_alone(made: Made) -> None:
    functions = read_functions({"mfn.o": _member(made)}).values()
    texts = [each.text for function in functions for each in function.instructions]
    assert len(texts) > 1000
    assert not [text for text in texts if re.search(r"\b[xw]18\b", text)]


def test_sizes_in_the_readme_add_up_to_the_object(made: Made) -> None:
    rows = re.findall(r"^\| ([a-z, ]+) \| ([\d,]+) \| ([\d,]+) \|$", made.readme, re.MULTILINE)
    assert [row[0] for row in rows] == [
        "neon", "neon, for threads", "dotprod", "dotprod, for threads",
        "dispatcher, shared constants",
    ]  # fmt: skip
    whole = read_object("mfn.o", _member(made))
    text, rodata = (sum(int(row[i].replace(",", "")) for row in rows) for i in (1, 2))
    assert (text, rodata) == (whole.text, whole.rodata)


@pytest.mark.skipif(native_aarch64(), reason="the README's commands for this machine are others")
def test_the_readmes_shell_commands_work(made: Made, tmp_path: Path) -> None:
    bundle = shutil.copytree(made.bundle, tmp_path / "bundle")
    stub.tool("pkg-config")
    text = made.readme.replace("\ncc ", f"\n{stub.cross()} ").replace("\n./", "\nqemu-aarch64 ./")
    text = text.replace("aarch64-none-elf-gcc", f"{stub.cross()} -nostdlib -static")
    text = text.replace(" -T board.ld", "")
    (bundle / "firmware.c").write_text(BARE)
    blocks = [block.split("```", 1)[0] for block in text.split("```sh\n")[1:]]
    environment = {**os.environ, "LD_LIBRARY_PATH": "lib", "QEMU_LD_PREFIX": SYSROOT}
    for block in blocks:
        stub.succeed("sh", "-c", f"set -e\n{block}", cwd=bundle, env=environment)
    assert len(blocks) == 8
    assert not SERVICE_CALL.search(_disassembly(bundle / "firmware.elf"))


def test_the_table_of_tasks_is_of_the_librarys_kernels(made: Made) -> None:
    names = {function.symbol for function in read_functions({"mfn.o": _member(made)}).values()}
    for variant in VARIANTS:
        parts = read_parts(made.bundle, variant)
        assert parts is not None
        calls = [call for phase in parts.phases for call in phase.calls]
        assert {f"mfn_{variant}_{call.kernel}" for call in calls} <= names


# --- the census ---------------------------------------------------------------------------------


def _float_graph() -> IntegerGraph:
    draft = Draft(2)
    x = draft.float_conv(draft.image(6, 6, dtype="float32"), 24, (3, 3))
    x = draft.conv(draft.quantize(x), 0, (4, 4))
    return draft.graph(draft.conv(x, 16, to_float=True))


def _code() -> Code:
    code = load_target("arm64").code
    assert code is not None
    return code


def test_every_kernel_is_reported_as_what_it_is(made: Made) -> None:
    for variant in VARIANTS:
        rows = [row for row in made.firmware.census if row.variant == variant]
        kinds = {row.kernel.split("_")[0]: row.kind for row in rows}
        assert kinds == {"gemm": "dense-int8", "depthwise": "depthwise-int8"}
        dense = [row for row in rows if row.kind == "dense-int8"]
        assert all((row.dot if variant == "dotprod" else row.widening) for row in dense)
        assert all(
            3 * row.float_multiply_add <= row.dot + row.widening + row.multiply for row in rows
        )


def test_the_report_tells_of_constant_channels_where_there_are_any(made: Made) -> None:
    assert not any("Constant" in fact.label for fact in facts(made.firmware))
    constant = ConstantChannels(
        dropped=40, channels=1200, multiply_adds=1000, whole_multiply_adds=2000
    )
    told = facts(made.firmware.model_copy(update={"constant": constant}))
    values = {fact.label: fact.value for fact in told}
    assert values["Constant channels left out"] == "40 of 1,200"
    assert values["Multiply-adds left"] == "1,000 of 2,000"


def test_float_kernels_are_reported_as_float() -> None:
    rows = library.build_library(_float_graph(), _code()).census
    kinds = {row.kernel.split("_")[0]: row.kind for row in rows}
    assert kinds["float"] == kinds["quantize"] == "float"
    assert (kinds["gemm"], kinds["depthwise"]) == ("dense-int8", "depthwise-int8")
    assert all(row.float_multiply_add for row in rows if row.kernel.startswith("float_dense"))


@pytest.mark.parametrize("machine", [emulated.NEON, emulated.DOTPROD], ids=VARIANTS)
@pytest.mark.parametrize("kind", ["dense-int8", "depthwise-int8"])
def test_a_float_kernel_that_says_it_is_int8_is_caught(
    machine: emulated.Machine, kind: Kind
) -> None:
    compiled = compile_network(_float_graph(), machine)
    content = object_code(compiled.llvm)
    (kernel,) = (name for name in compiled.program.kernels if name.startswith("float_dense"))
    check_integer("network.o", content, machine.isa, {kernel: "float"})
    with pytest.raises(InternalCheckError, match="does not compute in INT8") as caught:
        check_integer("network.o", content, machine.isa, {kernel: kind}, {kernel: "conv_1"})
    assert f"(conv_1, {kernel})" in str(caught.value)
    assert caught.value.exit_code == ExitCode.INTERNAL_CHECK == 7


def test_a_library_whose_float_kernels_are_passed_off_as_int8_is_refused(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setitem(library._KINDS, "float", "dense-int8")
    with pytest.raises(InternalCheckError, match=r"float_dense.* has .* float multiply-adds"):
        library.build_library(_float_graph(), _code())


FORGED = """
entry:
  br label %loop
loop:
  %i = phi i64 [ 0, %entry ], [ %next, %loop ]
  %at = getelementptr <4 x i8>, ptr %0, i64 %i
  %from = getelementptr <4 x i8>, ptr %1, i64 %i
  %x = load <4 x i8>, ptr %at, align 1
  %w = load <4 x i8>, ptr %from, align 1
  %a = sitofp <4 x i8> %x to <4 x float>
  %b = sitofp <4 x i8> %w to <4 x float>
  %product = fmul <4 x float> %a, %b
  %codes = fptosi <4 x float> %product to <4 x i8>
  %to = getelementptr <4 x i8>, ptr %LAST, i64 %i
  store <4 x i8> %codes, ptr %to, align 1
  %next = add i64 %i, 1
  %more = icmp slt i64 %next, 8
  br i1 %more, label %loop, label %end
end:
  ret void
}"""


@pytest.mark.parametrize("machine", [emulated.NEON, emulated.DOTPROD], ids=VARIANTS)
def test_code_that_multiplies_in_float_behind_an_int8_name_is_caught(
    machine: emulated.Machine,
) -> None:
    draft = Draft(3)
    x = draft.conv(draft.conv(draft.image(6, 6), 16, (3, 3)), 32)
    x = draft.conv(draft.conv(x, 0, (4, 4)), 16, to_float=True)
    compiled = compile_network(draft.graph(x), machine)
    kinds: dict[str, Kind] = {
        name: "dense-int8" for name, kind in compiled.program.kinds().items()
        if kind == "dense" and name.startswith("gemm")
    }  # fmt: skip
    check_integer("network.o", object_code(compiled.llvm), machine.isa, kinds)
    name = next(iter(kinds))
    head = re.search(rf"^define [^\n]*@{name}\(([^\n]*)\)[^\n]*{{$", compiled.llvm, re.MULTILINE)
    assert head is not None
    count = head[1].count("ptr ")
    plain = f"define internal void @{name}({', '.join(f'ptr %{i}' for i in range(count))}) {{"
    end = compiled.llvm.index("\n}", head.start()) + 2
    body = FORGED.replace("%LAST", f"%{count - 1}")
    llvm = compiled.llvm[: head.start()] + plain + body + compiled.llvm[end:]
    with pytest.raises(InternalCheckError, match=r"A dense INT8 kernel for .* has no") as caught:
        check_integer("network.o", object_code(llvm), machine.isa, kinds)
    assert name in str(caught.value)
    assert caught.value.exit_code == ExitCode.INTERNAL_CHECK
