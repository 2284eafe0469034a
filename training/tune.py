"""Bayesian search for a recipe's settings: Optuna's tree-structured Parzen estimator over validation errors.

A trial is a run of its own in the folder of the search, with its checkpoint and log. Its settings depend on
the seed, its number and the trials before it alone, so a search that was stopped and gone on with tries what
an unbroken one would have tried. Trials that are behind the median at the same step, collapse, or ask for
what the data cannot give are broken off.

Source: Bergstra, Bardenet, Bengio, Kegl (2011), "Algorithms for Hyper-Parameter Optimization"; Koch's ranges
    are those of Koch, Zemel, Salakhutdinov (2015), section 3.2, which searched them by Bayesian optimisation.
"""

from __future__ import annotations

import csv
import json
import logging
import warnings
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import keras
import numpy as np
import optuna
from optuna.storages.journal import JournalFileBackend
from optuna.trial import TrialState
from pydantic import ValidationError

from training.collapse import CollapsedError
from training.config import (
    AveragePooling,
    CharactersData,
    DigitNamesData,
    FolderData,
    Koch,
    LstmMean,
    Mlp,
    PKBatches,
    RecipeError,
    RunConfig,
    TextPairsData,
)
from training.data.errors import DataError
from training.data.parts import ImageParts, load_image_parts
from training.encoders.koch import smallest_map
from training.runs.images import batches, build_learner, embed_with_keras
from training.runs.validation import ImageValidation
from training.train import train

BEST = "best.toml"
TABLE = "trials.csv"
LOOKS = 5
"""Validations a trial, at which it can be broken off."""

VALIDATION_ALPHABETS = 5
"""Kept back from a recipe on characters that keeps none back itself."""

UNPRUNED = 4
"""Trials that run to their end whatever they reach: the median needs some."""

logger = logging.getLogger("visavis.training")

Settings = dict[str, Any]
"""Values by dotted name, such as ``optimiser.learning_rate``."""


@dataclass(frozen=True)
class Tuned:
    """What a search found.

    Attributes:
        best: The configuration, with the steps of the recipe.
        error: Its least validation error in its trial.
        measure: ``eer`` or ``oneshot``.
        rows: One a trial: ``trial``, ``state``, ``error``, ``why`` and the settings.
        folder: Holds ``best.toml``, ``trials.csv`` and a run a trial.
    """

    best: RunConfig
    error: float
    measure: str
    rows: list[dict[str, Any]]
    folder: Path


def tune(
    config: RunConfig,
    data_dir: Path,
    folder: Path,
    *,
    trials: int,
    steps: int,
    progress: Callable[[int], None] = lambda _: None,
) -> Tuned:
    """Search, or go on searching, until so many trials are done.

    Args:
        config: What is varied; its seed is the search's.
        data_dir: Where public sets lie.
        folder: Of the search.
        trials: Altogether, with those of earlier sittings.
        steps: Of each trial.
        progress: Called with the number of trials just done, the earlier ones first.

    Raises:
        RecipeError: The recipe takes no images, or has nothing to validate on; or the folder's search is of
            another recipe, or no trial came to its end.
        RunStoppedError: Interrupted; the same call goes on.
    """
    base = _for_search(config, steps)
    measure = "oneshot" if isinstance(base.data, CharactersData) else "eer"
    parts = load_image_parts(base, data_dir)
    if parts.validation is None:
        raise RecipeError(f"{config.name}: a search needs a validation part, and this recipe has none")
    folder.mkdir(parents=True, exist_ok=True)
    study = _study(folder, base)
    done = [trial for trial in study.trials if trial.state.is_finished()]
    progress(len(done))
    while len(study.trials) < trials or _running(study):
        trial = _next_trial(study, base.seed)
        _run_trial(trial, study, base, parts, measure, folder)
        progress(1)
    rows = [_row(trial) for trial in study.trials]
    _write_table(folder / TABLE, rows)
    if not any(trial.state is TrialState.COMPLETE for trial in study.trials):
        reasons = "; ".join(sorted({str(row["why"]) for row in rows}))
        raise RecipeError(f"no trial came to its end: {reasons}")
    best = with_settings(config, {**study.best_trial.user_attrs["settings"], "name": f"{config.name}-tuned"})
    (folder / BEST).write_text(_best_text(best, study, measure, steps), encoding="utf-8")
    return Tuned(best, study.best_value, measure, rows, folder)


