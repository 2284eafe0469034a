"""Binary cross-entropy of pairs against its definition."""

from __future__ import annotations

import math

import numpy as np
import pytest
import tensorflow as tf

from tests.training.losses import plain_loops
from tests.training.losses.batches import LABELS
from training.losses.pair_probability import (
    batch_pair_probability_loss,
    pair_probability_loss,
    pair_probability_terms,
)


def test_loss_is_the_mean_of_plain_loops() -> None:
    generator = np.random.default_rng(5)
    logits, same = generator.normal(0, 3, 60), generator.random(60) < 0.4
    expected = plain_loops.mean([plain_loops.cross_entropy(x, y) for x, y in zip(logits, same, strict=True)])
    assert pair_probability_loss(logits, same).numpy() == pytest.approx(expected, rel=1e-5)


@pytest.mark.parametrize("labels", LABELS.values(), ids=LABELS.keys())
def test_batch_loss_is_that_of_plain_loops(labels: list[int]) -> None:
    logits = np.random.default_rng(6).normal(0, 2, (8, 8))
    logits = logits + logits.T
    expected = plain_loops.halves(lambda i, j, same: plain_loops.cross_entropy(logits[i, j], same), labels)
    assert batch_pair_probability_loss(logits, labels).numpy() == pytest.approx(expected, rel=1e-5)


@pytest.mark.parametrize("labels", LABELS.values(), ids=LABELS.keys())
def test_batch_loss_of_the_hardest_pairs_is_that_of_plain_loops(labels: list[int]) -> None:
    logits = np.random.default_rng(7).normal(0, 2, (8, 8))
    logits = logits + logits.T
    mated, hardest = [], []
    for i in range(8):
        different = [
            plain_loops.cross_entropy(logits[i, j], False) for j in range(8) if labels[i] != labels[j]
        ]
        hardest += [max(different)] if different else []
        mated += [
            plain_loops.cross_entropy(logits[i, j], True)
            for j in range(8)
            if i != j and labels[i] == labels[j]
        ]
    expected = 0.5 * sum(plain_loops.mean(part) for part in (mated, hardest) if part)
    found = batch_pair_probability_loss(logits, labels, mining="batch_hard").numpy()
    assert found == pytest.approx(expected, rel=1e-5)


def test_head_that_cannot_tell_costs_log_two() -> None:
    assert pair_probability_loss([0.0, 0.0], [True, False]).numpy() == pytest.approx(math.log(2))


def test_sure_and_wrong_costs_the_logit_and_keeps_its_gradient() -> None:
    logit = tf.constant([200.0, -200.0])
    with tf.GradientTape() as tape:
        tape.watch(logit)
        terms = pair_probability_terms(logit, [False, True])
    assert terms.numpy().tolist() == [200.0, 200.0]
    assert tape.gradient(terms, logit).numpy().tolist() == [1.0, -1.0]


def test_same_in_numbers_is_refused() -> None:
    with pytest.raises(TypeError, match="LabelConvention"):
        pair_probability_loss([0.5, 0.5], [1, 0])


def test_column_of_logits_is_refused() -> None:
    with pytest.raises(ValueError, match="must be equal"):
        pair_probability_loss([[0.5], [0.5]], [True, False])
