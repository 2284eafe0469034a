"""Subject-disjoint parts: who is trained on, who calibrates the thresholds, who is tested.

No subject is in two parts. Where subjects come in groups (alphabets), whole groups are dealt out, so that
the test is on alphabets never seen. A split is recorded as JSON beside what was trained on it.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import asdict, dataclass, fields

import numpy as np

from training.data.errors import DataError

PARTS = ("train", "calibration", "test")

_LEAST_SUBJECTS = 2
"""A part with one subject has no non-mated trial."""


@dataclass(frozen=True)
class Split:
    """Names of the subjects of each part, sorted, and the seed that dealt them out.

    Raises:
        DataError: A subject is in two parts.
    """

    train: tuple[str, ...]
    calibration: tuple[str, ...]
    test: tuple[str, ...]
    seed: int
    validation: tuple[str, ...] = ()
    """Who chooses the best weights; kept apart from ``train``. Often nobody."""

    def __post_init__(self) -> None:
        names = [*self.train, *self.validation, *self.calibration, *self.test]
        if len(set(names)) != len(names):
            twice = next(name for name in names if names.count(name) > 1)
            raise DataError(f"the split has subject {twice!r} twice; each belongs in one part")

    def as_json(self) -> str:
        """Return the split as one JSON object."""
        return json.dumps(asdict(self), indent=1, ensure_ascii=False) + "\n"

    @classmethod
    def from_json(cls, text: str) -> Split:
        """Read what ``as_json`` wrote.

        Raises:
            DataError: It is no split, or has a subject twice.
        """
        try:
            read = json.loads(text)
            if set(read) != {field.name for field in fields(cls)}:
                raise ValueError(f"the keys are {', '.join(sorted(read))}")
            parts = {part: tuple(str(name) for name in read[part]) for part in (*PARTS, "validation")}
            return cls(**parts, seed=int(read["seed"]))
        except (ValueError, TypeError) as error:
            raise DataError(f"this is no split of subjects: {error}") from error


def split_subjects(
    subjects: Sequence[str],
    *,
    shares: tuple[float, float, float] = (0.6, 0.2, 0.2),
    seed: int,
    groups: Sequence[str] | None = None,
) -> Split:
    """Deal subjects, or whole groups of them, out to train, calibration and test.

    Args:
        subjects: S names; their order does not matter.
        shares: Proportions of the three parts, scaled to 1, so counts such as (30, 10, 10) do too; of
            subjects, or of groups when there are any. A part of share 0 stays empty.
        seed: Of the shuffle.
        groups: S names, the group of each subject; None deals out single subjects.

    Raises:
        DataError: A name occurs twice, or there are too few to give each part two subjects.

    >>> split = split_subjects(["a", "b", "c", "d", "e", "f"], shares=(1, 1, 1), seed=0)
    >>> [len(part) for part in (split.train, split.calibration, split.test)]
    [2, 2, 2]
    """
    if min(shares) < 0 or shares[0] <= 0:
        raise ValueError(f"shares: none may be negative and train needs one, not {shares}")
    if len(set(subjects)) != len(subjects):
        raise DataError("a subject's name occurs twice")
    unit = "subjects" if groups is None else "groups"
    members: dict[str, list[str]] = {}
    for name, group in zip(subjects, subjects if groups is None else groups, strict=True):
        members.setdefault(group, []).append(name)
    units = sorted(members)
    least = [0 if share == 0 else _LEAST_SUBJECTS if groups is None else 1 for share in shares]
    if len(units) < sum(least):
        raise DataError(
            f"{len(units)} {unit} are too few to split: {sum(least)} are needed, "
            f"so that {' and '.join(p for p, n in zip(PARTS, least, strict=True) if n)} each get {max(least)}"
        )
    sizes = _sizes(len(units), shares, least)
    order = np.random.default_rng(seed).permutation(len(units))
    parts: list[tuple[str, ...]] = []
    for part, dealt in zip(PARTS, np.split(order, np.cumsum(sizes)[:2]), strict=True):
        names = sorted(name for index in dealt for name in members[units[index]])
        if 0 < len(names) < _LEAST_SUBJECTS:
            raise DataError(f"the {part} part has only subject {names[0]!r}; non-mated trials need two")
        parts.append(tuple(names))
    return Split(parts[0], parts[1], parts[2], seed)


def _sizes(total: int, shares: tuple[float, float, float], least: list[int]) -> list[int]:
    """Round shares of a total to whole numbers that add up, each at least so many (largest remainders)."""
    exact = [total * share / sum(shares) for share in shares]
    sizes = [int(value) for value in exact]
    by_remainder = sorted(range(3), key=lambda part: sizes[part] - exact[part])
    for part in by_remainder[: total - sum(sizes)]:
        sizes[part] += 1
    while short := [part for part in range(3) if sizes[part] < least[part]]:
        sizes[max(range(3), key=lambda part: sizes[part] - least[part])] -= 1
        sizes[short[0]] += 1
    return sizes
