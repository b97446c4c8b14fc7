"""Real programs on the virtual board: exact counts, exact misses, and every way to fail."""

from __future__ import annotations

from pathlib import Path

import pytest

from mfn_compile.device.blocks import Counts
from mfn_compile.device.board import find_core
from mfn_compile.device.runner import build_inference, open_bundle, run_counted
from mfn_compile.errors import BadInputError, DeviceError, ExitCode
from tests.arm.firmware import stub
from tests.device.programs import BEGIN, END, build

A53 = find_core("cortex-a53")
pytestmark = pytest.mark.usefixtures("board")
LOOP = """
for (int i = 0; i < %d; i++) __asm__ volatile("orr x9, x9, #0x5555555555555555" ::: "x9");
"""
MARKED = bytes.fromhex("29f100b2")  # that orr
ARRAY = "static volatile unsigned char array[1 << 20] __attribute__((aligned(4096)));"
READ = "for (size_t i = 0; i < %d; i += 8) (void)*(volatile uint64_t *)(array + i);"


def _marked(counts: Counts) -> int:
    return sum(round(b.count) for b in counts.blocks if MARKED in b.code)


def _misses(counts: Counts) -> tuple[int, int]:
    return sum(b.l1 for b in counts.blocks), sum(b.l2 for b in counts.blocks)


def test_only_the_region_is_counted(tmp_path: Path) -> None:
    body = LOOP % 1000 + BEGIN + LOOP % 77 + END + LOOP % 500
    assert _marked(run_counted([build(tmp_path, body)], A53)) == 77


def test_the_last_region_stays(tmp_path: Path) -> None:
    body = BEGIN + LOOP % 50 + END + END + BEGIN + LOOP % 70 + END + END
    assert _marked(run_counted([build(tmp_path, body)], A53)) == 70


def test_a_system_call_is_a_marker_too(tmp_path: Path) -> None:
    outside = "#include <sys/syscall.h>\n#define MARK(n) syscall(SYS_getpid, 0x4d464e42L, n)"
    body = f"MARK(1L);{LOOP % 31}syscall(SYS_getpid, 1L, 0L);MARK(0L);{LOOP % 9}"
    assert _marked(run_counted([build(tmp_path, body, outside=outside)], A53)) == 31


