"""The shipped recipes on the real checkpoints: bars on the held-out cosine."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from tests.cli.test_commands import mfn

pytestmark = [pytest.mark.data, pytest.mark.slow]


def held_out_cosine(recipe: str, weights: Path, lfw_home: Path, out: Path) -> float:
    found = mfn(
        "quantize", "--target", "intel-vnni", "--recipe", recipe, "--checkpoint", weights,
        "--lfw", lfw_home, "--out", out, "--json", "--quiet",
    )  # fmt: skip
    assert found.exit_code == 0, found.output
    result = json.loads(found.stdout)["quantization"]
    assert result["float_convolutions"] == []
    assert result["calibration"]["shared_identities"] == 215
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
