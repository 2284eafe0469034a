"""The pairs of texts of a run: what is trained on, what chooses weights and threshold, what tests."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from pydantic import JsonValue

from training.config import RecipeError, TextPairsData
from training.data.samplers import LabelConvention
from training.data.smoke import paraphrases
from training.data.sources import QUESTIONS, STSB, DataSet
from training.data.tables import read_pair_table
from training.data.text import (
    TextPairs,
    connected,
    read_questions,
    read_stsb,
    split_pairs,
    text_pairs,
)

SMOKE_PAIRS = (1200, 300, 400)
"""To train, to validate, to test."""


@dataclass(frozen=True, eq=False)
class TextParts:
    """The pairs of a run.

    Attributes:
        train: What the encoder learns from.
        validation: What chooses the best weights and the threshold.
        test: What the results are measured on.
        left_out: Pairs not trained on because validation or test has them too, in either order.
        dataset: What the report says of the data.
    """

    train: TextPairs
    validation: TextPairs
    test: TextPairs
    left_out: int
    dataset: dict[str, JsonValue]

    def unseen(self) -> NDArray[np.bool_]:
        """Return bool[N], the test pairs of which neither text is among the training texts."""
        known = {*self.train.left, *self.train.right}
        sides = zip(self.test.left, self.test.right, strict=True)
        return np.array([left not in known and right not in known for left, right in sides], np.bool_)


def load_text_parts(spec: TextPairsData, data_dir: Path, seed: int) -> TextParts:
    """Read the pairs and split them.

    Pairs of one file are split so that no text is in two parts. The public sets bring test parts that share
    texts with their training parts; only whole pairs that recur are taken out of training.

    Raises:
        MissingDataError: A file is not there.
        DataError: A file is damaged or says not what its labels mean, or the pairs are too few to split.
        RecipeError: ``pairs`` has no path.
    """
    match spec.source:
        case "questions":
            whole, test = read_questions(data_dir, "train"), read_questions(data_dir, "test")
            fresh = _without(whole, test)
            train, validation = split_pairs(fresh, spec.validation, seed)
            return TextParts(train, validation, test, len(whole) - len(fresh), _described(QUESTIONS))
        case "stsb":
            whole, validation, test = (read_stsb(data_dir, part) for part in ("train", "dev", "test"))
            train = _without(_without(whole, validation), test)
            return TextParts(train, validation, test, len(whole) - len(train), _described(STSB))
        case "pairs":
            if spec.path is None:
                raise RecipeError("data source pairs needs data.path, a CSV or TSV file")
            inside = data_dir / spec.path
            path = inside if inside.is_file() else Path(spec.path)
            convention = None if spec.convention is None else LabelConvention(spec.convention)
            table = read_pair_table(path, convention=convention, same_from=spec.same_from)
            rest, test = split_pairs(text_pairs(table), spec.test, seed)
            train, validation = split_pairs(rest, spec.validation / max(1.0 - spec.test, 0.01), seed)
            own: dict[str, JsonValue] = {"name": path.name, "licence": "your own", "source": "a file"}
            return TextParts(train, validation, test, 0, own)
        case "smoke-paraphrases":
            whole, validation, test = (
                paraphrases(count, seed + number) for number, count in enumerate(SMOKE_PAIRS)
            )
            train = _without(_without(whole, validation), test)
            made: dict[str, JsonValue] = {
                "name": "composed paraphrases",
                "licence": "made by the run",
                "source": "",
            }
            return TextParts(train, validation, test, len(whole) - len(train), made)


def mated_groups(pairs: TextPairs) -> tuple[tuple[str, ...], NDArray[np.int32]]:
    """Return the texts that have a mate, each once, and int32[N], which of them mean the same.

    Texts that are linked by mated pairs, directly or through others, form one group: they play the part that
    images of one subject play elsewhere.

    >>> pairs = TextPairs(("a", "b", "d"), ("b", "c", "e"), np.array([True, True, False]))
    >>> mated_groups(pairs)
    (('a', 'b', 'c'), array([0, 0, 0], dtype=int32))
    """
    mated = pairs.take(np.flatnonzero(pairs.same))
    group: dict[str, int] = {}
    for left, right, number in zip(mated.left, mated.right, connected(mated).tolist(), strict=True):
        group[left] = group[right] = number
    return tuple(group), np.array(list(group.values()), np.int32)


def _without(pairs: TextPairs, others: TextPairs) -> TextPairs:
    """Return the pairs that are not among others, whichever text is left and whichever right."""
    known = {frozenset(sides) for sides in zip(others.left, others.right, strict=True)}
    sides = zip(pairs.left, pairs.right, strict=True)
    return pairs.take(np.flatnonzero([frozenset(each) not in known for each in sides]))


def _described(known: DataSet) -> dict[str, JsonValue]:
    return {"name": known.title.partition(":")[0], "licence": known.licence, "source": known.home}
