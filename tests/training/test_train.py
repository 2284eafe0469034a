from __future__ import annotations

import csv
import os
import signal
import subprocess
import sys
from pathlib import Path
from typing import Any

import keras
import numpy as np
import pytest
import tensorflow as tf
from tensorboard.backend.event_processing.event_accumulator import (  # type: ignore[import-untyped]
    EventAccumulator,
)

from tests.training.small_runs import (
    EPOCH,
    PAIRS,
    RESIDUAL,
    STEPS,
    batches_of,
    configured,
    drawings,
    embedded,
    new_learner,
    run,
    signal_after,
    weights,
)
from training import export
from training.checkpoints import CheckpointError
from training.collapse import CollapsedError, Reason
from training.config import RecipeError
from training.train import LOG, RunStoppedError, train

ROOT = Path(__file__).parents[2]


def log_of(folder: Path) -> list[dict[str, float]]:
    with (folder / LOG).open(newline="") as file:
        return [{name: float(value) for name, value in row.items()} for row in csv.DictReader(file)]


def assert_same_run(left: Path, right: Path) -> None:
    """The logs agree but for the time; sums of a broken epoch were added up in another order."""
    rows = [log_of(left), log_of(right)]
    assert [row["step"] for row in rows[0]] == [row["step"] for row in rows[1]] == [10, 20, 30]
    for one, other in zip(*rows, strict=True):
        for name in one.keys() - {"seconds"}:
            assert one[name] == pytest.approx(other[name], rel=1e-6), name


@pytest.mark.parametrize("tables", [RESIDUAL, PAIRS], ids=["residual", "pairs"])
def test_run_stopped_within_an_epoch_and_resumed_equals_an_unbroken_one(
    tables: dict[str, Any], tmp_path: Path
) -> None:
    config = configured(tables)
    unbroken, _ = run(config, tmp_path / "unbroken")
    with pytest.raises(RunStoppedError) as stopped:
        run(config, tmp_path / "broken", progress=signal_after(EPOCH + 3, signal.SIGTERM))
    assert EPOCH < stopped.value.step < 2 * EPOCH

    seen: list[int] = []
    resumed, trained = run(config, tmp_path / "broken", progress=seen.append)

    assert seen[0] == stopped.value.step
    assert sum(seen) == trained.step == STEPS
    for one, other in zip(weights(unbroken), weights(resumed), strict=True):
        np.testing.assert_array_equal(one, other)
    assert_same_run(tmp_path / "unbroken", tmp_path / "broken")


def test_run_killed_between_checkpoints_and_resumed_equals_an_unbroken_one(tmp_path: Path) -> None:
    config = configured(RESIDUAL)
    unbroken, _ = run(config, tmp_path / "unbroken")
    script = (
        "import signal, sys; from pathlib import Path; from tests.training.small_runs import *; "
        f"run(configured(RESIDUAL), Path(sys.argv[1]), progress=signal_after({EPOCH + 3}, signal.SIGKILL))"
    )
    killed = subprocess.run(
        [sys.executable, "-c", script, str(tmp_path / "broken")],
        cwd=ROOT,
        env={**os.environ, "TF_CPP_MIN_LOG_LEVEL": "3"},
        timeout=300,
        check=False,
    )
    assert killed.returncode == -signal.SIGKILL

    seen: list[int] = []
    resumed, _ = run(config, tmp_path / "broken", progress=seen.append)

    assert seen[0] == EPOCH
    for one, other in zip(weights(unbroken), weights(resumed), strict=True):
        np.testing.assert_allclose(one, other, rtol=1e-5, atol=1e-7)
    assert_same_run(tmp_path / "unbroken", tmp_path / "broken")


def test_finished_run_is_not_trained_again(tmp_path: Path) -> None:
    config = configured(PAIRS)
    first, _ = run(config, tmp_path)
    seen: list[int] = []
    second, trained = run(config, tmp_path, progress=seen.append)
    assert seen == [STEPS]
    assert trained.step == STEPS
    np.testing.assert_array_equal(embedded(first), embedded(second))


@pytest.mark.parametrize("best_by", ["eer", "oneshot"])
def test_kept_weights_are_those_of_the_epoch_with_the_least_validation_error(
    best_by: str, tmp_path: Path
) -> None:
    config = configured(PAIRS, best_by=best_by)
    learner = new_learner(config)
    errors = {"eer": [0.3, 0.1, 0.2], "oneshot": [0.9, 0.4, 0.5]}
    embeddings = []

    def validate() -> dict[str, float]:
        embeddings.append(embedded(learner))
        return {name: values[len(embeddings) - 1] for name, values in errors.items()}

    trained = train(learner, lambda step: batches_of(config, step), config, tmp_path, validate=validate)

    assert trained.best_step == 2 * EPOCH
    np.testing.assert_array_equal(embedded(learner), embeddings[1])
    assert not np.array_equal(embeddings[1], embeddings[2])


