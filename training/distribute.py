"""Several GPUs in one process and several processes: who computes what of a batch, and how they agree.

``tf.distribute`` gives the devices and the sums; weights stay ordinary variables of each process. Keras
3.15's optimisers would add up gradients over replicas by themselves, but only after each replica has clipped
its own, and its dropout seeds and constrained weights cannot be assigned inside a replica. So a replica only
computes gradients; they are averaged over all replicas in one all-reduce of one vector, and the optimiser
moves the weights outside, as it does in a run alone. In one process with several GPUs the weights live on the
first and the others read them there; one worker a GPU spares them the way.

What a batch is mined for (triplets, in-batch pairs, closest negatives) is mined within a replica's share.
"""

from __future__ import annotations

import json
import os
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import tensorflow as tf

from app.errors import VisavisError
from training.config import PKBatches, RecipeError, RunConfig
from training.data.pipeline import Share

Batch = tuple[Any, ...]
Step = Callable[[Batch], tuple[dict[str, Any], list[Any]]]
"""Batch to metrics (scalars) and gradients (or None where a weight plays no part)."""


LOST = (
    tf.errors.UnavailableError,
    tf.errors.AbortedError,
    tf.errors.CancelledError,
    tf.errors.DeadlineExceededError,
    tf.errors.InternalError,
)
"""What TensorFlow raises when a fellow worker no longer answers."""


class DistributionError(VisavisError):
    """The workers cannot work together, or no longer do."""

    code = "workers_failed"


class WorkerDoneError(Exception):
    """This worker's part is over; the chief alone exports and reports."""


