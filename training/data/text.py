"""Pairs of texts, and the vocabulary that turns a text into numbers."""

from __future__ import annotations

import json
import re
import unicodedata
from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Final, Literal, get_args

import numpy as np
from numpy.typing import NDArray

from training.data.errors import DataError, MissingDataError
from training.data.samplers import LabelConvention
from training.data.tables import PairTable, read_pair_table

Unit = Literal["words", "characters", "bigrams"]
"""What a token is.

``words`` suit English. ``characters`` are letters and digits one by one, which in Korean are syllables: by
TF-IDF they tell Korean questions apart as well as any n-gram (area under the ROC curve 0.93 on the training
pairs of ``questions``, words 0.85) with a twelfth of the vocabulary. ``bigrams`` are two characters of a
word, its edges included.
"""

PADDING: Final = 0
UNKNOWN: Final = 1
_FIRST: Final = 2
"""Number of the first token of a vocabulary."""

STSB_SAME_FROM: Final = 3.0
"""Score of STSb, 0 to 5, from which two sentences count as the same: 3 is "roughly equivalent, but some
important information differs" (Cer et al. 2017, SemEval task 1, table 1)."""


@dataclass(frozen=True, eq=False)
class TextPairs:
    """Pairs of texts.

    Attributes:
        left: N texts.
        right: N texts.
        same: bool[N], True for pairs that mean the same.
        score: float64[N], a graded judgement where there is one; larger is more alike.
    """

    left: tuple[str, ...]
    right: tuple[str, ...]
    same: NDArray[np.bool_]
    score: NDArray[np.float64] | None = None

    def __post_init__(self) -> None:
        if self.same.dtype != np.bool_:
            raise TypeError(f"same: bool wanted, not {self.same.dtype}; see same_from_labels")
        if not len(self.left) == len(self.right) == len(self.same):
            raise ValueError("left, right and same are of one length")

    def __len__(self) -> int:
        return len(self.left)

    def take(self, rows: NDArray[np.integer]) -> TextPairs:
        """Return these rows."""
        return TextPairs(
            tuple(self.left[row] for row in rows),
            tuple(self.right[row] for row in rows),
            self.same[rows],
            None if self.score is None else self.score[rows],
        )


def text_pairs(table: PairTable) -> TextPairs:
    """Return the rows of a table as pairs of texts."""
    return TextPairs(table.left, table.right, table.same, table.score)


def read_questions(data_dir: Path, part: Literal["train", "test"]) -> TextPairs:
    """Read the Korean question pairs: 6,888 to train, 688 to test.

    Its column ``is_duplicate`` is 1 for *different* questions, as its README says and its rows show. The two
    parts are not alike: 69 % of the training pairs are the same and 52 % of the test pairs, and the same test
    questions are put in other words more often.

    Raises:
        MissingDataError: The file is not there.
        DataError: It is damaged.

    Source: https://github.com/songys/Question_pair
    """
    name = {"train": "kor_pair_train.csv", "test": "kor_Pair_test.csv"}[part]
    return _public(
        data_dir / "text" / "question_pairs_ko" / name,
        "questions",
        convention=LabelConvention.ONE_IS_DIFFERENT,
    )


def read_stsb(data_dir: Path, part: Literal["train", "dev", "test"]) -> TextPairs:
    """Read the English STS benchmark: 5,749 scored sentence pairs to train, 1,500 to choose, 1,379 to test.

    Raises:
        MissingDataError: The file is not there.
        DataError: It is damaged.

    Source: Cer et al. (2017), "SemEval-2017 Task 1"; files of https://github.com/PhilipMay/stsb-multi-mt
    """
    return _public(
        data_dir / "text" / "stsb" / f"stsb-en-{part}.csv",
        "stsb",
        header=("sentence1", "sentence2", "score"),
        same_from=STSB_SAME_FROM,
    )


def _public(
    path: Path,
    name: str,
    *,
    header: Sequence[str] | None = None,
    convention: LabelConvention | None = None,
    same_from: float | None = None,
) -> TextPairs:
    try:
        return text_pairs(read_pair_table(path, header=header, convention=convention, same_from=same_from))
    except MissingDataError as error:
        raise MissingDataError.of(path, name) from error


