"""The proof under QEMU on three CPUs, and everything that can be wrong with a library."""

from __future__ import annotations

from pathlib import Path

import pytest

from mfn_compile.arm.firmware import linker, proof
from mfn_compile.arm.firmware.linker import Compiler, find_compiler, link_shared, native_aarch64
from mfn_compile.arm.firmware.process import run_tool
from mfn_compile.arm.firmware.proof import ProofRow, prove, summary
from mfn_compile.errors import DeviceError, ExitCode, InternalCheckError
from mfn_compile.progress import SilentProgress
from tests.arm.firmware import stub

emulated = pytest.mark.skipif(native_aarch64(), reason="this machine runs AArch64 by itself")


def _prove(bundle: Path) -> tuple[ProofRow, ...]:
    stub.cross()
    if not native_aarch64():
        stub.tool("qemu-aarch64")
    return prove(bundle, SilentProgress())


def _variants(rows: tuple[ProofRow, ...]) -> dict[str, tuple[str, ...]]:
    return {row.cpu: row.variants for row in rows}


@emulated
def test_the_proof_runs_on_three_cpus(bundle: Path) -> None:
    rows = _prove(bundle)
    both = ("neon", "dotprod")
    assert _variants(rows) == {"cortex-a53": ("neon",), "cortex-a76": both, "max": both}
    assert all(row.passed and row.vectors == 4 for row in rows)
    assert all("PASS 2 threads at once" in row.output for row in rows)
    assert "SKIP dotprod" in rows[0].output
    facts = [(proof.cpu, proof.emulated, proof.variants, proof.vectors) for proof in summary(rows)]
    assert facts[:2] == [("cortex-a53", True, ("neon",), 4), ("cortex-a76", True, both, 4)]


@emulated
@pytest.mark.parametrize(
    ("variant", "cpus"),
    [("neon", ("cortex-a53", "cortex-a76", "max")), ("dotprod", ("cortex-a76", "max"))],
)
def test_a_library_of_one_variant(tmp_path: Path, variant: str, cpus: tuple[str, ...]) -> None:
    rows = _prove(stub.build(tmp_path / "one", variants=[variant]))
    assert _variants(rows) == dict.fromkeys(cpus, (variant,))


def _flip(path: Path, pattern: bytes) -> None:
    content = bytearray(path.read_bytes())
    place = content.index(pattern)
    content[place + 3] ^= 1
    path.write_bytes(content)


@pytest.mark.parametrize("variant", ["neon", "dotprod"])
def test_a_flipped_bit_in_the_library_is_found(copied: Path, variant: str) -> None:
    archive = copied / "lib/libmfn.a"
    content = archive.read_bytes()
    weights = stub.weights()[2].tobytes()
    assert content.count(weights) == 2  # neon's, then dotprod's
    place = content.index(weights)
    if variant == "dotprod":
        place = content.index(weights, place + 1)
    changed = bytearray(content)
    changed[place + 3] ^= 1
    archive.write_bytes(changed)
    with pytest.raises(InternalCheckError) as caught:
        _prove(copied)
    assert f"FAIL {variant} 000 black mfn_embed: float 2 has the bits" in str(caught.value)
    assert caught.value.exit_code == ExitCode.INTERNAL_CHECK


def test_a_flipped_bit_in_a_vector_is_found(copied: Path) -> None:
    _flip(copied / "golden/001.f32", b"")
    with pytest.raises(InternalCheckError, match="FAIL neon 001 white mfn_embed: float 0"):
        _prove(copied)


def test_a_missing_vector_is_found(copied: Path) -> None:
    (copied / "golden/002.i8").unlink()
    with pytest.raises(InternalCheckError, match=r"ended with 2: .*002\.i8: No such file"):
        _prove(copied)


@emulated
def test_a_crash_names_its_signal(tmp_path: Path) -> None:
    faults = ["-DFAULT_DISPATCH"]  # says that every CPU has dot products
    with pytest.raises(InternalCheckError) as caught:
        _prove(stub.build(tmp_path / "fault", faults=faults))
    assert "cortex-a53" in str(caught.value)
    assert "ended by SIGILL after: PASS neon 003 noise 2" in str(caught.value)


