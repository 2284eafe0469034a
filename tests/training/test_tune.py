from __future__ import annotations

import csv
import signal
from pathlib import Path
from typing import Any

import optuna
import pytest

from tests.support.cli import visavis, visavis_json
from tests.training.small_runs import signal_after
from training import tune as t
from training.config import RecipeError, RunConfig, load_recipe, recipe_names
from training.encoders.koch import smallest_map
from training.train import RunStoppedError, train

NOWHERE = Path("no data is needed")


def recipe(name: str = "digits-contrastive", **changes: Any) -> RunConfig:
    tables = {"encoder.widths": [16, 8], "batches.array": 400, **changes}
    return load_recipe(name, smoke=True, changes=tables if name == "digits-contrastive" else changes)


def settings_of(name: str, count: int = 40) -> list[t.Settings]:
    """Return what the first trials of a search would be."""
    study = optuna.create_study(sampler=optuna.samplers.RandomSampler(seed=0))
    config = load_recipe(name)
    return [t.suggest(study.ask(), config) for _ in range(count)]


def test_koch_is_searched_over_the_ranges_of_its_paper() -> None:
    drawn = settings_of("omniglot-koch", 300)
    rates = [settings["optimiser"]["learning_rate"] for settings in drawn]
    assert 1e-4 <= min(rates) < 1.2e-4
    assert 0.08 < max(rates) <= 1e-1
    ends = [settings["optimiser"]["momentum"][1] for settings in drawn]
    assert 0 <= min(ends) < 0.02
    assert 0.98 < max(ends) <= 1
    for place in range(4):
        filters = {settings["encoder.filters"][place] for settings in drawn}
        assert filters == set(range(16, 257, 16))
        decays = [settings["encoder.l2_convolution"][place] for settings in drawn]
        assert 0 <= min(decays) < 0.001
        assert 0.099 < max(decays) <= 0.1
    assert {settings["encoder.kernels"][0] for settings in drawn} == set(range(3, 21))
    units = [settings["encoder.units"] for settings in drawn]
    assert 128 <= min(units) < 200
    assert 4000 < max(units) <= 4096


def test_koch_kernels_always_leave_something_of_the_image() -> None:
    for settings in settings_of("omniglot-koch", 300):
        assert min(settings["encoder.kernels"]) >= 3
        assert smallest_map(105, settings["encoder.kernels"]) >= 1


def test_every_koch_trial_is_a_valid_configuration() -> None:
    config = load_recipe("omniglot-koch")
    for settings in settings_of("omniglot-koch"):
        changed = t.with_settings(config, settings)
        assert changed.optimiser.kind == "sgd"
        assert changed.optimiser.decay_an_epoch == 0.99


def test_other_recipes_are_searched_around_their_own_settings() -> None:
    drawn = settings_of("digits-triplet")
    assert set(drawn[0]) == {
        "optimiser.learning_rate",
        "optimiser.weight_decay",
        "objective.margin",
        "batches.subjects",
        "batches.samples",
        "encoder.widths",
    }
    assert {settings["batches.samples"] for settings in drawn} == {8, 16, 32}
    assert {tuple(settings["encoder.widths"]) for settings in drawn} == {
        (128, 128, 32),
        (128, 128, 64),
        (128, 128, 128),
    }
    assert all(1e-4 <= settings["optimiser.learning_rate"] <= 1e-2 for settings in drawn)


@pytest.mark.parametrize("name", recipe_names())
def test_best_recipe_is_read_as_it_was_written(name: str, tmp_path: Path) -> None:
    config = load_recipe(name)
    path = tmp_path / "best.toml"
    path.write_text(t.as_toml(config), encoding="utf-8")
    assert load_recipe(str(path)) == config


