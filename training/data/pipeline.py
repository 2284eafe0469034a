"""From a sampler's indices to batches in memory: gather, augment, prefetch.

The samples stay in memory once, as the bytes they are; a batch is gathered by index. Indices come in blocks
of many steps, because one call into Python for each step would cost more than a small step itself.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np
import tensorflow as tf
from numpy.typing import NDArray

from training.data.augment import augment
from training.data.augmentation import Augmentation
from training.data.samplers import Pairs

STEPS_A_BLOCK = 32


@dataclass(frozen=True)
class Share:
    """Which parts of every batch are made here, when several replicas share it; the default is all of it.

    Attributes:
        first: Number of the first replica here.
        here: Replicas here; each takes one element of the data set a step.
        total: Replicas everywhere. Batches are cut into as many runs of equal length.
    """

    first: int = 0
    here: int = 1
    total: int = 1


WHOLE = Share()


def labelled_batches(
    samples: NDArray[Any],
    labels: NDArray[np.int32],
    sampler: Callable[[int], NDArray[np.int32]],
    augmentation: Augmentation | None,
    *,
    seed: int,
    first_step: int,
    share: Share = WHOLE,
) -> tf.data.Dataset:
    """Return batches (samples[B, ...], labels int32[B]) from a step on, without end.

    Args:
        samples: uint8[N, H, W, C] images or int32[N, T] tokens.
        labels: int32[N], the subject of each.
        sampler: Step to int32[B] indices.
        augmentation: For images; None leaves them alone.
        seed: Of the augmentation.
        first_step: 0, or where a run goes on.
        share: The part of each batch made here.
    """
    held, held_labels = tf.constant(samples), tf.constant(labels)

    def batch(stream: tf.Tensor, indices: tf.Tensor) -> tuple[Any, Any]:
        chosen = tf.gather(held, indices)
        return _augmented(chosen, augmentation, seed, stream), tf.gather(held_labels, indices)

    blocks = _blocks(lambda step: (sampler(step),), first_step, share)
    size = sampler(first_step).shape[0] // share.total
    signature = (tf.TensorSpec((None, size), tf.int32),)
    return _one_by_one(blocks, signature, batch, parallel=augmentation is not None)


def pair_batches(
    left: NDArray[Any],
    right: NDArray[Any],
    sampler: Callable[[int], Pairs],
    augmentation: Augmentation | None,
    *,
    seed: int,
    first_step: int,
    share: Share = WHOLE,
) -> tf.data.Dataset:
    """Return batches (left[B, ...], right[B, ...], same bool[B]) from a step on, without end.

    Args:
        left: Samples of the left side, [N, ...].
        right: Samples of the right side, [M, ...]; the same array for twins.
        sampler: Step to indices of either side and whether they are mated.
        augmentation: For images, drawn for either side on its own; None leaves them alone.
        seed: Of the augmentation.
        first_step: 0, or where a run goes on.
        share: The part of each batch made here.
    """
    held_left = tf.constant(left)
    held_right = held_left if right is left else tf.constant(right)

    def batch(stream: tf.Tensor, a: tf.Tensor, b: tf.Tensor, same: tf.Tensor) -> tuple[Any, Any, Any]:
        # The right side draws from another stream, also where both sides are the same image.
        return (
            _augmented(tf.gather(held_left, a), augmentation, seed, 2 * stream),
            _augmented(tf.gather(held_right, b), augmentation, seed, 2 * stream + 1),
            same,
        )

    def indices(step: int) -> tuple[NDArray[Any], ...]:
        pairs = sampler(step)
        return pairs.left, pairs.right, pairs.same

    size = sampler(first_step).same.shape[0] // share.total
    signature = tuple(tf.TensorSpec((None, size), kind) for kind in (tf.int32, tf.int32, tf.bool))
    blocks = _blocks(indices, first_step, share)
    return _one_by_one(blocks, signature, batch, parallel=augmentation is not None)


def _augmented(
    samples: tf.Tensor, augmentation: Augmentation | None, seed: int, stream: tf.Tensor
) -> tf.Tensor:
    if augmentation is None or samples.dtype != tf.uint8:
        return samples
    return augment(samples, augmentation, tf.stack([tf.constant(seed, tf.int32), tf.cast(stream, tf.int32)]))


def _blocks(
    of_step: Callable[[int], tuple[NDArray[Any], ...]], first_step: int, share: Share
) -> Callable[[], Iterator[tuple[NDArray[Any], ...]]]:
    """Return a generator of the streams of randomness and the indices of many steps at once."""
    replicas = slice(share.first, share.first + share.here)

    def parts(columns: list[NDArray[Any]]) -> NDArray[Any]:
        whole = np.stack(columns)
        cut = whole.reshape(len(whole), share.total, -1)[:, replicas]
        return cut.reshape(len(whole) * share.here, -1)

    def generate() -> Iterator[tuple[NDArray[Any], ...]]:
        start = first_step
        while True:
            steps = range(start, start + STEPS_A_BLOCK)
            streams = np.arange(steps.start * share.total, steps.stop * share.total)
            columns = zip(*(of_step(step) for step in steps), strict=True)
            yield (
                streams.reshape(len(steps), share.total)[:, replicas].ravel(),
                *(parts(list(column)) for column in columns),
            )
            start += STEPS_A_BLOCK

    return generate


def _one_by_one(
    blocks: Callable[[], Iterator[tuple[NDArray[Any], ...]]],
    signature: tuple[tf.TensorSpec, ...],
    batch: Callable[..., tuple[Any, ...]],
    *,
    parallel: bool,
) -> tf.data.Dataset:
    streams = tf.TensorSpec((None,), tf.int64)
    data = tf.data.Dataset.from_generator(blocks, output_signature=(streams, *signature))
    options = tf.data.Options()
    options.deterministic = True
    # Each worker makes its own batches from its own steps; nothing is to be divided behind its back.
    options.experimental_distribute.auto_shard_policy = tf.data.experimental.AutoShardPolicy.OFF
    # To hand a batch that is only gathered to other threads costs more than to gather it.
    batches = data.unbatch().map(batch, num_parallel_calls=2 if parallel else None)
    return batches.prefetch(4).with_options(options)
