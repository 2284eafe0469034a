"""Spelled digit names."""

import numpy as np
import pytest

from training.data.names import CHARACTERS, SPELLINGS, digit_names, encode_names


def test_every_language_has_ten_different_names_of_letters() -> None:
    for names in SPELLINGS.values():
        assert len(set(names)) == 10
        assert encode_names(names).max() < CHARACTERS


def test_no_name_means_two_digits() -> None:
    meanings: dict[str, set[int]] = {}
    for names in SPELLINGS.values():
        for digit, name in enumerate(names):
            meanings.setdefault(name, set()).add(digit)
    assert {name for name, digits in meanings.items() if len(digits) > 1} == set()


def test_a_name_that_two_languages_share_occurs_once() -> None:
    names, digits = digit_names(["en", "fr", "es"])
    assert names.count("zero") == 1
    assert names.count("six") == 1
    assert digits[names.index("cuatro")] == 4
    assert len(names) == len(digits) == 28


def test_letters_are_numbered_from_1_and_padded_with_0() -> None:
    assert np.array_equal(encode_names(["az"], 4), np.array([[1, 26, 0, 0]], np.int32))


@pytest.mark.parametrize("name", ["", "fünf", "abcde"])
def test_name_that_does_not_fit_is_refused(name: str) -> None:
    with pytest.raises(ValueError, match="1 to 4 letters"):
        encode_names([name], 4)
