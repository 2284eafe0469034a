"""Splits by subject and by group."""

import pytest

from training.data.errors import DataError
from training.data.splits import Split, split_subjects

TEN = [f"s{number}" for number in range(10)]


def sizes(split: Split) -> list[int]:
    return [len(split.train), len(split.calibration), len(split.test)]


def test_every_subject_is_in_exactly_one_part() -> None:
    split = split_subjects(TEN, seed=1)
    assert sorted([*split.train, *split.calibration, *split.test]) == TEN
    assert sizes(split) == [6, 2, 2]


def test_split_depends_on_the_seed_and_not_on_the_order() -> None:
    split = split_subjects(TEN, seed=1)
    assert split_subjects(TEN[::-1], seed=1) == split
    assert split_subjects(TEN, seed=2).train != split.train


def test_groups_stay_whole() -> None:
    subjects = [f"{group}/{number}" for group in "ABCDE" for number in range(3)]
    split = split_subjects(subjects, shares=(3, 1, 1), seed=0, groups=[name[0] for name in subjects])
    assert sizes(split) == [9, 3, 3]
    parts = [{name[0] for name in part} for part in (split.train, split.calibration, split.test)]
    assert sorted(group for part in parts for group in part) == list("ABCDE")


def test_shares_may_be_counts() -> None:
    alphabets = [f"a{number}" for number in range(50)]
    subjects = [f"{alphabet}/{number}" for alphabet in alphabets for number in range(2)]
    split = split_subjects(
        subjects, shares=(30, 10, 10), seed=0, groups=[name.partition("/")[0] for name in subjects]
    )
    assert sizes(split) == [60, 20, 20]


def test_a_small_share_still_gets_two_subjects() -> None:
    assert sizes(split_subjects(TEN, shares=(0.98, 0.01, 0.01), seed=0)) == [6, 2, 2]


def test_a_part_of_share_zero_stays_empty() -> None:
    assert sizes(split_subjects(TEN, shares=(4, 1, 0), seed=0)) == [8, 2, 0]


def test_five_subjects_are_too_few_for_three_parts() -> None:
    with pytest.raises(DataError, match="5 subjects are too few to split: 6 are needed"):
        split_subjects(TEN[:5], seed=0)


def test_a_group_of_one_subject_cannot_be_a_part_alone() -> None:
    with pytest.raises(DataError, match="part has only subject"):
        split_subjects(["a/0", "b/0", "c/0"], shares=(1, 1, 1), seed=0, groups=["a", "b", "c"])


def test_a_name_that_occurs_twice_is_refused() -> None:
    with pytest.raises(DataError, match="occurs twice"):
        split_subjects([*TEN, "s3"], seed=0)


@pytest.mark.parametrize("shares", [(0, 1, 1), (1, -1, 1)])
def test_shares_that_make_no_sense_are_refused(shares: tuple[float, float, float]) -> None:
    with pytest.raises(ValueError, match="shares"):
        split_subjects(TEN, shares=shares, seed=0)


def test_json_gives_the_same_split_back() -> None:
    split = split_subjects([*TEN, "żółw"], seed=3)
    assert Split.from_json(split.as_json()) == split
    assert "żółw" in split.as_json()


@pytest.mark.parametrize(
    "text",
    [
        "no json",
        "[]",
        '{"train": []}',
        '{"train": ["a"], "calibration": ["b"], "test": ["a"], "seed": 0}',
        '{"train": 1, "calibration": [], "test": [], "seed": 0}',
    ],
)
def test_json_that_is_no_split_is_refused(text: str) -> None:
    with pytest.raises(DataError, match="split"):
        Split.from_json(text)
