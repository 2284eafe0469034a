"""Spelled names of the digits: the second kind of input of the two-tower recipe."""

from __future__ import annotations

import string
from collections.abc import Sequence
from typing import Final

import numpy as np
from numpy.typing import NDArray

ENGLISH: Final = ("zero", "one", "two", "three", "four", "five", "six", "seven", "eight", "nine")
SPELLINGS: Final[dict[str, tuple[str, ...]]] = {
    "en": ENGLISH,
    "de": ("null", "eins", "zwei", "drei", "vier", "fuenf", "sechs", "sieben", "acht", "neun"),
    "es": ("cero", "uno", "dos", "tres", "cuatro", "cinco", "seis", "siete", "ocho", "nueve"),
    "fr": ("zero", "un", "deux", "trois", "quatre", "cinq", "six", "sept", "huit", "neuf"),
    "it": ("zero", "uno", "due", "tre", "quattro", "cinque", "sei", "sette", "otto", "nove"),
    "nl": ("nul", "een", "twee", "drie", "vier", "vijf", "zes", "zeven", "acht", "negen"),
}
"""Language: names of 0 to 9 in the letters a to z. No name means two digits, in whichever languages."""

LETTERS: Final = string.ascii_lowercase
CHARACTERS: Final = len(LETTERS) + 1
"""Different numbers: 0 pads, 1 is a."""


def digit_names(languages: Sequence[str] = ("en",)) -> tuple[tuple[str, ...], NDArray[np.int32]]:
    """Return N names and int32[N], the digit that each means; a name occurs once.

    Raises:
        KeyError: A language is not listed.

    >>> digit_names()[0][:2]
    ('zero', 'one')
    """
    meaning = {name: digit for language in languages for digit, name in enumerate(SPELLINGS[language])}
    return tuple(meaning), np.array(list(meaning.values()), np.int32)


def encode_names(names: Sequence[str], length: int = 12) -> NDArray[np.int32]:
    """Return int32[N, length], the letters of each name (a is 1), padded with 0 behind.

    Raises:
        ValueError: A name has other characters than a to z, or more than fit.

    >>> encode_names(["abe"], 4).tolist()
    [[1, 2, 5, 0]]
    """
    encoded = np.zeros((len(names), length), np.int32)
    for row, name in zip(encoded, names, strict=True):
        if not name or len(name) > length or set(name) - set(LETTERS):
            raise ValueError(f"{name!r} is not 1 to {length} letters a to z")
        row[: len(name)] = [LETTERS.index(letter) + 1 for letter in name]
    return encoded
