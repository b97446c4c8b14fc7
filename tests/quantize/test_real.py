"""The shipped recipes on the real checkpoints: bars on the held-out cosine.

With a third of the images that they ask for, in half of the time, and the bars of all of them.
"""

from __future__ import annotations

import json
import tomllib
from pathlib import Path

import pytest

from mfn_compile.resources import data_dir
from tests.cli.test_commands import mfn

pytestmark = [pytest.mark.data, pytest.mark.slow]


IMAGES, HELD_OUT = 96, 64


def with_fewer_images(recipe: str, folder: Path) -> Path:
    text = (data_dir("calib") / f"{recipe}.toml").read_text()
    plan = tomllib.loads(text)["calibration"]
    for key, count in (("images", IMAGES), ("held_out", HELD_OUT)):
        text = text.replace(f"{key} = {plan[key]}", f"{key} = {count}")
    assert tomllib.loads(text)["calibration"]["images"] == IMAGES
    path = folder / f"{recipe}.toml"
    path.write_text(text)
    return path


def held_out_cosine(name: str, weights: Path, lfw_home: Path, out: Path) -> float:
    out.mkdir()
    recipe, out = with_fewer_images(name, out), out / "bundle"
    found = mfn(
        "quantize", "--target", "intel-vnni", "--recipe", recipe, "--checkpoint", weights,
        "--lfw", lfw_home, "--out", out, "--json", "--quiet",
    )  # fmt: skip
    assert found.exit_code == 0, found.output
    result = json.loads(found.stdout)["quantization"]
    assert result["float_convolutions"] == []
    assert result["calibration"]["shared_identities"] == 68
    return float(result["candidates"][0]["held_out_cosine"])


@pytest.mark.parametrize(
    ("name", "bar"), [("foamliu_mobilefacenet", 0.9970), ("xiaoccer_068", 0.9960)]
)
def test_recipes_keep_the_embedding(
    name: str, bar: float, data: Path, lfw_home: Path, tmp_path: Path
) -> None:
    weights = data / "weights" / f"{name}.safetensors"
    assert held_out_cosine("default", weights, lfw_home, tmp_path / "default") >= bar


def test_the_accurate_recipe_is_better(data: Path, lfw_home: Path, tmp_path: Path) -> None:
    weights = data / "weights" / "xiaoccer_068.safetensors"
    usual = held_out_cosine("default", weights, lfw_home, tmp_path / "default")
    assert held_out_cosine("accurate", weights, lfw_home, tmp_path / "accurate") > usual