def _for_search(config: RunConfig, steps: int) -> RunConfig:
    if isinstance(config.data, TextPairsData | DigitNamesData):
        raise RecipeError(f"{config.name}: the search takes recipes of images")
    changes: Settings = {
        "loop.steps": steps,
        "loop.epoch": max(1, steps // LOOKS),
        "loop.best_by": "last",
        "optimiser.warmup_steps": min(config.optimiser.warmup_steps, steps // 10),
    }
    if isinstance(config.data, CharactersData) and not config.data.validation_alphabets:
        changes["data.validation_alphabets"] = VALIDATION_ALPHABETS
    return with_settings(config, changes)


def with_settings(config: RunConfig, settings: Mapping[str, Any]) -> RunConfig:
    """Return the configuration with other values.

    Raises:
        RecipeError: They contradict the schema or one another.
    """
    tables = config.model_dump(mode="json")
    for dotted, value in settings.items():
        *path, last = dotted.split(".")
        table = tables
        for name in path:
            table = table[name]
        table[last] = value
    try:
        return RunConfig.model_validate(tables)
    except ValidationError as error:
        raise RecipeError("; ".join(item["msg"] for item in error.errors())) from error


def suggest(trial: optuna.Trial, config: RunConfig) -> Settings:
    """Draw the settings of a trial: Koch's ranges for Koch's net, moderate ones around any other recipe."""
    if isinstance(config.encoder, Koch):
        return _koch(trial, config)
    return _around(trial, config)


def _koch(trial: optuna.Trial, config: RunConfig) -> Settings:
    """Draw from the ranges of the paper; it trains by gradient descent with rising momentum."""
    numbers = range(1, 5)
    return {
        "optimiser": {
            "kind": "sgd",
            "schedule": "exponential",
            "learning_rate": trial.suggest_float("learning_rate", 1e-4, 1e-1, log=True),
            "momentum": [0.5, trial.suggest_float("last_momentum", 0.0, 1.0)],
        },
        "encoder.filters": [trial.suggest_int(f"filters_{i}", 16, 256, step=16) for i in numbers],
        "encoder.kernels": _kernels(trial, config),
        "encoder.l2_convolution": [trial.suggest_float(f"l2_{i}", 0.0, 0.1) for i in numbers],
        "encoder.units": trial.suggest_int("units", 128, 4096, step=16),
        "encoder.l2_dense": trial.suggest_float("l2_dense", 0.0, 0.1),
    }


def _kernels(trial: optuna.Trial, config: RunConfig) -> list[int]:
    """Draw sides of 3 to 20 pixels that leave room for the convolutions to come.

    Raises:
        RecipeError: Not even sides of 3 fit.
    """
    assert isinstance(config.data, CharactersData | FolderData)  # noqa: S101 - what Koch's net takes
    size = config.data.input.height
    kernels: list[int] = []
    for number in range(4):
        largest = max(
            (side for side in range(3, 21) if smallest_map(size, [*kernels, side, *[3] * (3 - number)]) > 0),
            default=0,
        )
        if largest < 3:
            raise RecipeError(f"an image of {size} pixels is too small for Koch's net")
        kernels.append(trial.suggest_int(f"kernel_{number + 1}", 3, largest))
    return kernels


def _around(trial: optuna.Trial, config: RunConfig) -> Settings:
    """Draw rate, margin, decay, batch and dimensions from around the recipe's own."""
    rate, objective, encoder = config.optimiser.learning_rate, config.objective, config.encoder
    settings: Settings = {
        "optimiser.learning_rate": trial.suggest_float("learning_rate", rate / 10, rate * 10, log=True),
        "optimiser.weight_decay": trial.suggest_float("weight_decay", 1e-5, 1e-1, log=True),
    }
    margin = getattr(objective, "margin", None)
    if margin:
        settings["objective.margin"] = trial.suggest_float("margin", margin / 2, margin * 2)
    if isinstance(config.batches, PKBatches):
        subjects, samples = config.batches.subjects, config.batches.samples
        settings["batches.subjects"] = trial.suggest_categorical("subjects", _doubled(subjects, least=2))
        # Mean and closest negatives take two views and no other number; one sample a subject stays one.
        if samples > 2:
            settings["batches.samples"] = trial.suggest_categorical("samples", _doubled(samples, least=2))
    else:
        settings["batches.size"] = trial.suggest_categorical("size", _doubled(config.batches.size, least=4))
    if isinstance(encoder, Mlp | AveragePooling):
        sizes = _doubled(encoder.widths[-1], least=4)
        last = trial.suggest_categorical("dimensions", sizes)
        settings["encoder.widths"] = [*encoder.widths[:-1], last]
    elif isinstance(encoder, LstmMean):
        settings["encoder.units"] = trial.suggest_categorical("dimensions", _doubled(encoder.units, least=4))
    elif hasattr(encoder, "dimensions"):
        settings["encoder.dimensions"] = trial.suggest_categorical(
            "dimensions", _doubled(encoder.dimensions, least=4)
        )
    return settings


def _doubled(value: int, *, least: int) -> list[int]:
    """Return half of an even number, the number and its double; as many as are not too small."""
    halves = [value // 2] if value % 4 == 0 and value // 2 >= least else []
    return [*halves, value, 2 * value]


def _study(folder: Path, base: RunConfig) -> optuna.Study:
    optuna.logging.set_verbosity(optuna.logging.WARNING)
    study = optuna.create_study(
        storage=optuna.storages.JournalStorage(JournalFileBackend(str(folder / "search.log"))),
        study_name=base.name,
        load_if_exists=True,
        pruner=optuna.pruners.MedianPruner(n_startup_trials=UNPRUNED),
    )
    if study.user_attrs.setdefault("digest", base.digest) != base.digest:
        raise RecipeError(
            f"{folder} holds a search with other settings or steps; begin anew with --fresh or choose "
            "another --out"
        )
    study.set_user_attr("digest", base.digest)
    return study


def _running(study: optuna.Study) -> list[optuna.trial.FrozenTrial]:
    return [trial for trial in study.trials if trial.state is TrialState.RUNNING]


def _next_trial(study: optuna.Study, seed: int) -> optuna.Trial:
    """Return the trial that was broken off by a stop, or a new one."""
    if broken_off := _running(study):
        return optuna.Trial(study, broken_off[0]._trial_id)
    # A sampler of its own for each trial: after a stop it draws what it would have drawn.
    own = np.random.SeedSequence([seed, len(study.trials)]).generate_state(1)[0]
    study.sampler = optuna.samplers.TPESampler(seed=int(own))
    return study.ask()


def _run_trial(
    trial: optuna.Trial, study: optuna.Study, base: RunConfig, parts: ImageParts, measure: str, folder: Path
) -> None:
    """Train a trial and tell the study how it ended.

    Raises:
        RunStoppedError: Interrupted.
    """
    try:
        settings = suggest(trial, base)
        trial.set_user_attr("settings", settings)
        config = with_settings(base, settings)
        error = _least_error(trial, config, parts, measure, folder / f"trial-{trial.number:03d}")
    except (RecipeError, DataError, CollapsedError) as reason:
        trial.set_user_attr("why", str(reason))
        study.tell(trial, state=TrialState.FAIL)
    except optuna.TrialPruned as pruned:
        trial.set_user_attr("why", str(pruned))
        study.tell(trial, state=TrialState.PRUNED)
    else:
        study.tell(trial, error)
    last = study.trials[trial.number]
    logger.info("trial %d: %s, %s", last.number, last.state.name.lower(), last.value)


def _least_error(
    trial: optuna.Trial, config: RunConfig, parts: ImageParts, measure: str, folder: Path
) -> float:
    """Train a trial and return its least validation error."""
    assert parts.validation is not None  # noqa: S101 - tune has looked
    keras.backend.clear_session()
    learner = build_learner(config, parts)
    validation = ImageValidation(
        lambda images: embed_with_keras(learner.left, images), parts.validation.images, config.metric
    )
    done = 0

    def count(steps: int) -> None:
        nonlocal done
        done += steps

    def look() -> dict[str, float]:
        measured = validation()
        with warnings.catch_warnings():
            # A look that was reported before a kill is repeated after it.
            warnings.simplefilter("ignore", UserWarning)
            trial.report(measured[measure], done)
        if trial.should_prune():
            raise optuna.TrialPruned(f"{measure} {measured[measure]:.4g} is behind the median")
        return measured

    watched = parts.train.images.images[:256]
    trained = train(
        learner,
        lambda first_step: batches(config, parts, first_step),
        config,
        folder,
        validate=look,
        watched=lambda: embed_with_keras(learner.left, watched),
        progress=count,
    )
    return min(row[measure] for row in trained.history)


def _row(trial: optuna.trial.FrozenTrial) -> dict[str, Any]:
    seen = list(trial.intermediate_values.values())
    return {
        "trial": trial.number,
        "state": trial.state.name.lower(),
        "error": min(seen) if seen else None,
        "why": trial.user_attrs.get("why", ""),
        **trial.params,
    }


def _write_table(path: Path, rows: list[dict[str, Any]]) -> None:
    names = list(dict.fromkeys(name for row in rows for name in row))
    with path.open("w", encoding="utf-8", newline="") as file:
        writer = csv.DictWriter(file, names)
        writer.writeheader()
        writer.writerows(rows)


def _best_text(best: RunConfig, study: optuna.Study, measure: str, steps: int) -> str:
    states = [trial.state for trial in study.trials]
    head = [
        f"# {best.name}: trial {study.best_trial.number} of {len(states)} "
        f"({states.count(TrialState.COMPLETE)} to their end), seed {best.seed}.",
        f"# Least validation {measure} in {steps} steps: {study.best_value:.4g}.",
        f"# visavis train {BEST}",
        "",
    ]
    return "\n".join(head) + as_toml(best)


def as_toml(config: RunConfig) -> str:
    """Return a configuration as the text of a recipe."""
    tables = config.model_dump(mode="json", exclude_none=True)
    plain = {name: value for name, value in tables.items() if not isinstance(value, dict)}
    lines = [f"{name} = {_toml_value(value)}" for name, value in plain.items()]
    for name, table in tables.items():
        if isinstance(table, dict):
            lines += ["", f"[{name}]", *(f"{key} = {_toml_value(value)}" for key, value in table.items())]
    return "\n".join(lines) + "\n"


def _toml_value(value: object) -> str:
    if isinstance(value, dict):
        return "{ " + ", ".join(f"{key} = {_toml_value(part)}" for key, part in value.items()) + " }"
    if isinstance(value, list):
        return "[" + ", ".join(_toml_value(part) for part in value) + "]"
    # JSON's strings, booleans and numbers are TOML's, but for the exponent of a float.
    return repr(value) if isinstance(value, float) else json.dumps(value)