def split_pairs(pairs: TextPairs, share: float, seed: int) -> tuple[TextPairs, TextPairs]:
    """Split pairs in two so that no text is on both sides: the rest, and about this share.

    Pairs that share a text, directly or through others, stay together. Both parts have pairs of both kinds.

    Raises:
        DataError: The pairs hang together so much, or are so few, that one part would lack a kind.

    >>> pairs = TextPairs(("a", "b", "c", "d"), ("b", "c", "d", "e"), np.ones(4, bool))
    >>> split_pairs(pairs, 0.5, seed=0)
    Traceback (most recent call last):
    training.data.errors.DataError: the pairs cannot be split: one part would lack same or different pairs
    """
    piece = connected(pairs)
    sizes = np.bincount(piece)
    room = share * len(pairs)
    taken = []
    for number in np.random.default_rng(seed).permutation(sizes.size):
        if sizes[number] / 2 <= room:  # it brings the part nearer to its share
            taken.append(number)
            room -= sizes[number]
    second = np.isin(piece, taken)
    for rows in (~second, second):
        if not pairs.same[rows].any() or pairs.same[rows].all():
            raise DataError("the pairs cannot be split: one part would lack same or different pairs")
    return pairs.take(np.flatnonzero(~second)), pairs.take(np.flatnonzero(second))


def connected(pairs: TextPairs) -> NDArray[np.intp]:
    """Return intp[N], which set of pairs that share texts, directly or through others, each belongs to.

    The sets are numbered 0..M-1.
    """
    parent: dict[str, str] = {}

    def root(text: str) -> str:
        parent.setdefault(text, text)
        while parent[text] != text:
            parent[text] = parent[parent[text]]
            text = parent[text]
        return text

    for left, right in zip(pairs.left, pairs.right, strict=True):
        parent[root(left)] = root(right)
    numbers: dict[str, int] = {}
    return np.array([numbers.setdefault(root(left), len(numbers)) for left in pairs.left], np.intp)


def tokens_of(text: str, unit: Unit) -> list[str]:
    """Cut a text into tokens: lower case, compatibility forms united, punctuation left out.

    >>> tokens_of("Don't  STOP", "words")
    ['don', 't', 'stop']
    >>> tokens_of("so?", "bigrams")
    ['<s', 'so', 'o>']
    """
    words: list[str] = re.findall(r"[^\W_]+", unicodedata.normalize("NFKC", text).casefold())
    if unit == "words":
        return words
    if unit == "characters":
        return list("".join(words))
    edged = [f"<{word}>" for word in words]
    return [word[place : place + 2] for word in edged for place in range(len(word) - 1)]


@dataclass(frozen=True)
class Vocabulary:
    """Tokens and their numbers: 0 pads, 1 is any token not listed, 2 is ``tokens[0]`` and so on.

    Attributes:
        unit: What a token is.
        tokens: The most frequent first, ties in alphabetical order.
    """

    unit: Unit
    tokens: tuple[str, ...]

    def __len__(self) -> int:
        """How many numbers there are, padding and unknown included."""
        return len(self.tokens) + _FIRST

    @classmethod
    def of(cls, texts: Iterable[str], unit: Unit, size: int) -> Vocabulary:
        """Return the vocabulary of the training texts, at most ``size`` numbers.

        Raises:
            DataError: The texts have no letter or digit.
        """
        counts = Counter(token for text in texts for token in tokens_of(text, unit))
        if not counts:
            raise DataError("the texts have no letter or digit to make a vocabulary of")
        ordered = sorted(counts, key=lambda token: (-counts[token], token))
        return cls(unit, tuple(ordered[: size - _FIRST]))

    def encode(self, texts: Sequence[str], length: int) -> NDArray[np.int32]:
        """Return int32[N, length]: the first tokens of each text, padded with 0 behind.

        A text without a token is one unknown token, so that no row is all padding.
        """
        numbers = {token: number for number, token in enumerate(self.tokens, _FIRST)}
        encoded = np.full((len(texts), length), PADDING, np.int32)
        for row, text in zip(encoded, texts, strict=True):
            known = [numbers.get(token, UNKNOWN) for token in tokens_of(text, self.unit)[:length]]
            row[: max(1, len(known))] = known or UNKNOWN
        return encoded

    def as_json(self) -> str:
        """Return the vocabulary as one JSON object."""
        return json.dumps({"unit": self.unit, "tokens": self.tokens}, ensure_ascii=False) + "\n"

    @classmethod
    def from_json(cls, text: str) -> Vocabulary:
        """Read what ``as_json`` wrote.

        Raises:
            DataError: It is no vocabulary.
        """
        try:
            read = json.loads(text)
            unit, tokens = read["unit"], tuple(read["tokens"])
        except (ValueError, TypeError, KeyError) as error:
            raise DataError(f"this is no vocabulary: {error}") from error
        if unit not in get_args(Unit) or not all(isinstance(token, str) for token in tokens):
            raise DataError("this is no vocabulary: unit or tokens are of another kind")
        return cls(unit, tokens)
