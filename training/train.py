"""The loop: from a task to trained weights, with checkpoints it can go on from.

A run is a function of its configuration. The batch of a step depends on the seed and the step alone, all
other state is in the checkpoint, so a run that was stopped and resumed ends with the weights of one that was
not.
"""

from __future__ import annotations

import csv
import logging
import signal
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from types import FrameType
from typing import Any

import numpy as np
import tensorflow as tf
from keras import ops

from training import checkpoints
from training.collapse import CollapseDetector, Observation, embedding_variance
from training.config import RunConfig
from training.learner import Learner
from training.optimisers import build_optimiser

LOG = "log.csv"

SECONDS_A_CALL = 1.0
"""About how long the graph runs before Python looks at the clock, the progress bar and the stop signal."""

PATIENCE = 3
"""Epochs in a row that must look dead; the count begins anew with each sitting."""

logger = logging.getLogger("visavis.training")

Validation = Callable[[], dict[str, float]]
"""Measures the learner as it is; keys ``eer`` and ``oneshot`` (an error rate) can choose the best weights."""


class RunStoppedError(Exception):
    """Ctrl-C or SIGTERM: the state was saved and the same command goes on from it."""

    def __init__(self, step: int) -> None:
        super().__init__(f"stopped after step {step}; the same command goes on from there")
        self.step = step


@dataclass(frozen=True)
class Trained:
    """What a finished run leaves beside the weights in its learner.

    Attributes:
        step: Steps done.
        history: One row an epoch: ``step``, ``seconds``, ``loss``, the objective's metrics, validation.
        best_step: Step of the weights that were kept.
        seconds: Wall time of training and validation, over all sittings.
    """

    step: int
    history: list[dict[str, float]]
    best_step: int
    seconds: float


