"""Pairs of texts and vocabularies, made up here and from the public sets."""

from pathlib import Path

import numpy as np
import pytest

from tests.support.data import data_set
from training.data.errors import DataError, MissingDataError
from training.data.text import (
    TextPairs,
    Vocabulary,
    read_questions,
    read_stsb,
    split_pairs,
    tokens_of,
)


def pairs(*rows: tuple[str, str, bool]) -> TextPairs:
    left, right, same = zip(*rows, strict=True)
    return TextPairs(left, right, np.array(same))


def test_numbers_for_same_are_refused() -> None:
    with pytest.raises(TypeError, match="same_from_labels"):
        TextPairs(("a",), ("b",), np.array([1]))


def test_taken_rows_keep_their_scores() -> None:
    whole = TextPairs(("a", "b"), ("c", "d"), np.array([True, False]), np.array([5.0, 1.0]))
    taken = whole.take(np.array([1]))
    assert (taken.left, taken.right, taken.same.tolist()) == (("b",), ("d",), [False])
    assert taken.score is not None
    assert taken.score.tolist() == [1.0]


@pytest.mark.parametrize(
    ("text", "unit", "tokens"),
    [
        ("A man's HAT, 3 times!", "words", ["a", "man", "s", "hat", "3", "times"]),
        ("21살의 사랑?", "characters", ["2", "1", "살", "의", "사", "랑"]),
        ("21살의 사랑?", "bigrams", ["<2", "21", "1살", "살의", "의>", "<사", "사랑", "랑>"]),
        ("\ufb01ne_ \uff21", "words", ["fine", "a"]),  # a ligature and a wide letter
        ("\u1109\u1161", "characters", ["사"]),  # decomposed letters make whole syllables
        ("?!", "words", []),
    ],
)
def test_text_is_cut_into_tokens(text: str, unit: str, tokens: list[str]) -> None:
    assert tokens_of(text, unit) == tokens  # type: ignore[arg-type]


def test_vocabulary_lists_the_most_frequent_first_and_ties_by_alphabet() -> None:
    known = Vocabulary.of(["b a", "c b", "b a d"], "words", 5)
    assert known.tokens == ("b", "a", "c")
    assert len(known) == 5


def test_text_becomes_numbers_padded_behind() -> None:
    known = Vocabulary("words", ("b", "a"))
    encoded = known.encode(["a b", "b x a b", "?"], 3)
    assert encoded.dtype == np.int32
    assert encoded.tolist() == [[3, 2, 0], [2, 1, 3], [1, 0, 0]]


def test_json_gives_the_same_vocabulary_back() -> None:
    known = Vocabulary.of(["이별 사랑"], "characters", 100)
    assert Vocabulary.from_json(known.as_json()) == known
    assert "이" in known.as_json()


@pytest.mark.parametrize(
    "text", ["", "[]", '{"unit": "words"}', '{"unit": "x", "tokens": []}', '{"unit": "words", "tokens": [1]}']
)
def test_json_that_is_no_vocabulary_is_refused(text: str) -> None:
    with pytest.raises(DataError, match="no vocabulary"):
        Vocabulary.from_json(text)


def test_texts_without_a_letter_make_no_vocabulary() -> None:
    with pytest.raises(DataError, match="no letter or digit"):
        Vocabulary.of(["?", "..."], "words", 10)


def test_split_puts_no_text_on_both_sides() -> None:
    rng = np.random.default_rng(0)
    texts = np.array([f"t{number}" for number in range(300)])
    left, right = texts[rng.integers(300, size=(2, 90))].tolist()
    whole = TextPairs(tuple(left), tuple(right), rng.integers(2, size=90) == 1)
    rest, part = split_pairs(whole, 0.3, seed=0)
    assert not {*rest.left, *rest.right} & {*part.left, *part.right}
    rows = [*zip(rest.left, rest.right, strict=True), *zip(part.left, part.right, strict=True)]
    assert sorted(rows) == sorted(zip(left, right, strict=True))
    assert 22 <= len(part) <= 32


def test_pairs_that_all_hang_together_cannot_be_split() -> None:
    with pytest.raises(DataError, match="cannot be split"):
        split_pairs(pairs(("a", "b", True), ("b", "c", False), ("c", "d", True)), 0.5, seed=0)


def test_missing_set_says_how_to_fetch_it(tmp_path: Path) -> None:
    with pytest.raises(MissingDataError, match="visavis data fetch questions"):
        read_questions(tmp_path, "train")
    with pytest.raises(MissingDataError, match="visavis data fetch stsb"):
        read_stsb(tmp_path, "dev")


def test_1_in_the_question_pairs_means_different() -> None:
    read = read_questions(data_set("text/question_pairs_ko"), "train")
    assert len(read) == 6888
    assert read.same.sum() == 4750
    rows = list(zip(read.left, read.right, read.same, strict=True))
    assert ("1000일 만난 여자친구와 이별", "10년 연예의끝", False) in rows
    assert ("건조하네", "되게 건조하네", True) in rows
    identical = [same for left, right, same in rows if left == right]
    assert len(identical) > 20
    assert np.mean(identical) > 0.99


def test_question_pairs_have_688_to_test() -> None:
    read = read_questions(data_set("text/question_pairs_ko"), "test")
    assert (len(read), read.same.sum()) == (688, 359)


def test_sentences_of_stsb_are_the_same_from_a_score_of_3() -> None:
    read = read_stsb(data_set("text/stsb"), "dev")
    assert (len(read), read.same.sum()) == (1500, 629)
    assert read.score is not None
    assert np.array_equal(read.same, read.score >= 3)
    assert read.left[0] == "A man with a hard hat is dancing."