@emulated
def test_a_wrong_choice_of_variants_is_found(bundle: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(proof, "RUNS", {"cortex-a76": ("neon",)})
    with pytest.raises(InternalCheckError, match="neon, dotprod ran instead of neon"):
        _prove(bundle)


def test_no_emulator_and_no_compiler_name_the_packages(
    bundle: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(proof, "native_aarch64", lambda: False)
    monkeypatch.setattr(proof, "find_compiler", lambda: Compiler(("cc",), "cross"))
    monkeypatch.setattr(proof, "EMULATOR", "qemu-that-is-not-there")
    with pytest.raises(DeviceError, match="apt install qemu-user gcc-aarch64-linux-gnu") as caught:
        prove(bundle, SilentProgress())
    assert "no qemu-that-is-not-there" in str(caught.value)
    monkeypatch.setattr(proof, "find_compiler", lambda: None)
    with pytest.raises(DeviceError, match="no C compiler for AArch64") as caught:
        prove(bundle, SilentProgress())
    assert caught.value.exit_code == ExitCode.DEVICE


def test_a_program_that_does_not_build_shows_why(copied: Path) -> None:
    stub.cross()
    if not native_aarch64():
        stub.tool("qemu-aarch64")
    (copied / "include/mfn.h").write_text("#error this header is not whole\n")
    with pytest.raises(DeviceError, match="this header is not whole"):
        prove(copied, SilentProgress())


def test_the_order_of_compilers(monkeypatch: pytest.MonkeyPatch) -> None:
    have = {"cc", linker.CROSS}
    monkeypatch.setattr(linker.shutil, "which", lambda name: name if name in have else None)
    monkeypatch.setattr(linker.importlib.util, "find_spec", lambda name: name)
    monkeypatch.setattr(linker, "native_aarch64", lambda: True)
    assert find_compiler() == Compiler(("cc",), "native")
    monkeypatch.setattr(linker, "native_aarch64", lambda: False)
    assert find_compiler() == Compiler((linker.CROSS,), "cross")
    have.clear()
    found = find_compiler()
    assert found is not None
    assert (found.kind, found.command[1:]) == ("zig", ("-m", "ziglang", "cc"))
    assert found.shared[-1] == "aarch64-linux-gnu"
    assert found.static[-2:] == ("aarch64-linux-musl", "-static")
    monkeypatch.setattr(linker.importlib.util, "find_spec", lambda name: None)
    assert find_compiler() is None
    assert link_shared(Path("a"), Path("b")) is None


def test_the_shared_library_exports_the_interface_only(bundle: Path, tmp_path: Path) -> None:
    listed = stub.succeed(stub.tool("nm"), "-D", "--defined-only", bundle / "lib/libmfn.so")
    names = {line.split()[-1] for line in listed.splitlines()}
    assert len(names) == 10
    assert all(name.startswith("mfn_") for name in names)
    dynamic = stub.succeed(stub.tool("readelf"), "-d", bundle / "lib/libmfn.so")
    assert "NEEDED" not in dynamic
    assert "TEXTREL" not in dynamic
    assert "soname: [libmfn.so]" in dynamic
    again = link_shared(bundle / "lib/libmfn.a", tmp_path / "libmfn.so")
    assert again is not None
    assert again.read_bytes() == (bundle / "lib/libmfn.so").read_bytes()


@pytest.mark.slow
@emulated
def test_zig_links_and_proves_too(copied: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    pytest.importorskip("ziglang")
    monkeypatch.setattr(linker, "CROSS", "gcc-that-is-not-there")
    out = link_shared(copied / "lib/libmfn.a", copied / "lib/zig.so")
    assert out is not None
    listed = stub.succeed(stub.tool("nm"), "-D", "--defined-only", out)
    assert listed.count(" mfn_") == 10
    assert "NEEDED" not in stub.succeed(stub.tool("readelf"), "-d", out)
    assert len(prove(copied, SilentProgress())) == 3


def test_a_linker_that_fails_says_so(tmp_path: Path) -> None:
    stub.cross()
    (tmp_path / "broken.a").write_bytes(b"no archive")
    with pytest.raises(DeviceError, match=r"cannot be linked.*broken\.a") as caught:
        link_shared(tmp_path / "broken.a", tmp_path / "out.so")
    assert caught.value.exit_code == ExitCode.DEVICE


def test_tools_have_a_time_limit() -> None:
    with pytest.raises(DeviceError, match=r"stopped after 0\.2 seconds"):
        run_tool(["sleep", "30"], timeout=0.2)
    with pytest.raises(DeviceError, match="cannot be started"):
        run_tool(["/nothing/here"], timeout=1)