@dataclass(frozen=True, eq=False)
class Distribution:
    """A process among its fellows; the default is a process alone with one device.

    Attributes:
        strategy: Of TensorFlow; None alone.
        workers: Processes.
        worker: Number of this one, the chief's is 0.
    """

    strategy: tf.distribute.Strategy | None = None
    workers: int = 1
    worker: int = 0

    @property
    def chief(self) -> bool:
        """Whether this process writes files."""
        return self.worker == 0

    @property
    def share(self) -> Share:
        """What this process computes of every batch."""
        if self.strategy is None:
            return Share()
        total = self.strategy.num_replicas_in_sync
        here = total // self.workers
        return Share(self.worker * here, here, total)

    def require_divisible(self, config: RunConfig) -> None:
        """Refuse a batch that the replicas cannot share evenly, whole subjects each.

        Raises:
            RecipeError: They cannot.
        """
        batches, total = config.batches, self.share.total
        name, size = (
            ("subjects", batches.subjects) if isinstance(batches, PKBatches) else ("size", batches.size)
        )
        if size % total:
            raise RecipeError(f"batches.{name}: {total} replicas cannot share {size} evenly")

    def require_one_worker(self, why: str) -> None:
        """Refuse several workers where each would do the whole work.

        Raises:
            DistributionError: There are several.
        """
        if self.workers > 1:
            raise DistributionError(f"TF_CONFIG names {self.workers} workers: {why}")

    def dataset(self, data: tf.data.Dataset) -> Any:  # noqa: ANN401 - two kinds, both iterable
        """Return what to iterate over: the share's batches, handed to the devices that compute them."""
        if self.strategy is None:
            return data
        return self.strategy.distribute_datasets_from_function(lambda _: data)

    def averaged(self, compute: Step, states: Sequence[Any] = ()) -> Step:
        """Return a step whose metrics and gradients are means over all replicas.

        Args:
            compute: What one replica does with its part of the batch.
            states: Variables that a step changes without gradients (averages of batch norm); they are
                averaged too, so that all workers stay alike.
        """
        strategy = self.strategy
        if strategy is None:
            return compute
        states = states if self.workers > 1 else ()

        def step(batch: Batch) -> tuple[dict[str, Any], list[Any]]:
            names: list[str] = []
            known: list[bool] = []
            shapes: list[Any] = []

            def replica(part: Batch) -> tf.Tensor:
                metrics, gradients = compute(part)
                names[:], known[:] = list(metrics), [gradient is not None for gradient in gradients]
                tensors = [tf.cast(tf.convert_to_tensor(value), tf.float32) for value in metrics.values()]
                tensors += [tf.convert_to_tensor(gradient) for gradient in gradients if gradient is not None]
                tensors += [tf.convert_to_tensor(state) for state in states]
                shapes[:] = [tensor.shape for tensor in tensors]
                vector = tf.concat([tf.reshape(tensor, [-1]) for tensor in tensors], axis=0)
                return tf.distribute.get_replica_context().all_reduce(tf.distribute.ReduceOp.MEAN, vector)

            mean = strategy.experimental_local_results(strategy.run(replica, args=(batch,)))[0]
            parts = tf.split(mean, [shape.num_elements() for shape in shapes])
            pieces = iter([tf.reshape(part, shape) for part, shape in zip(parts, shapes, strict=True)])
            metrics = {name: next(pieces) for name in names}
            gradients = [next(pieces) if there else None for there in known]
            for state in states:
                state.assign(next(pieces))
            return metrics, gradients

        return step

    def total(self, values: Sequence[float]) -> list[float]:
        """Return the sum over all workers, on each of them; all must call it."""
        if self.workers == 1:
            return list(values)
        return [float(value) for value in self._added(tf.constant(values, tf.float64))]

    @cached_property
    def _added(self) -> Callable[[tf.Tensor], tf.Tensor]:
        strategy, here = self.strategy, self.share.here
        assert strategy is not None  # noqa: S101 - several workers have one

        @tf.function
        def added(own: tf.Tensor) -> tf.Tensor:
            def replica() -> tf.Tensor:
                return tf.distribute.get_replica_context().all_reduce(tf.distribute.ReduceOp.SUM, own / here)

            return strategy.experimental_local_results(strategy.run(replica))[0]

        return added  # type: ignore[no-any-return]

    def settle(self, stop: bool, count: int) -> tuple[bool, int]:
        """Return whether any worker was asked to stop, and how many steps the chief wants to run next.

        The workers' sums must meet, so all run the same steps in one call.
        """
        if self.workers == 1:
            return stop, count
        stops, agreed = self.total([float(stop), float(count) if self.chief else 0.0])
        return stops > 0.5, round(agreed)

    def require_same_step(self, step: int) -> None:
        """Refuse workers that restored different checkpoints.

        Raises:
            DistributionError: The folder of the run is not the same for all.
        """
        sums, squares = self.total([float(step), float(step) ** 2])
        if squares / self.workers - (sums / self.workers) ** 2 > 0.25:
            raise DistributionError(
                f"worker {self.worker} has a checkpoint of step {step} and others have another; "
                "give all workers one shared folder with --out"
            )

    @contextmanager
    def guarded(self) -> Iterator[None]:
        """Turn the loss of a fellow worker into an error that says so.

        Raises:
            DistributionError: A worker is gone.
        """
        try:
            yield
        except LOST as error:
            if self.workers == 1:
                raise
            raise DistributionError(
                "a worker is gone; start all again, they go on from the last checkpoint "
                f"({error.message.splitlines()[0][:200]})"
            ) from error

    def leave_unless_chief(self) -> None:
        """End the part of a worker that is not the chief.

        Raises:
            WorkerDoneError: It is not.
        """
        if not self.chief:
            raise WorkerDoneError(
                f"worker {self.worker} of {self.workers} is done; the chief writes the files"
            )


def from_environment() -> Distribution:
    """Return several workers where ``TF_CONFIG`` names them, else all GPUs, else a process alone.

    Call it before anything else of TensorFlow: workers connect at once.

    Raises:
        DistributionError: ``TF_CONFIG`` is not as TensorFlow documents it.
    """
    text = os.environ.get("TF_CONFIG")
    if text:
        workers, worker = _place(text)
        if workers > 1:
            return Distribution(tf.distribute.MultiWorkerMirroredStrategy(), workers, worker)
    if len(tf.config.list_physical_devices("GPU")) > 1:
        return Distribution(tf.distribute.MirroredStrategy())
    return Distribution()


def _place(text: str) -> tuple[int, int]:
    """Return how many workers ``TF_CONFIG`` names and which this one is."""
    try:
        told = json.loads(text)
        chiefs, workers = (told["cluster"].get(job, []) for job in ("chief", "worker"))
        number = int(told["task"]["index"]) + (len(chiefs) if told["task"]["type"] == "worker" else 0)
        total = len(chiefs) + len(workers)
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        raise DistributionError(f"TF_CONFIG is not a cluster with a task: {error!r}") from error
    if not 0 <= number < total:
        raise DistributionError(f"TF_CONFIG: task {number} of a cluster of {total}")
    return total, number
