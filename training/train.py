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

from training import checkpoints
from training.collapse import CollapseDetector, Observation, embedding_variance
from training.config import RecipeError, RunConfig
from training.distribute import Distribution
from training.learner import Learner
from training.optimisers import build_optimiser

LOG = "log.csv"

SECONDS_A_CALL = 1.0
"""About how long the graph runs before Python looks at the clock, the progress bar and the stop signal."""

PATIENCE = 3
"""Epochs in a row that must look dead."""

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
    batches: Callable[[int], Any],
    config: RunConfig,
    folder: Path,
    *,
    validate: Validation | None = None,
    watched: Callable[[], Any] | None = None,
    progress: Callable[[int], None] = lambda _: None,
    distribution: Distribution | None = None,
) -> Trained:
    """Train to the last step, or from the checkpoint in the folder to the last step.

    Args:
        learner: Encoders and objective; holds the kept weights afterwards.
        batches: First step to an endless data set of batches from it on, of this process's share of each.
        config: Of the run.
        folder: Takes ``checkpoint.npz``, ``best.npz``, ``log.csv`` and ``tensorboard/``.
        validate: Called at the end of each epoch.
        watched: Embeds a fixed set of samples, float[N, D]; their variance tells a collapse.
        progress: Called with the number of steps just done, the restored ones first.
        distribution: Where several devices or workers share the batch; only the chief validates and writes.

    Raises:
        RunStoppedError: Interrupted; the state is saved.
        CollapsedError: The run is dead; the reason is named.
        CheckpointError: The folder's checkpoint is of another configuration.
        RecipeError: The best weights are to be kept, and there is nothing to validate on; or the replicas
            cannot share a batch.
        DistributionError: The workers do not see one folder, or one of them is gone.
    """
    loop, alone_or_shared = config.loop, distribution or Distribution()
    if loop.best_by != "last" and validate is None:
        raise RecipeError(f"loop.best_by: {loop.best_by!r} needs a validation part, and this run has none")
    alone_or_shared.require_divisible(config)
    with alone_or_shared.guarded():
        run = _Run(learner, config, folder, alone_or_shared, validate, watched)
        progress(run.step)
        if run.step < loop.steps:
            iterator = iter(batches(run.step))
            with _StopSignal() as stop, _tensorboard(folder / "tensorboard", run.writes) as board:
                while run.step < loop.steps:
                    run.epoch(iterator, stop, progress)
                    run.look(board)
        return run.finished()


