"""The arm64 target from the command line, on tiny input, with TVM, a cross compiler and QEMU."""

from __future__ import annotations

import json
import shutil
import subprocess
from pathlib import Path

import pytest

from mfn_compile.arm.firmware import proof
from mfn_compile.arm.firmware.linker import find_compiler, native_aarch64
from mfn_compile.bundle.manifest import verify_bundle
from mfn_compile.report.document import load
from mfn_compile.resources import data_dir
from tests.cli.test_bad_input import refused
from tests.cli.test_commands import data_options, mfn
from tests.conftest import FaceFolder

FILES = {
    "README.md", "example.c", "parallel.c", "parallel.json", "include/mfn.h",
    "lib/cmake/mfn/mfnConfig.cmake",
    "lib/cmake/mfn/mfnConfigVersion.cmake", "lib/libmfn.a", "lib/pkgconfig/mfn.pc",
    "manifest.json", "onnx/model_fp32.onnx", "onnx/model_int8_qdq.onnx", "recipe.json",
    "report.html", "report.json", "target.json", "verify.c", "golden/SHA256SUMS",
    "golden/vectors.txt",
}  # fmt: skip


def can_prove() -> bool:
    return find_compiler() is not None and (native_aarch64() or proof.find_emulator() is not None)


needs_prover = pytest.mark.skipif(
    not can_prove(), reason="no AArch64 compiler, or no qemu-aarch64 to run what it makes"
)