def train(
    learner: Learner,
    batches: Callable[[int], tf.data.Dataset],
    config: RunConfig,
    folder: Path,
    *,
    validate: Validation | None = None,
    watched: Callable[[], Any] | None = None,
    progress: Callable[[int], None] = lambda _: None,
) -> Trained:
    """Train to the last step, or from the checkpoint in the folder to the last step.

    Args:
        learner: Encoders and objective; holds the kept weights afterwards.
        batches: First step to an endless data set of batches from it on.
        config: Of the run.
        folder: Takes ``checkpoint.npz``, ``best.npz``, ``log.csv`` and ``tensorboard/``.
        validate: Called at the end of each epoch.
        watched: Embeds a fixed set of samples, float[N, D]; their variance tells a collapse.
        progress: Called with the number of steps just done, the restored ones first.

    Raises:
        RunStoppedError: Interrupted; the state is saved.
        CollapsedError: The run is dead; the reason is named.
        CheckpointError: The folder's checkpoint is of another configuration.
    """
    loop = config.loop
    folder.mkdir(parents=True, exist_ok=True)
    optimiser = build_optimiser(config.optimiser, loop)
    optimiser.build(learner.trainable_variables)
    state = [*learner.variables, *optimiser.variables]
    checkpoint, best = folder / checkpoints.CHECKPOINT, folder / checkpoints.BEST
    step, history = 0, list[dict[str, float]]()
    if checkpoint.is_file():
        step = checkpoints.restore(checkpoint, state, digest=config.digest)
        history = _read_log(folder / LOG, up_to=step)
        logger.info("going on from step %d of %d", step, loop.steps)
        progress(step)
    run = _compiled(learner, optimiser)
    iterator = iter(batches(step)) if step < loop.steps else None
    detector = CollapseDetector(learner.dimensions, collapsed_loss=learner.collapsed_loss, patience=PATIENCE)
    before = history[-1]["seconds"] if history else 0.0
    started = time.monotonic()
    with _StopSignal() as stop, _tensorboard(folder / "tensorboard") as board:
        while step < loop.steps:
            end = min(loop.steps, (step // loop.epoch + 1) * loop.epoch)
            means, step = _epoch(run, iterator, step, end, stop, progress)
            if stop.asked and step < end:
                # The means of a broken epoch are lost; the weights are not.
                checkpoints.save(checkpoint, state, step=step, digest=config.digest)
                raise RunStoppedError(step)
            row = {
                "step": float(step),
                **means,
                "learning_rate": float(ops.convert_to_numpy(optimiser.learning_rate)),
            }
            if validate is not None:
                row |= validate()
            row["seconds"] = before + time.monotonic() - started
            history.append(row)
            if loop.best_by != "last" and row[loop.best_by] <= min(past[loop.best_by] for past in history):
                checkpoints.save(best, learner.variables, step=step, digest=config.digest)
            checkpoints.save(checkpoint, state, step=step, digest=config.digest)
            _write_log(folder / LOG, history)
            _show(board, row)
            if loop.stop_on_collapse and watched is not None:
                detector.require_alive(_observation(step, row, ops.convert_to_numpy(watched())))
            if stop.asked and step < loop.steps:
                raise RunStoppedError(step)
    best_step = step
    if loop.best_by != "last" and best.is_file():
        best_step = checkpoints.restore(best, learner.variables, digest=config.digest)
    return Trained(step, history, best_step, history[-1]["seconds"])


def _observation(step: int, row: dict[str, float], embeddings: tf.Tensor) -> Observation:
    return Observation(
        step=step,
        loss=row["loss"],
        embedding_variance=embedding_variance(embeddings),
        active_triplets=row.get("active_triplets"),
        valid_triplets=row.get("valid_triplets"),
        validation_error=row.get("eer"),
    )


def _compiled(learner: Learner, optimiser: tf.Tensor) -> Callable[[Any, Any], dict[str, Any]]:
    """Return a graph that runs n steps and adds up their metrics."""
    weights = learner.trainable_variables

    def one(batch: tf.Tensor) -> dict[str, Any]:
        with tf.GradientTape() as tape:
            metrics = learner.metrics(batch)
            scaled = optimiser.scale_loss(metrics["loss"])
        optimiser.apply(tape.gradient(scaled, weights), weights)
        return metrics

    @tf.function
    def run(iterator: tf.Tensor, count: tf.Tensor) -> dict[str, Any]:
        totals = one(next(iterator))
        for _ in tf.range(count - 1):
            metrics = one(next(iterator))
            totals = {name: totals[name] + metrics[name] for name in totals}
        return totals

    return run  # type: ignore[no-any-return]


def _epoch(
    run: Callable[[Any, Any], dict[str, Any]],
    iterator: tf.Tensor,
    step: int,
    end: int,
    stop: _StopSignal,
    progress: Callable[[int], None],
) -> tuple[dict[str, float], int]:
    """Run to the epoch's end or until asked to stop; return the metrics' means and the step reached."""
    totals: dict[str, float] = {}
    first, count = step, 1
    while step < end and not stop.asked:
        count = min(count, end - step)
        started = time.monotonic()
        for name, value in run(iterator, tf.constant(count)).items():
            totals[name] = totals.get(name, 0.0) + float(value)
        step += count
        progress(count)
        # The first call also traces the graph; its time says nothing.
        rate = count / max(time.monotonic() - started, 1e-4)
        count = max(1, min(2 * count, int(rate * SECONDS_A_CALL)))
    return {name: total / max(step - first, 1) for name, total in totals.items()}, step


class _StopSignal:
    """Notes the first SIGINT or SIGTERM instead of dying of it; a second SIGINT interrupts at once."""

    def __init__(self) -> None:
        self.asked = False
        self._before: dict[int, Any] = {}

    def __enter__(self) -> _StopSignal:
        try:
            for number in (signal.SIGINT, signal.SIGTERM):
                self._before[number] = signal.signal(number, self._note)
        except ValueError:
            # Only the main thread may; elsewhere whoever runs the thread handles signals.
            self._before = {}
        return self

    def _note(self, number: int, frame: FrameType | None) -> None:
        del frame
        if self.asked and number == signal.SIGINT:
            raise KeyboardInterrupt
        self.asked = True

    def __exit__(self, *_: object) -> None:
        for number, handler in self._before.items():
            signal.signal(number, handler)


@contextmanager
def _tensorboard(folder: Path) -> Iterator[Any]:
    writer = tf.summary.create_file_writer(str(folder))
    try:
        yield writer
    finally:
        writer.close()


def _show(board: tf.Tensor, row: dict[str, float]) -> None:
    with board.as_default(step=int(row["step"])):
        for name, value in row.items():
            tf.summary.scalar(name, value)
    board.flush()


def _write_log(path: Path, history: list[dict[str, float]]) -> None:
    """Write the log anew: it is short, and a resumed run must not repeat rows."""
    scratch = path.with_suffix(".partial")
    with scratch.open("w", encoding="utf-8", newline="") as file:
        writer = csv.DictWriter(file, list(history[0]))
        writer.writeheader()
        writer.writerows(history)
    scratch.replace(path)


def _read_log(path: Path, *, up_to: int) -> list[dict[str, float]]:
    if not path.is_file():
        return []
    with path.open(encoding="utf-8", newline="") as file:
        rows = [{name: float(value) for name, value in row.items()} for row in csv.DictReader(file)]
    return [row for row in rows if row["step"] <= up_to]


def as_columns(history: list[dict[str, float]]) -> dict[str, np.ndarray[Any, Any]]:
    """Return the history by column, for plots."""
    return {name: np.array([row[name] for row in history]) for name in history[0]} if history else {}
