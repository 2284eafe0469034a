"""The rate of chance hits: measured where the evidence has them, carried on below, raised by the gallery."""

from __future__ import annotations

import math

import numpy as np
import pytest

from app.matching.chance import chance_of
from app.matching.evidence import Evidence

SUBJECTS = 200


def exponential_evidence(scale: float = 0.05, *, twins: int = 0) -> Evidence:
    """Return trials with FMR(d) = exp((d - 1) / scale), and some at distance 0.1 of one pair of subjects."""
    first, second = np.triu_indices(SUBJECTS, 1)
    pairs = np.stack([first, second], axis=1).astype(np.int32)
    pairs = pairs[np.random.default_rng(0).permutation(len(pairs))]
    apart = 1.0 + scale * np.log((np.arange(len(pairs)) + 0.5) / len(pairs))
    return Evidence(
        mated_distance=np.zeros(1),
        mated_subject=np.zeros(1, np.int32),
        nonmated_distance=np.concatenate([np.full(twins, 0.1), apart]),
        nonmated_subjects=np.concatenate([np.tile(pairs[:1], (twins, 1)), pairs]),
        nonmated_total=len(pairs) + twins,
        subjects=SUBJECTS,
    )


def test_exponential_tail_is_carried_on_exactly() -> None:
    chance = chance_of(exponential_evidence())
    for distance in (0.3, 0.5, 0.6, 0.7):
        assert float(chance.rate(distance)) == pytest.approx(math.exp((distance - 1.0) / 0.05), rel=0.25)


def test_rate_never_falls_with_distance() -> None:
    chance = chance_of(exponential_evidence())
    assert (np.diff(chance.rate(np.linspace(0.0, 1.2, 500))) >= 0.0).all()


def test_two_subjects_of_the_evidence_who_are_one_do_not_pass_for_chance() -> None:
    spoilt = exponential_evidence(twins=5)
    chance = chance_of(spoilt)
    assert spoilt.fmr(0.2) == pytest.approx(5 / spoilt.nonmated_total)
    assert float(chance.rate(0.2)) < 1e-6
    # At the distance where one is expected there are that one, give or take, and the five.
    assert 5 <= chance.excess <= 8
    assert chance_of(exponential_evidence()).excess <= 2


@pytest.mark.parametrize("rate", [0.009, 0.002, 1e-4, 1e-7])
def test_distance_for_a_rate_has_that_rate(rate: float) -> None:
    chance = chance_of(exponential_evidence())
    assert float(chance.rate(chance.distance_for(rate))) == pytest.approx(rate, rel=0.05)


def test_evidence_too_small_for_a_slope_gives_its_bound_at_any_distance() -> None:
    few = Evidence(
        mated_distance=np.zeros(0),
        mated_subject=np.zeros(0, np.int32),
        nonmated_distance=np.full(3, 0.9),
        nonmated_subjects=np.array([[0, 1], [0, 2], [1, 2]], np.int32),
        nonmated_total=3,
        subjects=3,
    )
    chance = chance_of(few)
    assert float(chance.rate(0.01)) == float(chance.rate(0.5)) == 1.0


def test_gallery_with_more_close_pairs_than_the_evidence_raises_the_rate_everywhere() -> None:
    chance = chance_of(exponential_evidence())
    raised = chance.corrected(10**6, 3.0 * chance.high_rate, 3.0 * chance.low_rate)
    for distance in (0.4, 0.7, chance.high):
        assert float(raised.rate(distance)) == pytest.approx(3.0 * float(chance.rate(distance)))


def test_gallery_with_a_flatter_tail_gets_the_flatter_slope() -> None:
    chance = chance_of(exponential_evidence())
    flatter = chance.corrected(10**6, chance.high_rate, 2.0 * chance.low_rate)
    assert flatter.scale > chance.scale
    assert float(flatter.rate(0.4)) > float(chance.rate(0.4))


def test_small_or_sparser_gallery_changes_nothing() -> None:
    chance = chance_of(exponential_evidence())
    assert chance.corrected(100, 1.0, 1.0) is chance
    sparser = chance.corrected(10**6, 0.1 * chance.high_rate, 0.1 * chance.low_rate)
    assert float(sparser.rate(0.5)) == float(chance.rate(0.5))


def test_large_gallery_is_followed_down_to_as_many_pairs_as_it_has_identities() -> None:
    chance = chance_of(exponential_evidence())
    identities = 8000
    compared = identities * (identities - 1) // 2
    # Steeper than the evidence's line, as the tail of a normal distribution is.
    ranks = np.arange(1, 40_000)
    apart = chance.low + 0.02 * np.log(ranks / (chance.low_rate * compared))
    assert chance.followed(apart[: 2 * identities], compared, identities) is chance
    followed = chance.followed(apart, compared, identities)
    assert followed.scale == pytest.approx(0.02, rel=0.05)
    assert float(followed.rate(0.5)) < float(chance.rate(0.5))
    assert (np.diff(followed.rate(np.linspace(0.0, 1.2, 500))) >= 0.0).all()


def test_gallery_of_a_thousand_is_not_followed() -> None:
    chance = chance_of(exponential_evidence())
    assert chance.followed(np.linspace(0.1, 0.5, 10_000), 1000 * 999 // 2, 1000) is chance
