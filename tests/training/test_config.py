from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from training.config import Koch, RecipeError, load_recipe, recipe_names, recipe_text

RECIPE = """
name = "mine"
summary = "a test"

[data]
source = "smoke-digits"

[encoder]
kind = "mlp"
widths = [16, 8]

[objective]
kind = "contrastive"

[batches]
kind = "pairs"
size = 8

[loop]
steps = 20

[smoke]
loop = { steps = 5 }
encoder = { widths = [4] }
"""


@pytest.fixture
def mine(tmp_path: Path) -> str:
    path = tmp_path / "mine.toml"
    path.write_text(RECIPE, encoding="utf-8")
    return str(path)


@pytest.mark.parametrize(
    ("changes", "field"),
    [
        ({"loop.stepps": 5}, "loop.stepps: Extra inputs are not permitted"),
        ({"encoder.depth": 3}, "encoder.mlp.depth: Extra inputs"),
        ({"optimizer": {}}, "optimizer: Extra inputs"),
        ({"augmentation.affine.rotate": 3}, "augmentation.affine.rotate: Extra inputs"),
        ({"loop.steps": 0}, "loop.steps: Input should be greater than or equal to 1"),
        ({"optimiser.momentum": [0.5, 1.5]}, "optimiser.momentum.1: Input should be less than or equal to 1"),
        ({"encoder.kind": "transformer"}, "encoder: Input tag 'transformer'"),
        ({"name": "Mine!"}, "name: String should match pattern"),
    ],
)
def test_wrong_setting_is_named(mine: str, changes: dict[str, Any], field: str) -> None:
    with pytest.raises(RecipeError, match=field.replace(".", r"\.")):
        load_recipe(mine, changes=changes)


def test_smoke_table_is_laid_over_the_rest(mine: str) -> None:
    plain, smoke = load_recipe(mine), load_recipe(mine, smoke=True)
    assert (plain.loop.steps, smoke.loop.steps) == (20, 5)
    assert (plain.encoder.widths, smoke.encoder.widths) == ((16, 8), (4,))  # type: ignore[union-attr]
    assert plain.loop.epoch == smoke.loop.epoch


def test_change_wins_over_the_smoke_table(mine: str) -> None:
    assert load_recipe(mine, smoke=True, changes={"loop.steps": 7}).loop.steps == 7


def test_table_of_another_kind_replaces_the_whole(mine: str) -> None:
    config = load_recipe(mine, changes={"encoder": {"kind": "koch"}})
    assert isinstance(config.encoder, Koch)


def test_configurations_with_equal_settings_have_one_digest_and_others_another(mine: str) -> None:
    digest = load_recipe(mine).digest
    assert load_recipe(mine, changes={"loop.steps": 20}).digest == digest
    assert load_recipe(mine, changes={"seed": 2}).digest != digest
    assert load_recipe(mine, smoke=True).digest != digest


def test_unknown_recipe_is_refused_with_the_known_ones() -> None:
    with pytest.raises(RecipeError, match=r"no recipe 'digit'; known: .*digits-contrastive"):
        load_recipe("digit")


def test_file_that_is_no_toml_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "broken.toml"
    path.write_text("name = ", encoding="utf-8")
    with pytest.raises(RecipeError, match=r"broken\.toml"):
        load_recipe(str(path))


@pytest.mark.parametrize("recipe", recipe_names())
def test_file_of_a_recipe_has_its_name_and_a_smoke_table(recipe: str) -> None:
    config = load_recipe(recipe)
    assert config.name == recipe
    assert config.summary
    assert "[smoke]" in recipe_text(recipe) or "\nsmoke" in recipe_text(recipe)
    smoke = load_recipe(recipe, smoke=True)
    assert smoke.loop.steps < config.loop.steps
    assert smoke.data.source.startswith("smoke-")