def test_arguments_and_paths_with_commas(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    folder = tmp_path / "a,b c"
    folder.mkdir()
    monkeypatch.setenv("MFN_CACHE_DIR", str(folder))
    monkeypatch.setenv("TMPDIR", str(folder))
    body = f"int n = atoi(argv[1]);{BEGIN}{LOOP.replace('%d', 'n')}{END}"
    program = build(folder, body)
    assert _marked(run_counted([program, "12"], A53)) == 12


def test_relative_paths(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    build(tmp_path, BEGIN + LOOP % 12 + END)
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("MFN_CACHE_DIR", "cache")
    assert _marked(run_counted(["program"], A53)) == 12
    assert list(tmp_path.glob("cache/virtual-board/*.so"))


def test_misses_of_an_array_that_fits_nowhere(tmp_path: Path) -> None:
    size = 1 << 20  # twice the L2
    counts = run_counted([build(tmp_path, BEGIN + READ % size + END, outside=ARRAY)], A53)
    lines = size // 64
    assert _misses(counts) == pytest.approx((lines, lines), abs=4)
    assert counts.accesses == pytest.approx(size // 8, abs=8)


def test_misses_of_an_array_in_the_second_cache(tmp_path: Path) -> None:
    size = 1 << 17  # in L2, four times L1
    body = READ % size + BEGIN + READ % size + END
    l1, l2 = _misses(run_counted([build(tmp_path, body, outside=ARRAY)], A53))
    assert l1 == pytest.approx(size // 64, abs=4)
    assert l2 <= 2


def test_an_array_in_the_first_cache_misses_nothing(tmp_path: Path) -> None:
    size = 1 << 14
    body = READ % size + BEGIN + READ % size + END
    l1, l2 = _misses(run_counted([build(tmp_path, body, outside=ARRAY)], A53))
    assert l1 <= 2
    assert l2 <= 2


def test_a_crash_has_its_signal(tmp_path: Path) -> None:
    program = build(tmp_path, BEGIN + "*(volatile int *)8 = 1;")
    with pytest.raises(DeviceError, match="SIGSEGV") as caught:
        run_counted([program], A53)
    assert caught.value.exit_code is ExitCode.DEVICE


def test_an_instruction_that_the_core_lacks(tmp_path: Path) -> None:
    text = '__asm__ volatile(".inst 0x4e829420");'  # sdot v0.4s, v1.16b, v2.16b
    program = build(tmp_path, BEGIN + text + LOOP % 50 + END)
    with pytest.raises(DeviceError, match=r"SIGILL.*cortex-a53 lacks an instruction"):
        run_counted([program], A53)
    assert run_counted([program], find_core("cortex-a76")).blocks


def test_a_loop_without_end_is_stopped(tmp_path: Path) -> None:
    program = build(tmp_path, BEGIN + 'for (;;) __asm__ volatile("");')
    with pytest.raises(DeviceError, match=r"did not end.*after 2 seconds") as caught:
        run_counted([program], A53, seconds=2)
    assert caught.value.exit_code is ExitCode.DEVICE


def test_a_program_that_fails(tmp_path: Path) -> None:
    program = build(tmp_path, 'write(2, "out of faces\\n", 13); return 3;')
    with pytest.raises(DeviceError, match=r"[Oo]ut of faces"):
        run_counted([program], A53)
    with pytest.raises(DeviceError, match="ended with 5"):
        run_counted([build(tmp_path, "return 5;")], A53)


@pytest.mark.parametrize("body", ["", BEGIN, END])
def test_a_program_without_both_markers(tmp_path: Path, body: str) -> None:
    with pytest.raises(DeviceError, match="never reached the end"):
        run_counted([build(tmp_path, body)], A53)


def test_an_empty_region(tmp_path: Path) -> None:
    with pytest.raises(DeviceError, match="Nothing was counted"):
        run_counted([build(tmp_path, BEGIN.replace("b 0f", "") + END)], A53)


def test_a_program_with_threads(tmp_path: Path) -> None:
    outside = "#include <pthread.h>\nstatic void *idle(void *x) { return x; }"
    body = f"pthread_t t; {BEGIN} pthread_create(&t, 0, idle, 0); pthread_join(t, 0); {END}"
    program = build(tmp_path, body, "-pthread", outside=outside)
    with pytest.raises(DeviceError, match="2 threads ran"):
        run_counted([program], A53)


@pytest.mark.parametrize(
    ("content", "why"),
    [(b"#!/bin/sh\n", "no ELF"), (b"", "no ELF"), (b"\x7fELF\x01\x01" + bytes(40), "another")],
)
def test_what_is_no_program_for_the_board(tmp_path: Path, content: bytes, why: str) -> None:
    path = tmp_path / "program"
    path.write_bytes(content)
    with pytest.raises(DeviceError, match=why):
        run_counted([path], A53)


def test_a_program_of_this_machine(tmp_path: Path) -> None:
    source = tmp_path / "program.c"
    source.write_text("int main(void) { return 0; }")
    stub.succeed(stub.tool("cc"), "-m64", source, "-o", tmp_path / "program")
    with pytest.raises(DeviceError, match="another architecture"):
        run_counted([tmp_path / "program"], A53)
    with pytest.raises(DeviceError, match="cannot be read"):
        run_counted([tmp_path / "none"], A53)


def test_a_qemu_cpu_that_is_not_there(tmp_path: Path) -> None:
    core = A53.model_copy(update={"qemu": "cortex-z99"})
    with pytest.raises(DeviceError, match="cortex-z99"):
        run_counted([build(tmp_path, "")], core)


def test_a_library_for_another_architecture(bundle: Path, tmp_path: Path) -> None:
    source = tmp_path / "mfn.c"
    source.write_text("int mfn_embed_neon(void) { return 0; }")
    stub.succeed(stub.tool("cc"), "-m64", "-c", source, "-o", tmp_path / "mfn.o")
    (tmp_path / "lib").mkdir()
    stub.succeed(stub.tool("ar"), "rc", tmp_path / "lib/libmfn.a", tmp_path / "mfn.o")
    for name in ("include", "golden"):
        (tmp_path / name).symlink_to((bundle / name).absolute())
    with pytest.raises(BadInputError, match="for another architecture"):
        build_inference(open_bundle(tmp_path), "neon", tmp_path)


def test_a_folder_that_is_no_bundle(tmp_path: Path) -> None:
    with pytest.raises(BadInputError, match=r"libmfn\.a is missing"):
        open_bundle(tmp_path)
    with pytest.raises(BadInputError, match="is missing"):
        open_bundle(tmp_path / "lib/libmfn.a")


def test_a_variant_that_the_library_lacks(bundle: Path, tmp_path: Path) -> None:
    (tmp_path / "include").mkdir()
    header = (bundle / "include/mfn.h").read_text()
    (tmp_path / "include/mfn.h").write_text(header.replace("HAS_NEON 1", "HAS_NEON 0"))
    for name in ("lib", "golden"):
        (tmp_path / name).symlink_to((bundle / name).absolute())
    with pytest.raises(BadInputError, match="no variant neon"):
        build_inference(open_bundle(tmp_path), "neon", tmp_path)
