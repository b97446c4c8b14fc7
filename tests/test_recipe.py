"""Recipes: the shipped ones load, mistakes are explained."""

from __future__ import annotations

from pathlib import Path

import pytest

from mfn_compile.errors import BadInputError
from mfn_compile.recipe import Recipe, list_recipes, load_recipe
from mfn_compile.resources import data_dir


def test_every_shipped_recipe_loads_and_is_named_as_its_file() -> None:
    names = {recipe.name for recipe in list_recipes()}
    assert names == {path.stem for path in data_dir("calib").glob("*.toml")}
    assert {"default", "accurate"} <= names


def test_a_recipe_is_its_document() -> None:
    for recipe in list_recipes():
        assert Recipe.model_validate_json(recipe.to_json()) == recipe
    assert load_recipe("default").digest() != load_recipe("accurate").digest()


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ('[ptq]\npresett = "mixed"', "Did you mean 'preset'"),
        ("[ptqq]", "Did you mean 'ptq'"),
        ("[calibration]\nimage = 3", "Did you mean 'images'"),
        ("[calibration]\nimages = 0", "calibration.images"),
        ('[ptq]\nactivation_range = "kl"', "ptq.activation_range"),
        ('[ptq]\nfloat_layers = ["("]', "not a regular expression"),
        ("[qat]\nsteps = 5\nwarmup = 5", "leaves nothing"),
        ("[qat]\nlearning_rate = inf", "qat.learning_rate"),
    ],
)
def test_mistakes_are_explained(tmp_path: Path, text: str, says: str) -> None:
    path = tmp_path / "mine.toml"
    path.write_text(f'name = "mine"\ndescription = "d"\n{text}\n')
    with pytest.raises(BadInputError, match=r"mine\.toml") as caught:
        load_recipe(path)
    assert says in str(caught.value)
