"""Recipes whose tables do not fit one another are refused, saying what would."""

from typing import Any

import pytest

from training.config import RecipeError, load_recipe, recipe_names


@pytest.mark.parametrize("smoke", [False, True])
@pytest.mark.parametrize("recipe", recipe_names())
def test_every_recipe_fits(recipe: str, smoke: bool) -> None:
    assert load_recipe(recipe, smoke=smoke).name == recipe


PK = {"kind": "pk", "subjects": 10, "samples": 4}
PAIRS = {"kind": "pairs", "size": 32}


@pytest.mark.parametrize(
    ("recipe", "changes", "problem"),
    [
        ("digits", {"batches": PAIRS}, "margin-softmax needs batches of kind pk"),
        ("digits-triplet", {"batches": PAIRS}, "triplet needs batches of kind pk"),
        ("digits", {"objective": {"kind": "closest-negatives"}}, "batches.samples = 2"),
        ("digits", {"objective": {"kind": "weighted-l1"}}, 'metric = "l1"'),
        ("digits", {"objective": {"kind": "pair-features"}}, "pair-features needs batches of kind pairs"),
        ("digits", {"encoder": {"kind": "lstm-mean"}}, "encoder lstm-mean does not take the data of mnist"),
        ("digits", {"right_encoder": {"kind": "lstm-mean"}}, "one too many"),
        (
            "digits-contrastive",
            {"batches": {**PK, "samples": 1}},
            "mated pairs come from the batch",
        ),
    ],
)
def test_tables_that_do_not_fit_are_refused(recipe: str, changes: dict[str, Any], problem: str) -> None:
    with pytest.raises(RecipeError, match=problem):
        load_recipe(recipe, changes=changes)