def test_of_two_equal_errors_the_later_weights_are_kept(tmp_path: Path) -> None:
    _, trained = run(configured(PAIRS, best_by="eer"), tmp_path, validate=lambda: {"eer": 0.25})
    assert trained.best_step == STEPS


def test_best_weights_without_validation_are_refused_before_the_first_step(tmp_path: Path) -> None:
    with pytest.raises(RecipeError, match=r"loop\.best_by: 'oneshot' needs a validation part"):
        run(configured(PAIRS, best_by="oneshot"), tmp_path / "run")
    assert not (tmp_path / "run").exists()


def test_log_and_tensorboard_hold_one_equal_row_an_epoch(tmp_path: Path) -> None:
    _, trained = run(configured(PAIRS), tmp_path, validate=lambda: {"eer": 0.25})
    rows = log_of(tmp_path)
    assert rows == trained.history
    assert [row["step"] for row in rows] == [10, 20, 30]
    assert {"loss", "accuracy", "eer", "learning_rate", "seconds"} <= rows[0].keys()
    board = EventAccumulator(str(tmp_path / "tensorboard"), size_guidance={"tensors": 0})
    board.Reload()
    assert set(board.Tags()["tensors"]) == set(rows[0])
    events = board.Tensors("loss")
    assert [event.step for event in events] == [10, 20, 30]
    shown = [float(tf.make_ndarray(event.tensor_proto)) for event in events]
    assert shown == pytest.approx([row["loss"] for row in rows])


def test_learning_rate_is_halved_each_epoch_as_configured(tmp_path: Path) -> None:
    _, trained = run(configured(PAIRS), tmp_path)
    # The rate in the row is that of the step to come.
    assert [row["learning_rate"] for row in trained.history] == pytest.approx([0.025, 0.0125, 0.00625])


def test_mean_loss_of_an_epoch_is_that_of_its_steps(tmp_path: Path) -> None:
    tables = {**PAIRS, "augmentation": None, "encoder": {"kind": "mlp", "widths": [16, 8]}}
    still = {**tables, "optimiser": {"kind": "sgd", "learning_rate": 1e-12}}
    config = configured(still)
    learner, trained = run(config, tmp_path)
    batches = iter(batches_of(config, EPOCH))
    losses = [float(learner.metrics(next(batches))["loss"]) for _ in range(EPOCH)]
    assert trained.history[1]["loss"] == pytest.approx(np.mean(losses), rel=1e-5)


def test_checkpoint_of_another_configuration_is_refused(tmp_path: Path) -> None:
    run(configured(PAIRS), tmp_path)
    with pytest.raises(CheckpointError, match="another configuration"):
        run(configured(PAIRS, steps=STEPS + 1), tmp_path)


def test_penalty_of_the_layers_is_part_of_the_loss_and_logged(tmp_path: Path) -> None:
    config = configured(PAIRS)
    learner = new_learner(config)
    dense = learner.left.layers[3]
    dense.kernel.regularizer = keras.regularizers.L2(0.5)
    batch = next(iter(batches_of(config, 0)))
    metrics = learner.metrics(batch)
    expected = 0.5 * float(np.sum(np.square(dense.kernel.numpy())))
    assert float(metrics["penalty"]) == pytest.approx(expected, rel=1e-5)
    assert float(metrics["loss"]) > float(metrics["penalty"])


def test_run_whose_embeddings_shrink_to_a_point_stops_and_says_why(tmp_path: Path) -> None:
    config = configured({**PAIRS, "optimiser": {"kind": "sgd", "learning_rate": 1e-9}}, steps=60)
    learner = new_learner(config)
    for variable in learner.left.trainable_variables:
        variable.assign(np.zeros(variable.shape))
    with pytest.raises(CollapsedError, match="point one way") as collapsed:
        train(
            learner,
            lambda step: batches_of(config, step),
            config,
            tmp_path,
            watched=lambda: embedded(learner),
        )
    assert collapsed.value.reason is Reason.EMBEDDINGS_COLLAPSED
    assert collapsed.value.step == 3 * EPOCH


