"""`mfn-compile profile`: where the virtual board spends its cycles."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import pytest

from mfn_compile.arm.firmware.linker import find_compiler
from mfn_compile.arm.firmware.proof import find_emulator
from mfn_compile.bundle.manifest import MANIFEST, read_manifest
from mfn_compile.hashing import file_sha256
from tests.cli.test_bad_input import refused
from tests.cli.test_commands import data_options, mfn
from tests.conftest import FaceFolder

X86_ARCHIVE = b"!<arch>\n" + bytes(60) + b"\x7fELF\x02\x01\x01" + bytes(11) + b"\x3e\x00"
needs_board = pytest.mark.skipif(
    find_compiler() is None or find_emulator() is None,
    reason="no AArch64 compiler, or no qemu-aarch64",
)


@pytest.fixture(scope="module")
def bundle(checkpoint: Path, faces: FaceFolder, tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp("profile") / "bundle"
    options = [*data_options(checkpoint, faces), "--max-drop", 100, "--out", out]
    assert mfn("--target", "arm64", *options, "--quiet").exit_code == 0
    return out


@needs_board
def test_the_table_and_the_document_agree(bundle: Path) -> None:
    shown = mfn("profile", bundle, "--device", "virtual:cortex-a55")
    assert shown.exit_code == 0, shown.output
    assert "modelled for Cortex-A55, 1 thread" in shown.stdout
    assert "gemm_" in shown.stdout
    document = json.loads(mfn("profile", bundle, "--device", "virtual:cortex-a55", "--json").stdout)
    assert document["variant"] == "dotprod"
    total = sum(row["cycles"] for row in document["kernels"])
    assert abs(total - document["cycles"]) < 0.05 * document["cycles"]


@needs_board
def test_a_core_without_dot_products_runs_the_plain_code(bundle: Path) -> None:
    document = json.loads(mfn("profile", bundle, "--device", "virtual:cortex-a53", "--json").stdout)
    assert document["variant"] == "neon"


def refuses(code: int, says: str, *arguments: object) -> None:
    found = mfn("profile", *arguments)
    assert found.exit_code == code, found.output
    assert says in found.stderr


def test_wrong_cores_variants_and_folders(bundle: Path, tmp_path: Path) -> None:
    refuses(3, "cortex-a72", bundle, "--device", "virtual:cortex-a99")
    refuses(3, "no dot product", bundle, "--device", "virtual:cortex-a53", "--variant", "dotprod")
    refuses(3, "no bundle with a library", tmp_path, "--device", "virtual:cortex-a53")
    refused(2, "belongs to the whole run", "--target", "arm64", "targets")


@needs_board
def test_bundles_that_cannot_be_run(bundle: Path, tmp_path: Path) -> None:
    for name, file, content, says in (
        ("image", "golden/000.rgb", b"short", "has 5 of"),
        ("text", "lib/libmfn.a", b"no library", "is no static library"),
        ("other", "lib/libmfn.a", X86_ARCHIVE, "for another architecture"),
    ):
        copy = shutil.copytree(bundle, tmp_path / name)
        (copy / file).write_bytes(content)
        refuses(7, f"{file} has", copy, "--device", "virtual:cortex-a53")
        sign_again(copy, file)
        refuses(3, says, copy, "--device", "virtual:cortex-a53")


def sign_again(bundle: Path, file: str) -> None:
    """The manifest as if the file had been like that when the bundle was written."""
    manifest = read_manifest(bundle)
    found = {"bytes": (bundle / file).stat().st_size, "sha256": file_sha256(bundle / file)}
    entries = (
        entry.model_copy(update=found if entry.name == file else {}) for entry in manifest.files
    )
    text = manifest.model_copy(update={"files": tuple(entries)}).to_json()
    (bundle / MANIFEST).write_text(text)


def test_a_bundle_that_was_changed_is_not_profiled(bundle: Path, tmp_path: Path) -> None:
    copy = shutil.copytree(bundle, tmp_path / "copy")
    with (copy / "lib" / "libmfn.a").open("r+b") as handle:
        handle.seek(-1, 2)
        last = handle.read(1)
        handle.seek(-1, 2)
        handle.write(bytes([last[0] ^ 1]))
    for device in ("virtual:cortex-a53", "local", "rpc://127.0.0.1:1/none"):
        refuses(7, "lib/libmfn.a differs in its content", copy, "--device", device)