class _Run:
    """A run on its way: its state, and what happens at the end of each epoch."""

    def __init__(
        self,
        learner: Learner,
        config: RunConfig,
        folder: Path,
        distribution: Distribution,
        validate: Validation | None,
        watched: Callable[[], Any] | None,
    ) -> None:
        self._learner, self._loop, self._digest = learner, config.loop, config.digest
        self._folder, self._distribution = folder, distribution
        self._validate, self._watched = validate, watched
        self._checkpoint, self._best = folder / checkpoints.CHECKPOINT, folder / checkpoints.BEST
        self._optimiser = build_optimiser(config.optimiser, config.loop)
        self._optimiser.build(learner.trainable_variables)
        self._state = [*learner.variables, *self._optimiser.variables]
        self._detector = CollapseDetector(
            learner.dimensions, collapsed_loss=learner.collapsed_loss, patience=PATIENCE
        )
        self.step = 0
        self._sums: dict[str, float] = {}
        self._history: list[dict[str, float]] = []
        folder.mkdir(parents=True, exist_ok=True)
        if self._checkpoint.is_file():
            self._go_on()
        distribution.require_same_step(self.step)
        self._before = self._history[-1]["seconds"] if self._history else 0.0
        self._started = time.monotonic()
        self._steps = compiled_steps(learner, self._optimiser, distribution)

    @property
    def writes(self) -> bool:
        """Whether this process writes the files."""
        return self._distribution.chief

    def _go_on(self) -> None:
        place = checkpoints.restore(self._checkpoint, self._state, digest=self._digest)
        self.step, self._sums = place.step, place.sums
        self._history = _read_log(self._folder / LOG, up_to=self.step)
        for row in self._history:
            if "embedding_variance" in row:
                self._detector.examine(_observation(row))
        logger.info("going on from step %d of %d", self.step, self._loop.steps)

    def _save(self) -> None:
        if self.writes:
            checkpoints.save(
                self._checkpoint, self._state, step=self.step, digest=self._digest, sums=self._sums
            )

    def epoch(self, iterator: tf.Tensor, stop: _StopSignal, progress: Callable[[int], None]) -> None:
        """Run to the epoch's end.

        Raises:
            RunStoppedError: Asked to stop; the state is saved.
        """
        end = min(self._loop.steps, (self.step // self._loop.epoch + 1) * self._loop.epoch)
        count = 1
        while self.step < end:
            stopping, count = self._distribution.settle(stop.asked, min(count, end - self.step))
            if stopping:
                self._save()
                raise RunStoppedError(self.step)
            started = time.monotonic()
            metrics = self._steps(iterator, tf.constant(count))
            for name, value in {**metrics, "steps": count}.items():
                self._sums[name] = self._sums.get(name, 0.0) + float(value)
            self.step += count
            progress(count)
            # The first call also traces the graph; its time says nothing.
            rate = count / max(time.monotonic() - started, 1e-4)
            count = max(1, min(2 * count, int(rate * SECONDS_A_CALL)))

    def look(self, board: tf.Tensor) -> None:
        """Validate, keep the best weights, write log and checkpoint, and see whether the run is alive.

        Raises:
            CollapsedError: It is not.
        """
        steps = self._sums.pop("steps")
        row = {"step": float(self.step)} | {name: total / steps for name, total in self._sums.items()}
        self._sums = {}
        if not self.writes:
            return
        row["learning_rate"] = float(np.asarray(self._optimiser.learning_rate))
        if self._validate is not None:
            row |= self._validate()
        if self._watched is not None:
            row["embedding_variance"] = embedding_variance(np.asarray(self._watched()))
        row["seconds"] = self._before + time.monotonic() - self._started
        self._history.append(row)
        best_by = self._loop.best_by
        if best_by != "last" and row[best_by] <= min(past[best_by] for past in self._history):
            checkpoints.save(self._best, self._learner.variables, step=self.step, digest=self._digest)
        # The log first: rows after the checkpoint's step are dropped when a run goes on, missing ones stay
        # missing.
        _write_log(self._folder / LOG, self._history)
        self._save()
        _show(board, row)
        if self._loop.stop_on_collapse and "embedding_variance" in row:
            self._detector.require_alive(_observation(row))

    def finished(self) -> Trained:
        """Put the kept weights into the learner and return what came out."""
        best_step = self.step
        if self._loop.best_by != "last" and self._best.is_file():
            best_step = checkpoints.restore(self._best, self._learner.variables, digest=self._digest).step
        seconds = self._history[-1]["seconds"] if self._history else self._before
        return Trained(self.step, self._history, best_step, seconds)


def _observation(row: dict[str, float]) -> Observation:
    return Observation(
        step=int(row["step"]),
        loss=row["loss"] - row.get("penalty", 0.0),
        embedding_variance=row["embedding_variance"],
        active_triplets=row.get("active_triplets"),
        valid_triplets=row.get("valid_triplets"),
        validation_error=row.get("eer"),
    )


def compiled_steps(
    learner: Learner, optimiser: tf.Tensor, distribution: Distribution
) -> Callable[[Any, Any], dict[str, Any]]:
    """Return a graph that runs n steps and adds up their metrics."""
    weights = learner.trainable_variables
    trained = {id(weight) for weight in weights}
    states = [
        variable
        for variable in learner.variables
        if id(variable) not in trained and variable.dtype == "float32"
    ]

    def gradients(batch: tf.Tensor) -> tuple[dict[str, Any], list[Any]]:
        with tf.GradientTape() as tape:
            metrics = learner.metrics(batch)
            scaled = optimiser.scale_loss(metrics["loss"])
        return metrics, tape.gradient(scaled, weights)

    averaged = distribution.averaged(gradients, states)

    def one(batch: tf.Tensor) -> dict[str, Any]:
        metrics, found = averaged(batch)
        optimiser.apply(found, weights)
        return metrics

    @tf.function
    def run(iterator: tf.Tensor, count: tf.Tensor) -> dict[str, Any]:
        totals = one(next(iterator))
        for _ in tf.range(count - 1):
            metrics = one(next(iterator))
            totals = {name: totals[name] + metrics[name] for name in totals}
        return totals

    return run  # type: ignore[no-any-return]


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
def _tensorboard(folder: Path, writes: bool) -> Iterator[Any]:
    writer = tf.summary.create_file_writer(str(folder)) if writes else tf.summary.create_noop_writer()
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
        # A run that an older version began may lack columns in its first rows.
        names = list(dict.fromkeys(name for row in history for name in row))
        writer = csv.DictWriter(file, names)
        writer.writeheader()
        writer.writerows(history)
    scratch.replace(path)


def _read_log(path: Path, *, up_to: int) -> list[dict[str, float]]:
    if not path.is_file():
        return []
    with path.open(encoding="utf-8", newline="") as file:
        rows = [{name: float(value) for name, value in row.items() if value} for row in csv.DictReader(file)]
    return [row for row in rows if row["step"] <= up_to]


def as_columns(history: list[dict[str, float]]) -> dict[str, np.ndarray[Any, Any]]:
    """Return the history by column, for plots."""
    return {name: np.array([row[name] for row in history]) for name in history[0]} if history else {}