def test_search_finds_a_recipe_that_trains_and_lists_its_trials(tmp_path: Path) -> None:
    found = t.tune(recipe(), NOWHERE, tmp_path, trials=2, steps=20)
    assert found.measure == "eer"
    assert [row["trial"] for row in found.rows] == [0, 1]
    complete = [row["error"] for row in found.rows if row["state"] == "complete"]
    assert found.error == min(complete)
    best = load_recipe(str(tmp_path / t.BEST))
    assert best == found.best
    assert best.name == "digits-contrastive-tuned"
    assert best.loop == recipe().loop
    with (tmp_path / t.TABLE).open(newline="") as file:
        table = list(csv.DictReader(file))
    assert [float(row["error"]) for row in table] == [row["error"] for row in found.rows]
    assert (tmp_path / "trial-001" / "log.csv").is_file()


def test_search_stopped_within_a_trial_and_gone_on_with_equals_an_unbroken_one(tmp_path: Path) -> None:
    unbroken = t.tune(recipe(), NOWHERE, tmp_path / "unbroken", trials=2, steps=20)

    def interrupted(*args: Any, **kwargs: Any) -> Any:
        count, stop = kwargs["progress"], signal_after(9, signal.SIGTERM)
        kwargs["progress"] = lambda steps: (count(steps), stop(steps))
        return train(*args, **kwargs)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(t, "train", interrupted)
        with pytest.raises(RunStoppedError):
            t.tune(recipe(), NOWHERE, tmp_path / "broken", trials=2, steps=20)
    seen: list[int] = []
    resumed = t.tune(recipe(), NOWHERE, tmp_path / "broken", trials=2, steps=20, progress=seen.append)

    assert seen == [0, 1, 1]
    assert resumed.rows == unbroken.rows


def test_more_trials_are_added_to_a_finished_search(tmp_path: Path) -> None:
    first = t.tune(recipe(), NOWHERE, tmp_path, trials=1, steps=10)
    both = t.tune(recipe(), NOWHERE, tmp_path, trials=2, steps=10)
    assert both.rows[0] == first.rows[0]
    assert len(both.rows) == 2


def test_folder_with_a_search_of_other_steps_is_refused(tmp_path: Path) -> None:
    t.tune(recipe(), NOWHERE, tmp_path, trials=1, steps=10)
    with pytest.raises(RecipeError, match="--fresh"):
        t.tune(recipe(), NOWHERE, tmp_path, trials=1, steps=20)


def test_trial_behind_the_median_is_broken_off(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    errors = iter([0.1] * 5 * t.UNPRUNED + [0.4] * 5)
    monkeypatch.setattr(t, "ImageValidation", lambda *_: lambda: {"eer": next(errors), "oneshot": 0.5})
    found = t.tune(recipe(), NOWHERE, tmp_path, trials=t.UNPRUNED + 1, steps=5)
    assert [row["state"] for row in found.rows] == ["complete"] * t.UNPRUNED + ["pruned"]
    assert found.rows[-1]["why"] == "eer 0.4 is behind the median"
    assert len(list(errors)) == 4


def test_trials_that_the_data_cannot_give_are_told_by_their_reason(tmp_path: Path) -> None:
    too_many = recipe("digits-triplet", **{"batches.subjects": 24})
    with pytest.raises(RecipeError, match="no trial came to its end: a batch takes"):
        t.tune(too_many, NOWHERE, tmp_path, trials=2, steps=10)


def test_recipe_of_texts_is_refused(tmp_path: Path) -> None:
    with pytest.raises(RecipeError, match="takes recipes of images"):
        t.tune(load_recipe("questions-lstm", smoke=True), NOWHERE, tmp_path, trials=1, steps=10)


def test_command_prints_the_trials_and_how_to_train_the_best(tmp_path: Path) -> None:
    out = tmp_path / "search"
    changes = ["--set", "encoder.widths=[16, 8]", "--set", "batches.array=400"]
    command = ["tune", "digits-contrastive", "--smoke", "--trials", 1, "--steps", 10, "--out", out, *changes]
    told = visavis_json(*command)
    assert told["best"] == str(out / t.BEST)
    assert told["trials"][0]["state"] == "complete"
    shown = visavis(*command)
    assert f"eer {told['error']:.4f}  complete  trial 0" in shown.output
    assert f"visavis train {out / t.BEST}" in shown.output
