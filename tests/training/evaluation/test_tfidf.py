"""The TF-IDF baseline against its formula written out."""

import math

import numpy as np
import pytest

from training.data.text import TextPairs
from training.evaluation.tfidf import inverse_document_frequency, tfidf_distances

KNOWN = ["a b", "a c", "a c c"]


def test_equal_texts_are_at_distance_0_and_texts_without_a_shared_token_at_1() -> None:
    pairs = TextPairs(("a b", "b"), ("b a", "c"), np.array([True, False]))
    assert tfidf_distances(KNOWN, [pairs], "words")[0] == pytest.approx([0.0, 1.0], abs=1e-12)


def test_cosine_is_that_of_the_formula() -> None:
    weight = {"a": 1.0, "b": math.log(4 / 2) + 1.0, "c": math.log(4 / 3) + 1.0}
    left = np.array([weight["a"], weight["b"], 0.0])
    right = np.array([weight["a"], 0.0, (1.0 + math.log(2)) * weight["c"]])
    wanted = 1.0 - left @ right / (np.linalg.norm(left) * np.linalg.norm(right))
    pairs = TextPairs(("a b",), ("a c c",), np.array([True]))
    assert tfidf_distances(KNOWN, [pairs], "words")[0] == pytest.approx([wanted])


def test_every_list_of_pairs_is_compared() -> None:
    lists = [TextPairs(("a",) * count, ("b",) * count, np.ones(count, np.bool_)) for count in (1, 2)]
    assert [apart.size for apart in tfidf_distances(KNOWN, lists, "words")] == [1, 2]


def test_token_weighs_as_often_as_texts_have_it_not_as_often_as_it_occurs() -> None:
    tokens = np.array([[1, 2, 0], [1, 3, 0], [1, 3, 3]], np.int32)
    wanted = [0.0, 1.0, math.log(4 / 2) + 1.0, math.log(4 / 3) + 1.0, math.log(4) + 1.0]
    assert inverse_document_frequency(tokens, 5) == pytest.approx(wanted)
