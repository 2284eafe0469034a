"""Lists of trials: what is read, what is refused, and which files are found."""

from pathlib import Path

import pytest

from app.errors import InvalidRequestError
from training.evaluation.pairs import Pair, Photo, locate_images, parse_pairs, read_pairs

VIEW2 = """2\t1
Ada\t1\t2
Ada\t1\tBob\t3
Bob\t1\t2
Bob\t2\tCy\t1
"""


def problem_of(text: str) -> str:
    with pytest.raises(InvalidRequestError) as caught:
        parse_pairs(text, "pairs.txt")
    return str(caught.value)


def test_three_fields_are_a_mated_and_four_a_nonmated_trial() -> None:
    listed = parse_pairs("Ada 1 2\nAda 1 Bob 3\n", "pairs.txt")
    assert listed.pairs == (
        Pair(Photo("Ada", 1), Photo("Ada", 2), line=1),
        Pair(Photo("Ada", 1), Photo("Bob", 3), line=2),
    )
    assert [pair.mated for pair in listed.pairs] == [True, False]


def test_header_of_two_numbers_lays_out_the_folds() -> None:
    listed = parse_pairs(VIEW2, "pairs.txt")
    assert [pair.mated for pair in listed.pairs] == [True, False, True, False]
    assert listed.folds is not None
    assert listed.folds.tolist() == [0, 0, 1, 1]


def test_header_of_one_number_is_one_fold() -> None:
    listed = parse_pairs("2\nAda 1 2\nBob 1 2\nAda 1 Bob 1\nAda 2 Bob 2\n", "pairsDevTest.txt")
    assert [pair.mated for pair in listed.pairs] == [True, True, False, False]
    assert listed.folds is None


def test_list_without_header_may_have_any_order_and_number() -> None:
    listed = parse_pairs("Ada 1 Bob 1\nAda 1 2\nAda 2 Bob 1\n", "pairs.txt")
    assert [pair.mated for pair in listed.pairs] == [False, True, False]
    assert listed.folds is None


def test_subjects_may_be_called_by_numbers() -> None:
    listed = parse_pairs("1 1\n07201 1 2\n07201 1 07202 2\n", "pairs.txt")
    assert listed.pairs[1].second == Photo("07202", 2)


def test_names_may_hold_blanks_where_tabs_part_the_fields() -> None:
    listed = parse_pairs("Ada Lovelace\t1\t2\nAda Lovelace\t1\tBob\t1\n", "pairs.txt")
    assert [pair.first.subject for pair in listed.pairs] == ["Ada Lovelace", "Ada Lovelace"]


def test_empty_lines_byte_order_mark_and_windows_ends_change_nothing(tmp_path: Path) -> None:
    file = tmp_path / "pairs.txt"
    file.write_bytes(b"\xef\xbb\xbf1\r\n\r\nAda 1 2\r\nAda 1 Bob 1\r\n\r\n")
    assert [pair.line for pair in read_pairs(file).pairs] == [3, 4]


def test_photos_are_the_distinct_images_sorted() -> None:
    photos = parse_pairs(VIEW2, "pairs.txt").photos()
    assert photos == [("Ada", 1), ("Ada", 2), ("Bob", 1), ("Bob", 2), ("Bob", 3), ("Cy", 1)]


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("", "there are no pairs; each line is 'NAME I J' or 'NAME_A I NAME_B J'"),
        ("10\t300\n", "there are no pairs"),
        ("Ada 1 2\nAda one 2\n", "pairs.txt, line 2: 'one' is no number of an image"),
        ("Ada 1 2\n\nAda 1\n", "pairs.txt, line 3: 'Ada 1' is no trial"),
        ("Ada 1 2 3 4\n", "line 1: 'Ada 1 2 3 4' is no trial; it must read 'NAME I J'"),
        ("Ada 1 -2\n", "line 1: '-2' is no number"),
        ("Ada 1 Ada 2\n", "line 1: 'Ada' stands on both sides; write a mated trial as 'NAME I J'"),
        ("Ada 1 1\n", "line 1: image Ada_0001 would be compared with itself"),
        ("../Ada 1 2\n", "line 1: '../Ada' is no name of a folder"),
        ("2 300\nAda 1 2\n", "the header stands for 2 x 2 x 300 = 1200 pairs and 1 follow"),
        ("1\nAda 1 Bob 1\nAda 1 2\n", "line 2: a mated trial is due here by the header (1 mated, then 1"),
    ],
)
def test_what_is_no_list_of_trials_is_refused_with_line_and_remedy(text: str, words: str) -> None:
    assert words in problem_of(text)


def test_file_that_is_no_text_is_refused(tmp_path: Path) -> None:
    file = tmp_path / "pairs.txt"
    file.write_bytes(b"\xff\xfe\x00")
    with pytest.raises(InvalidRequestError, match=r"pairs\.txt: the file cannot be read as UTF-8 text"):
        read_pairs(file)


def touch(path: Path) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.touch()
    return path


def test_images_are_found_by_padded_number_and_any_image_suffix(tmp_path: Path) -> None:
    first = touch(tmp_path / "Ada" / "Ada_0001.jpg")
    second = touch(tmp_path / "Ada" / "Ada_0002.PNG")
    third = touch(tmp_path / "Ada" / "Ada_12345.webp")
    touch(tmp_path / "Ada" / "Ada_0001.txt")
    listed = parse_pairs("Ada 1 2\nAda 1 12345\n", "pairs.txt")
    assert locate_images(listed, tmp_path) == {
        Photo("Ada", 1): first,
        Photo("Ada", 2): second,
        Photo("Ada", 12345): third,
    }


def test_missing_image_is_an_error_that_names_line_file_and_how_many_more(tmp_path: Path) -> None:
    touch(tmp_path / "Ada" / "Ada_0001.jpg")
    listed = parse_pairs("1\nAda 1 2\nAda 1 Bob 1\n", "pairs.txt")
    with pytest.raises(InvalidRequestError) as caught:
        locate_images(listed, tmp_path)
    text = str(caught.value)
    assert f"pairs.txt, line 2: {tmp_path / 'Ada'} holds no image Ada_0002 (.bmp, " in text
    assert text.endswith("check --images, or take the line out (and 1 more images)")


def test_image_under_two_suffixes_is_an_error(tmp_path: Path) -> None:
    for name in ("Ada_0001.jpg", "Ada_0001.png", "Ada_0002.jpg"):
        touch(tmp_path / "Ada" / name)
    with pytest.raises(InvalidRequestError, match=r"holds Ada_0001\.jpg and Ada_0001\.png; keep one"):
        locate_images(parse_pairs("Ada 1 2\n", "pairs.txt"), tmp_path)