@pytest.fixture(scope="module")
def bundle(checkpoint: Path, faces: FaceFolder, tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp("arm") / "bundle"
    options = [*data_options(checkpoint, faces), "--max-drop", 100, "--out", out]
    found = mfn("--target", "arm64", *options)
    assert found.exit_code == 0, found.output
    return out


def test_a_run_writes_a_whole_bundle(bundle: Path) -> None:
    written = {p.relative_to(bundle).as_posix() for p in bundle.rglob("*") if p.is_file()}
    golden = {f"golden/{i:03d}.{kind}" for i in range(6) for kind in ("rgb", "i8", "f32")}
    shared = {"lib/libmfn.so"} if find_compiler() else set()
    assert written == FILES | golden | shared
    verify_bundle(bundle)


def test_the_report_says_what_was_built_and_proven(bundle: Path) -> None:
    result = load(bundle / "report.json")
    assert result.backend is not None
    found = result.backend.firmware
    assert found is not None
    assert [v.variant for v in found.variants] == ["neon", "dotprod"]
    assert found.plan.peak >= found.plan.lower_bound
    assert result.size.workspace == found.plan.peak
    assert result.size.text == max(v.text for v in found.variants)
    assert result.size.rodata == max(v.rodata for v in found.variants)
    assert found.agreement.values > 0
    assert (found.agreement.differing, found.agreement.differing_by_layer) == (0, 0)
    assert result.backend.judge_cosine > 0.999999
    assert result.backend.precision.int8_layers == 17
    assert result.latency is None
    assert result.gates.latency is None
    census = found.census
    assert all(
        3 * row.float_multiply_add <= row.dot + row.widening + row.multiply for row in census
    )
    for variant, what in (("neon", "pairwise"), ("dotprod", "dot")):
        dense = [r for r in found.census if (r.variant, r.kind) == (variant, "dense-int8")]
        assert dense
        assert all(getattr(row, what) > 0 for row in dense)
    assert bool(found.proofs) == can_prove()


@needs_prover
def test_every_cpu_is_proven(bundle: Path) -> None:
    result = load(bundle / "report.json")
    assert result.backend is not None
    assert result.backend.firmware is not None
    proofs = {row.cpu: row for row in result.backend.firmware.proofs}
    if native_aarch64():
        assert set(proofs) == {"native"}
        return
    assert set(proofs) == {"cortex-a53", "cortex-a76", "max"}
    assert proofs["cortex-a53"].variants == ("neon",)
    assert proofs["cortex-a76"].variants == proofs["max"].variants == ("neon", "dotprod")


def test_the_page_and_the_summary_show_the_library(bundle: Path) -> None:
    page = (bundle / "report.html").read_text()
    assert "Memory plan" in page
    assert "sadalp" in page
    summary = mfn("report", bundle).stdout
    assert "Workspace" in summary
    assert "0 of" in summary


@needs_prover
def test_verify_accepts_it_and_says_what_was_proven(bundle: Path) -> None:
    found = mfn("verify", bundle, "--quiet")
    assert found.exit_code == 0, found.output
    assert "every bit right" in found.stdout
    document = json.loads(mfn("verify", bundle, "--quiet", "--json").stdout)
    assert {"bundle", "target", "files", "proofs"} <= set(document)


def changed(bundle: Path, folder: Path, name: str, place: int) -> Path:
    """A copy of the bundle with one bit of a file flipped, and a manifest that says it is right."""
    copy = folder / "copy"
    shutil.copytree(bundle, copy)
    content = bytearray((copy / name).read_bytes())
    content[place] ^= 1
    (copy / name).write_bytes(bytes(content))
    return copy


def forged(copy: Path, name: str) -> None:
    """Make the manifest agree with a changed file, as somebody who wants to deceive would."""
    import hashlib

    manifest = json.loads((copy / "manifest.json").read_text())
    for entry in manifest["files"]:
        if entry["name"] == name:
            entry["sha256"] = hashlib.sha256((copy / name).read_bytes()).hexdigest()
    (copy / "manifest.json").write_text(json.dumps(manifest))


@pytest.mark.parametrize("name", ["lib/libmfn.a", "golden/000.f32", "golden/002.rgb"])
def test_a_flipped_bit_fails_by_its_hash(bundle: Path, tmp_path: Path, name: str) -> None:
    refused(7, name, "verify", changed(bundle, tmp_path, name, -5))


@needs_prover
def test_a_flipped_bit_of_an_embedding_fails_by_its_result(bundle: Path, tmp_path: Path) -> None:
    copy = changed(bundle, tmp_path, "golden/001.f32", 20)
    forged(copy, "golden/001.f32")
    refused(7, "not what its oracle says", "verify", copy)


@needs_prover
def test_a_flipped_weight_fails_by_its_result(bundle: Path, tmp_path: Path) -> None:
    name = "lib/libmfn.a"
    content = (bundle / name).read_bytes()
    # The last int8 weights of a variant: its constants end where the next section begins.
    start, size = section(content, ".rodata.mfn_neon")
    copy = tmp_path / "copy"
    shutil.copytree(bundle, copy)
    broken = bytearray(content)
    for place in range(start + size // 2, start + size // 2 + 64):
        broken[place] ^= 0x40
    (copy / name).write_bytes(bytes(broken))
    forged(copy, name)
    refused(7, "not what its oracle says", "verify", copy)


def section(archive: bytes, name: str) -> tuple[int, int]:
    """Offset and size of a section of the archive's one member."""
    import io

    from elftools.elf.elffile import ELFFile

    start = archive.index(b"\x7fELF")
    found = ELFFile(io.BytesIO(archive[start:])).get_section_by_name(name)
    return start + found["sh_offset"], found["sh_size"]


def test_without_an_emulator_the_run_says_so_and_verify_exits_6(
    bundle: Path,
    checkpoint: Path,
    faces: FaceFolder,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    if native_aarch64():
        pytest.skip("this machine needs no emulator")
    monkeypatch.setattr(proof.shutil, "which", lambda name: None)
    refused(6, "apt install qemu-user", "verify", bundle)
    options = [*data_options(checkpoint, faces), "--max-drop", 100, "--out", tmp_path / "b"]
    found = mfn("--target", "arm64", *options, "--quiet")
    assert found.exit_code == 0, found.output
    assert "Not proven here" in found.stdout
    backend = load(tmp_path / "b" / "report.json").backend
    assert backend is not None
    assert backend.firmware is not None
    assert backend.firmware.proofs == ()


def test_evaluate_runs_the_librarys_integers(bundle: Path, faces: FaceFolder) -> None:
    options = ["--images", faces.images, "--pairs", faces.pairs, "--json", "--quiet"]
    shipped = json.loads(mfn("evaluate", bundle, *options).stdout)
    judge = json.loads(mfn("evaluate", bundle, *options, "--engine", "onnxruntime").stdout)
    assert shipped["int8"]["accuracy"] == judge["int8"]["accuracy"]
    assert abs(shipped["cosine"]["mean"] - judge["cosine"]["mean"]) < 1e-6


def test_a_target_with_one_variant(checkpoint: Path, faces: FaceFolder, tmp_path: Path) -> None:
    options = [*data_options(checkpoint, faces), "--max-drop", 100, "--out", tmp_path / "b"]
    found = mfn("--target", "cortex-a55", *options, "--quiet")
    assert found.exit_code == 0, found.output
    header = (tmp_path / "b/include/mfn.h").read_text()
    assert "MFN_HAS_DOTPROD" in header
    assert "MFN_HAS_NEON" not in header


@pytest.mark.skipif(shutil.which("nm") is None, reason="no nm")
def test_the_archive_needs_nothing_from_outside(bundle: Path) -> None:
    found = subprocess.run(
        ["nm", "-u", str(bundle / "lib/libmfn.a")], capture_output=True, text=True, check=True
    )
    names = {line.split()[-1] for line in found.stdout.splitlines() if " " in line.strip()}
    assert names <= {"memcpy", "memset"}


def test_two_runs_give_the_same_bytes(
    bundle: Path, checkpoint: Path, faces: FaceFolder, tmp_path: Path
) -> None:
    options = [*data_options(checkpoint, faces), "--max-drop", 100, "--out", tmp_path / "b"]
    found = mfn("--target", "arm64", *options, "--quiet", "--cache-dir", tmp_path / "cache")
    assert found.exit_code == 0, found.output
    for name in ("lib/libmfn.a", "golden/SHA256SUMS", "onnx/model_int8_qdq.onnx"):
        assert (tmp_path / "b" / name).read_bytes() == (bundle / name).read_bytes(), name


@pytest.mark.parametrize(
    ("change", "says"),
    [
        (('triple = "aarch64-linux-gnu"', 'triple = "x86_64-linux-gnu"'), "x86_64 cannot have"),
        (
            ('triple = "aarch64-linux-gnu"', 'triple = "armv7a-linux-gnueabihf"'),
            "armv7a cannot have",
        ),
        (('triple = "aarch64-linux-gnu"', 'triple = "aarch64-apple-darwin"'), "ELF"),
        (('triple = "aarch64-linux-gnu"', 'triple = "aarch64-pc-windows-msvc"'), "ELF"),
        (('cpu = "cortex-a72"', 'cpu = "cortex-a76"'), "every Armv8.0 core"),
        (('cpu = "cortex-a76"', 'cpu = "cortex-a72"'), "cortex-a72 has no dotprod"),
        (('triple = "aarch64-linux-gnu"', 'triple = "aarch64-none-elf"'), "one variant only"),
        (('features = ["neon", "dotprod"]', 'features = ["neon"]'), "needs the features"),
        (('features = ["neon"]', 'features = ["neon", "sve"]'), "features"),
        (('name = "dotprod"', 'name = "neon"'), "neon"),
        (("[code]", "[kode]"), "kode"),
        (('backend = "tvm"', 'backend = "openvino"'), "tvm backend"),
    ],
)
def test_a_target_that_promises_too_much(
    tmp_path: Path, change: tuple[str, str], says: str
) -> None:
    path = tmp_path / "mine.toml"
    text = (data_dir("targets") / "arm64.toml").read_text()
    assert change[0] in text
    path.write_text(text.replace(*change))
    refused(3, says, "--target", path)


def test_more_threads_than_one_are_refused() -> None:
    refused(2, "one thread", "--target", "arm64", "--threads", 2)


def test_a_core_that_llvm_does_not_know(
    checkpoint: Path, faces: FaceFolder, tmp_path: Path
) -> None:
    path = tmp_path / "mine.toml"
    text = (data_dir("targets") / "cortex-a76.toml").read_text()
    path.write_text(text.replace('cpu = "cortex-a76"', 'cpu = "cortex-a99"'))
    options = [*data_options(checkpoint, faces), "--out", tmp_path / "b"]
    refused(3, "CPU named 'cortex-a99'", "--target", path, *options)
    assert not (tmp_path / "b").exists()


def test_a_misspelt_key_of_a_variant_is_named(tmp_path: Path) -> None:
    path = tmp_path / "mine.toml"
    text = (data_dir("targets") / "cortex-a53.toml").read_text()
    path.write_text(text.replace("features =", "feature ="))
    refused(3, "Did you mean 'features'", "--target", path)


def test_the_manifest_says_who_normalizes(bundle: Path) -> None:
    from mfn_compile.bundle.manifest import read_manifest

    manifest = read_manifest(bundle)
    assert manifest.normalization == "inside of the artifact"
    assert manifest.input == "uint8 [112, 112, 3], RGB"
