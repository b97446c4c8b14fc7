"""Bad input ends in one paragraph and its exit code, and leaves nothing half done."""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from safetensors.torch import load_file, save_file

from tests.cli.test_commands import data_options, mfn
from tests.conftest import FaceFolder


def refused(code: int, says: str, *arguments: object) -> None:
    found = mfn(*arguments) if "targets" in arguments else mfn(*arguments, "--quiet")
    assert found.exit_code == code, found.output
    assert found.stdout == ""
    assert says in found.stderr
    assert found.stderr.startswith("mfn-compile: ")
    assert found.stderr.count("\n") == 1, found.stderr


def run_options(checkpoint: Path, faces: FaceFolder, out: Path) -> list[object]:
    return ["--target", "intel", *data_options(checkpoint, faces), "--out", out]


def test_usage(checkpoint: Path, faces: FaceFolder, tmp_path: Path) -> None:
    refused(2, "--lfw LFW_HOME", "--target", "intel", "--checkpoint", checkpoint)
    refused(2, "--target NAME", "--checkpoint", checkpoint)
    refused(2, "belong together", "--target", "intel", "--images", faces.images)
    refused(2, "neither RGB nor BGR", "--target", "intel", "--color", "grey")
    refused(2, "neither one number nor three", "--target", "intel", "--mean", "1,2")
    both = ["--images", faces.images, "--pairs", faces.pairs, "--lfw", tmp_path]
    refused(2, "two evaluation sets", "--target", "intel", "--checkpoint", checkpoint, *both)
    assert mfn("--target", "intel", "--no-such-option").exit_code == 2
    for before in (["--target", "intel"], ["--checkpoint", "x"], ["--json"], ["--quiet"]):
        refused(2, "belongs to the whole run", *before, "targets")
    refused(2, "no latency budget", "--target", "intel", "--max-latency-ms", 0)
    assert mfn().exit_code == 2


def test_unknown_target_recipe_and_backend() -> None:
    refused(3, "Did you mean 'intel'", "--target", "intl")
    refused(3, "Known: ", "--target", "intel", "--recipe", "defalt")
    refused(3, "Known: ", "--target", "riscv")


def test_misspelt_recipe_key(tmp_path: Path) -> None:
    recipe = tmp_path / "mine.toml"
    recipe.write_text('name = "mine"\ndescription = ""\n[ptq]\npresett = "mixed"\n')
    refused(3, "Did you mean 'preset'", "--target", "intel", "--recipe", recipe)


def checkpoint_case(kind: str, good: Path, folder: Path) -> Path:
    path = folder / f"{kind}.safetensors"
    if kind == "missing":
        return path
    if kind == "truncated":
        path.write_bytes(good.read_bytes()[:-100])
    elif kind == "nan":
        state = load_file(good)
        state["stem.conv.weight"][0, 0, 0, 0] = float("nan")
        save_file(state, path)
    elif kind == "resnet":
        blocks = {f"layer{i}.0.conv1.weight": torch.zeros(64, 64, 1, 1) for i in range(1, 5)}
        save_file({"conv1.weight": torch.zeros(64, 3, 7, 7), **blocks}, path)
    elif kind == "code":
        path = folder / "code.pt"
        torch.save({"state_dict": _Evil()}, path)
    return path


class _Evil:
    def __reduce__(self) -> tuple[object, tuple[str]]:
        return os.system, ("touch evil-ran",)


