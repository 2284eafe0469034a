from __future__ import annotations

import itertools
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

from training.data.augmentation import Affine, Augmentation
from training.data.pipeline import STEPS_A_BLOCK, WHOLE, Share, labelled_batches, pair_batches
from training.data.samplers import PairSampler, PKSampler

SEED = 11
LABELS = np.repeat(np.arange(6, dtype=np.int32), 4)
IMAGES = np.random.default_rng(0).integers(0, 256, (24, 8, 8, 1), np.uint8)
TOKENS = np.arange(24 * 5, dtype=np.int32).reshape(24, 5)
TURNS = Augmentation(affine=Affine(rotation_deg=90, shift=0.2))


def labelled(
    first_step: int = 0, *, samples: Any = IMAGES, turned: bool = True, seed: int = SEED, share: Share = WHOLE
) -> Any:
    sampler = PKSampler(LABELS, 4, 2, SEED)
    augmentation = TURNS if turned else None
    return labelled_batches(
        samples, LABELS, sampler, augmentation, seed=seed, first_step=first_step, share=share
    )


def pairs(first_step: int = 0, *, turned: bool = True, share: Share = WHOLE) -> Any:
    sampler = PairSampler(LABELS, 8, SEED)
    augmentation = TURNS if turned else None
    return pair_batches(IMAGES, IMAGES, sampler, augmentation, seed=SEED, first_step=first_step, share=share)


def taken(data: Any, count: int) -> list[tuple[NDArray[Any], ...]]:
    return [tuple(np.asarray(part) for part in batch) for batch in itertools.islice(data, count)]


def assert_equal(left: list[tuple[NDArray[Any], ...]], right: list[tuple[NDArray[Any], ...]]) -> None:
    assert len(left) == len(right)
    for one, other in zip(left, right, strict=True):
        for mine, yours in zip(one, other, strict=True):
            np.testing.assert_array_equal(mine, yours)


def test_batch_is_what_the_sampler_chose() -> None:
    sampler = PKSampler(LABELS, 4, 2, SEED)
    for step, (images, labels) in enumerate(taken(labelled(turned=False), 3)):
        np.testing.assert_array_equal(images, IMAGES[sampler(step)])
        np.testing.assert_array_equal(labels, LABELS[sampler(step)])


def test_pairs_are_what_the_sampler_chose() -> None:
    sampler = PairSampler(LABELS, 8, SEED)
    for step, (left, right, same) in enumerate(taken(pairs(turned=False), 3)):
        chosen = sampler(step)
        np.testing.assert_array_equal(left, IMAGES[chosen.left])
        np.testing.assert_array_equal(right, IMAGES[chosen.right])
        np.testing.assert_array_equal(same, chosen.same)


@pytest.mark.parametrize("make", [labelled, pairs])
@pytest.mark.parametrize("first", [1, 5, STEPS_A_BLOCK, STEPS_A_BLOCK + 3])
def test_batches_from_a_step_on_are_those_of_the_whole_run(make: Any, first: int) -> None:
    whole = taken(make(), first + 4)
    assert_equal(taken(make(first), 4), whole[first:])


def test_augmentation_of_a_step_changes_with_seed_and_step() -> None:
    at_0, at_1 = taken(labelled(), 2)
    turned_otherwise = taken(labelled(seed=SEED + 1), 1)[0]
    assert not np.array_equal(at_0[0], at_1[0])
    assert not np.array_equal(at_0[0], turned_otherwise[0])
    np.testing.assert_array_equal(at_0[1], turned_otherwise[1])


def test_two_sides_of_a_pair_of_one_image_are_augmented_differently() -> None:
    class Twice(PairSampler):
        def __call__(self, step: int) -> Any:
            chosen = super().__call__(step)
            return type(chosen)(chosen.left, chosen.left, chosen.same)

    data = pair_batches(IMAGES, IMAGES, Twice(LABELS, 8, SEED), TURNS, seed=SEED, first_step=0)
    left, right, _ = taken(data, 1)[0]
    assert all(not np.array_equal(one, other) for one, other in zip(left, right, strict=True))


def test_tokens_are_left_alone_by_augmentation_of_images() -> None:
    tokens, labels = taken(labelled(samples=TOKENS), 1)[0]
    np.testing.assert_array_equal(labels, LABELS[tokens[:, 0] // 5])
    assert tokens.dtype == np.int32


@pytest.mark.parametrize("make", [labelled, pairs])
def test_shares_of_two_workers_put_together_are_the_batch(make: Any) -> None:
    whole = taken(make(7, turned=False), 3)
    shares = [taken(make(7, turned=False, share=Share(first, 1, 2)), 3) for first in (0, 1)]
    joined = [
        tuple(np.concatenate(parts) for parts in zip(*sides, strict=True))
        for sides in zip(*shares, strict=True)
    ]
    assert_equal(joined, whole)


def test_worker_with_two_replicas_makes_an_element_for_each_in_turn() -> None:
    apart = [taken(labelled(share=Share(first, 1, 4)), 2) for first in (2, 3)]
    together = taken(labelled(share=Share(2, 2, 4)), 4)
    assert_equal(together, [apart[0][0], apart[1][0], apart[0][1], apart[1][1]])


def test_whole_subjects_fall_to_a_share() -> None:
    for first in (0, 1):
        for _, labels in taken(labelled(share=Share(first, 1, 2)), 5):
            assert (np.bincount(labels)[np.unique(labels)] == 2).all()


def test_shares_draw_different_augmentation() -> None:
    blank = np.repeat(IMAGES[:1], 24, axis=0)
    parts = [taken(labelled(samples=blank, share=Share(first, 1, 2)), 1)[0][0] for first in (0, 1)]
    assert not np.array_equal(parts[0], parts[1])