def test_run_at_a_rate_that_diverges_stops_at_the_first_look(tmp_path: Path) -> None:
    config = configured({**PAIRS, "optimiser": {"kind": "sgd", "learning_rate": 1e18}}, steps=60)
    learner = new_learner(config)
    with pytest.raises(CollapsedError) as collapsed:
        train(
            learner,
            lambda step: batches_of(config, step),
            config,
            tmp_path,
            watched=lambda: embedded(learner),
        )
    assert collapsed.value.reason is Reason.LOSS_NOT_FINITE
    assert collapsed.value.step == EPOCH


def test_signs_of_a_collapse_are_counted_on_over_a_stop(tmp_path: Path) -> None:
    config = configured({**PAIRS, "optimiser": {"kind": "sgd", "learning_rate": 1e-9}}, steps=60)

    def dead(**kwargs: Any) -> None:
        learner = new_learner(config)
        batches = lambda step: batches_of(config, step)  # noqa: E731
        train(learner, batches, config, tmp_path, watched=lambda: np.ones((4, 8)), **kwargs)

    with pytest.raises(RunStoppedError):
        dead(progress=signal_after(2 * EPOCH + 3, signal.SIGTERM))
    with pytest.raises(CollapsedError) as collapsed:
        dead()
    assert collapsed.value.step == 3 * EPOCH


def test_collapse_is_let_pass_where_the_recipe_says_so(tmp_path: Path) -> None:
    config = configured(PAIRS, stop_on_collapse=False)
    _, trained = run(config, tmp_path, watched=lambda: np.ones((4, 8)))
    assert trained.step == STEPS
    assert trained.history[-1]["embedding_variance"] == 0.0


@pytest.mark.parametrize("precision", ["mixed_bfloat16", "mixed_float16"])
def test_mixed_precision_trains_and_exports_float32(precision: str, tmp_path: Path) -> None:
    config = configured(RESIDUAL, precision=precision)
    learner = new_learner(config)
    before = embedded(learner)
    trained = train(learner, lambda step: batches_of(config, step), config, tmp_path / "run")
    assert learner.left.layers[-3].compute_dtype == precision.removeprefix("mixed_")
    assert all(variable.dtype == "float32" for variable in learner.trainable_variables)
    assert trained.history[-1]["loss"] < trained.history[0]["loss"]
    assert np.abs(embedded(learner) - before).max() > 0.1

    model = export.float32_copy(learner.left)

    difference = export.write_encoder(model, tmp_path, drawings().images)
    assert difference < 1e-5
    in_full = np.asarray(model(drawings().images, training=False))
    assert np.abs(in_full - embedded(learner)).max() < 0.1


def test_float16_step_that_overflows_is_skipped_and_halves_the_scale(tmp_path: Path) -> None:
    tables = {**RESIDUAL, "objective": {"kind": "margin-softmax", "scale": 1e36}}
    config = configured(tables, precision="mixed_float16", steps=2, epoch=2, stop_on_collapse=False)
    learner = new_learner(config)
    before = [variable.numpy() for variable in learner.trainable_variables]
    train(learner, lambda step: batches_of(config, step), config, tmp_path)
    for one, other in zip(before, learner.trainable_variables, strict=True):
        np.testing.assert_array_equal(one, other.numpy())
    with np.load(tmp_path / "checkpoint.npz") as saved:
        scalars = [float(saved[name]) for name in saved.files if name.isdigit() and saved[name].shape == ()]
    assert 2.0**13 in scalars  # 2**15 at first, halved twice


def test_second_interrupt_does_not_wait_for_a_checkpoint(tmp_path: Path) -> None:
    def twice(_: int) -> None:
        os.kill(os.getpid(), signal.SIGINT)
        os.kill(os.getpid(), signal.SIGINT)

    handler = signal.getsignal(signal.SIGINT)
    with pytest.raises(KeyboardInterrupt):
        run(configured(PAIRS), tmp_path, progress=lambda count: twice(count) if count else None)
    assert not (tmp_path / "checkpoint.npz").exists()
    assert signal.getsignal(signal.SIGINT) is handler


def test_first_interrupt_saves_and_gives_the_handlers_back(tmp_path: Path) -> None:
    handlers = [signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM)]
    with pytest.raises(RunStoppedError, match="the same command goes on"):
        run(configured(PAIRS), tmp_path, progress=signal_after(1, signal.SIGINT))
    assert (tmp_path / "checkpoint.npz").exists()
    assert [signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM)] == handlers