@pytest.mark.parametrize(
    ("kind", "says"),
    [
        ("missing", "does not exist"), ("truncated", "truncated"), ("nan", "stem.conv.weight"),
        ("resnet", "layout"), ("code", "system"),
    ],
)  # fmt: skip
def test_checkpoints(
    kind: str, says: str, checkpoint: Path, faces: FaceFolder, tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:  # fmt: skip
    monkeypatch.chdir(tmp_path)
    bad = checkpoint_case(kind, checkpoint, tmp_path)
    refused(3, says, *run_options(bad, faces, tmp_path / "out"))
    assert not (tmp_path / "out").exists()
    assert not (tmp_path / "evil-ran").exists()


def copy_of(faces: FaceFolder, tmp_path: Path) -> FaceFolder:
    copy = FaceFolder(tmp_path / "crops", tmp_path / "pairs.csv")
    shutil.copytree(faces.images, copy.images)
    shutil.copy(faces.pairs, copy.pairs)
    return copy


def test_absent_image_in_pairs(checkpoint: Path, faces: FaceFolder, tmp_path: Path) -> None:
    copy = copy_of(faces, tmp_path)
    (copy.images / "p003" / "1.png").unlink()
    refused(3, "p003/1.png", *run_options(checkpoint, copy, tmp_path / "out"))


@pytest.mark.parametrize("kind", ["corrupt", "pixel"])
def test_bad_image(kind: str, checkpoint: Path, faces: FaceFolder, tmp_path: Path) -> None:
    copy = copy_of(faces, tmp_path)
    path = copy.images / "p003" / "1.png"
    if kind == "corrupt":
        path.write_bytes(path.read_bytes()[:200])
    else:
        Image.fromarray(np.zeros((1, 1, 3), np.uint8)).save(path)
    refused(3, "p003/1.png", *run_options(checkpoint, copy, tmp_path / "out"))
    assert not (tmp_path / "out").exists()


def test_empty_folder(checkpoint: Path, tmp_path: Path) -> None:
    (tmp_path / "empty").mkdir()
    arguments = ["--target", "intel", "--checkpoint", checkpoint, "--calibration"]
    refused(3, "holds no images", *arguments, tmp_path / "empty")


def test_calibration_on_evaluation_images_is_refused(
    checkpoint: Path, faces: FaceFolder, tmp_path: Path
) -> None:
    options = run_options(checkpoint, faces, tmp_path / "out")
    refused(3, "calibration", *options, "--calibration", faces.images)


def test_greyscale_images_are_fine(checkpoint: Path, faces: FaceFolder, tmp_path: Path) -> None:
    copy = copy_of(faces, tmp_path)
    for path in copy.images.rglob("*.png"):
        Image.open(path).convert("L").save(path)
    options = run_options(checkpoint, copy, tmp_path / "out")
    found = mfn(*options, "--max-drop", 100, "--no-all-pairs")
    assert found.exit_code == 0, found.output


def test_an_output_that_is_no_bundle_is_left_alone(
    checkpoint: Path, faces: FaceFolder, tmp_path: Path
) -> None:
    (tmp_path / "out").mkdir()
    (tmp_path / "out" / "thesis.txt").write_text("precious")
    refused(2, "not a bundle of mfn-compile", *run_options(checkpoint, faces, tmp_path / "out"))
    assert (tmp_path / "out" / "thesis.txt").read_text() == "precious"


def mounted(folder: Path, options: str) -> None:
    folder.mkdir()
    command = ["mount", "-t", "tmpfs", "-o", options, "tmpfs", str(folder)]
    if subprocess.run(command, capture_output=True, check=False).returncode != 0:
        pytest.skip("this user may not mount a tmpfs")


@pytest.mark.parametrize("role", ["--out", "--cache-dir"])
@pytest.mark.parametrize("kind", ["full", "read-only"])
def test_disks(role: str, kind: str, checkpoint: Path, faces: FaceFolder, tmp_path: Path) -> None:
    disk = tmp_path / "disk"
    mounted(disk, "size=64k" if kind == "full" else "ro,size=1m")
    try:
        options = run_options(checkpoint, faces, tmp_path / "out")
        refused(6, str(disk), *options, "--max-drop", "100", role, disk / "x")
        assert not (disk / "x").exists() or role == "--cache-dir"
    finally:
        subprocess.run(["umount", str(disk)], check=True)


def test_ctrl_c_ends_with_130_and_no_bundle(
    checkpoint: Path, faces: FaceFolder, tmp_path: Path
) -> None:
    arguments = [*run_options(checkpoint, faces, tmp_path / "out"), "--no-cache"]
    child = subprocess.Popen(
        [sys.executable, "-m", "mfn_compile", *map(str, arguments)], stderr=subprocess.PIPE,
        text=True,
    )  # fmt: skip
    assert child.stderr is not None
    for line in child.stderr:
        if "quantiz" in line.lower() or "calibrat" in line.lower():
            break
    time.sleep(0.3)
    child.send_signal(signal.SIGINT)
    rest = child.communicate()[1]
    # Dead of SIGINT after our message, where it struck inside of a library's embedded Python:
    # a shell calls both 130.
    assert child.returncode in (130, -signal.SIGINT), rest
    assert "resume" in rest
    assert "Traceback" not in rest
    assert not (tmp_path / "out").exists()
