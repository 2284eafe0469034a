"""The thin Keras classes: same numbers as the functions, through ``fit`` and through saving."""

from __future__ import annotations

import keras
import numpy as np
import pytest

from tests.training.losses.batches import LABELS, spread_out
from training.losses.closest_negatives import ClosestNegativesLoss, closest_negatives_loss
from training.losses.contrastive import (
    BatchContrastiveLoss,
    ContrastiveLoss,
    batch_contrastive_loss,
    contrastive_loss,
)
from training.losses.pair_probability import PairProbabilityLoss, pair_probability_loss
from training.losses.triplet import (
    MINING,
    ExplicitTripletLoss,
    TripletLoss,
    explicit_triplet_loss,
)

LABEL_ARRAY = np.array(LABELS["several subjects"])
SAME = np.array([True, False, True, False])
NUMBERS = np.array([0.2, 0.4, 1.5, 2.0])


def test_pair_classes_give_the_mean_of_the_functions() -> None:
    assert float(ContrastiveLoss(margin=1.5)(SAME, NUMBERS)) == pytest.approx(
        float(contrastive_loss(NUMBERS, SAME, 1.5))
    )
    assert float(PairProbabilityLoss()(SAME, NUMBERS)) == pytest.approx(
        float(pair_probability_loss(NUMBERS, SAME))
    )


@pytest.mark.parametrize("mining", MINING)
def test_triplet_class_gives_the_loss_of_its_rule(mining: str) -> None:
    expected = MINING[mining](spread_out(0), LABEL_ARRAY, 0.3, squared=True)[0]
    loss = TripletLoss(mining, margin=0.3, squared=True)(LABEL_ARRAY, spread_out(0))
    assert float(loss) == pytest.approx(float(expected))


def test_other_batch_classes_give_the_losses_of_the_functions() -> None:
    views = np.stack([spread_out(0), spread_out(1)], axis=1)
    assert float(BatchContrastiveLoss(2.0)(LABEL_ARRAY, spread_out(0))) == pytest.approx(
        float(batch_contrastive_loss(spread_out(0), LABEL_ARRAY, 2.0))
    )
    assert float(ClosestNegativesLoss(0.4)(LABEL_ARRAY, views)) == pytest.approx(
        float(closest_negatives_loss(views[:, 0], views[:, 1], 0.4, labels=LABEL_ARRAY))
    )


def test_explicit_triplets_come_along_the_second_axis() -> None:
    triplets = np.stack([spread_out(0), spread_out(1), spread_out(2)], axis=1)
    expected, _ = explicit_triplet_loss(spread_out(0), spread_out(1), spread_out(2), 0.5)
    assert float(ExplicitTripletLoss(0.5)(np.zeros(8), triplets)) == pytest.approx(float(expected))


@pytest.mark.parametrize("loss", [ContrastiveLoss(), PairProbabilityLoss()], ids=lambda loss: loss.name)
def test_pair_classes_refuse_same_in_numbers(loss: keras.losses.Loss) -> None:
    with pytest.raises(TypeError, match="LabelConvention"):
        loss(SAME.astype(np.float32), NUMBERS)


def test_pair_classes_take_sample_weights() -> None:
    weighted = ContrastiveLoss()(SAME, NUMBERS, sample_weight=np.array([1.0, 0.0, 0.0, 0.0]))
    assert float(weighted) == pytest.approx(0.2**2 / 4)


def test_batch_classes_refuse_sample_weights() -> None:
    with pytest.raises(ValueError, match="no sample weights"):
        TripletLoss()(LABEL_ARRAY, spread_out(0), sample_weight=np.ones(8))


def test_unknown_mining_rule_is_refused_with_those_known() -> None:
    with pytest.raises(ValueError, match="batch_all, semi_hard, batch_hard"):
        TripletLoss("hardest")


@pytest.mark.parametrize(
    "loss",
    [
        ContrastiveLoss(margin=2.0),
        BatchContrastiveLoss(margin=2.0),
        TripletLoss("batch_hard", margin=0.3, squared=True),
        ExplicitTripletLoss(margin=0.3, squared=True),
        ClosestNegativesLoss(margin=0.1, exclude_closer=False),
        PairProbabilityLoss(),
    ],
    ids=lambda loss: loss.name,
)
def test_configuration_survives_serialisation(loss: keras.losses.Loss) -> None:
    again = keras.losses.deserialize(keras.losses.serialize(loss))
    assert type(again) is type(loss)
    assert again.get_config() == loss.get_config()


def test_fit_lowers_a_batch_loss() -> None:
    keras.utils.set_random_seed(0)
    model = keras.Sequential([keras.Input((3,)), keras.layers.Dense(4)])
    model.compile(keras.optimizers.Adam(0.05), BatchContrastiveLoss(margin=1.0))
    history = model.fit(spread_out(5), LABEL_ARRAY, batch_size=8, epochs=15, verbose=0).history["loss"]
    assert history[-1] < 0.5 * history[0]


def test_fit_hands_booleans_over_to_a_pair_loss() -> None:
    keras.utils.set_random_seed(0)
    sample = keras.Input((3,))
    model = keras.Model(sample, keras.layers.Dense(1)(sample)[:, 0])
    model.compile(keras.optimizers.Adam(0.5), PairProbabilityLoss())
    same = spread_out(6)[:, 0] > 0
    history = model.fit(spread_out(6), same, batch_size=8, epochs=15, verbose=0).history["loss"]
    assert history[-1] < 0.5 * history[0]
