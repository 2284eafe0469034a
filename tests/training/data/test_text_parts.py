"""The parts of a run on texts: who is trained on whom, and what two parts share."""

from pathlib import Path

import numpy as np
import pytest

from tests.support.data import data_set
from training.config import RecipeError, TextPairsData
from training.data.errors import DataError
from training.data.text import TextPairs
from training.data.text_parts import load_text_parts, mated_groups


def sides(pairs: TextPairs) -> set[frozenset[str]]:
    return {frozenset(each) for each in zip(pairs.left, pairs.right, strict=True)}


def written(folder: Path, header: str, count: int = 200) -> Path:
    rows = [f"left {number},right {number},{number % 2}" for number in range(count)]
    path = folder / "pairs.csv"
    path.write_text("\n".join([header, *rows]) + "\n", encoding="utf-8")
    return path


@pytest.mark.parametrize(
    ("source", "wanted", "left_out"),
    [
        ("questions", (6190, 688, 688), 10),
        ("stsb", (5725, 1500, 1379), 24),
    ],
)
def test_no_pair_of_a_public_set_is_in_two_parts(
    source: str, wanted: tuple[int, int, int], left_out: int
) -> None:
    folder = data_set("text/question_pairs_ko" if source == "questions" else "text/stsb")
    parts = load_text_parts(TextPairsData(source=source), folder, 1)
    assert not sides(parts.train) & sides(parts.test)
    assert not sides(parts.train) & sides(parts.validation)
    assert parts.left_out == left_out
    assert (len(parts.train), len(parts.validation), len(parts.test)) == pytest.approx(wanted, rel=0.01)


def test_test_pairs_with_a_text_trained_on_are_told_apart() -> None:
    parts = load_text_parts(TextPairsData(source="questions"), data_set("text/question_pairs_ko"), 1)
    unseen = parts.test.take(np.flatnonzero(parts.unseen()))
    known = {*parts.train.left, *parts.train.right}
    assert not known & {*unseen.left, *unseen.right}
    rest = parts.test.take(np.flatnonzero(~parts.unseen()))
    assert all(left in known or right in known for left, right in zip(rest.left, rest.right, strict=True))
    assert 0 < len(rest) < len(unseen)


def test_a_file_of_ones_own_is_split_in_three_without_a_shared_text(tmp_path: Path) -> None:
    written(tmp_path, "question1,question2,same")
    spec = TextPairsData(source="pairs", path="pairs.csv", validation=0.2, test=0.3)
    parts = load_text_parts(spec, tmp_path, 1)
    texts = [{*part.left, *part.right} for part in (parts.train, parts.validation, parts.test)]
    assert not texts[0] & texts[1]
    assert not texts[0] & texts[2]
    assert not texts[1] & texts[2]
    assert [len(each) // 2 for each in texts] == [100, 40, 60]
    assert parts.train.same.tolist() == [int(text.split()[1]) % 2 == 1 for text in parts.train.left]


def test_labels_without_a_meaning_are_refused_and_the_convention_gives_it(tmp_path: Path) -> None:
    path = written(tmp_path, "question1,question2,is_duplicate")
    with pytest.raises(DataError, match="1"):
        load_text_parts(TextPairsData(source="pairs", path=str(path)), tmp_path, 1)
    spec = TextPairsData(source="pairs", path=str(path), convention="1 = different")
    parts = load_text_parts(spec, tmp_path, 1)
    assert parts.train.same.tolist() == [int(text.split()[1]) % 2 == 0 for text in parts.train.left]


def test_pairs_without_a_path_are_refused(tmp_path: Path) -> None:
    with pytest.raises(RecipeError, match=r"data\.path"):
        load_text_parts(TextPairsData(source="pairs"), tmp_path, 1)


def test_smoke_pairs_of_one_part_are_in_no_other(tmp_path: Path) -> None:
    parts = load_text_parts(TextPairsData(source="smoke-paraphrases"), tmp_path, 1)
    assert not sides(parts.train) & (sides(parts.validation) | sides(parts.test))
    assert parts.left_out > 0


def test_texts_linked_through_others_are_one_group() -> None:
    left, right = ("a", "c", "x", "p"), ("b", "b", "y", "a")
    pairs = TextPairs(left, right, np.array([True, True, True, False]))
    texts, groups = mated_groups(pairs)
    group = dict(zip(texts, groups.tolist(), strict=True))
    assert set(group) == {"a", "b", "c", "x", "y"}
    assert group["a"] == group["b"] == group["c"] != group["x"] == group["y"]
    assert sorted(set(groups.tolist())) == [0, 1]
