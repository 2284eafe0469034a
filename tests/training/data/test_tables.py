"""Tables of pairs: columns, conventions, encodings, and bad lines named."""

from pathlib import Path

import pytest

from training.data.errors import DataError, MissingDataError
from training.data.samplers import LabelConvention
from training.data.tables import read_pair_table

SAME = LabelConvention.ONE_IS_SAME
DIFFERENT = LabelConvention.ONE_IS_DIFFERENT


def write(folder: Path, text: str | bytes, name: str = "pairs.csv") -> Path:
    path = folder / name
    path.write_bytes(text if isinstance(text, bytes) else text.encode())
    return path


def test_columns_are_found_by_their_usual_names(tmp_path: Path) -> None:
    table = read_pair_table(write(tmp_path, "id,Question1,Question2,same\n1,a,b,1\n2,c,d,0\n"))
    assert table.left == ("a", "c")
    assert table.right == ("b", "d")
    assert table.same.tolist() == [True, False]
    assert table.score is None
    assert table.lines == (2, 3)


def test_columns_can_be_named(tmp_path: Path) -> None:
    path = write(tmp_path, "x,y,z,same\nno,a,b,1\n")
    table = read_pair_table(path, left="y", right="z")
    assert (table.left, table.right) == (("a",), ("b",))


@pytest.mark.parametrize(("convention", "same"), [(SAME, [True, False]), (DIFFERENT, [False, True])])
def test_convention_decides_what_1_means(
    tmp_path: Path, convention: LabelConvention, same: list[bool]
) -> None:
    path = write(tmp_path, "a,b,label\nx,y,1\nx,z,0\n")
    assert read_pair_table(path, convention=convention).same.tolist() == same


def test_column_different_is_its_own_convention(tmp_path: Path) -> None:
    path = write(tmp_path, "a,b,different\nx,y,1\nx,z,0\n")
    assert read_pair_table(path).same.tolist() == [False, True]


@pytest.mark.parametrize("column", ["is_duplicate", "label"])
def test_column_that_does_not_say_needs_a_convention(tmp_path: Path, column: str) -> None:
    with pytest.raises(DataError, match=f"whether 1 in column '{column}' means same or different"):
        read_pair_table(write(tmp_path, f"a,b,{column}\nx,y,1\n"))


def test_convention_against_the_columns_name_is_refused(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="column 'same' cannot mean '1 = different'"):
        read_pair_table(write(tmp_path, "a,b,same\nx,y,1\n"), convention=DIFFERENT)


def test_score_at_the_limit_is_the_same(tmp_path: Path) -> None:
    path = write(tmp_path, "x,y,3.0\nx,z,2.9\n")
    table = read_pair_table(path, header=("a", "b", "score"), same_from=3.0)
    assert table.same.tolist() == [True, False]
    assert table.score is not None
    assert table.score.tolist() == [3.0, 2.9]


def test_scores_without_a_limit_are_refused(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="from which score on"):
        read_pair_table(write(tmp_path, "a,b,score\nx,y,3\n"))


@pytest.mark.parametrize("mark", ["", "\ufeff"])
@pytest.mark.parametrize("end", ["\n", "\r\n"])
def test_byte_order_mark_and_line_ends_do_not_matter(tmp_path: Path, mark: str, end: str) -> None:
    path = write(tmp_path, end.join([f"{mark}a,b,same", "질문,żółw,1", ""]))
    assert read_pair_table(path).left == ("질문",)


def test_quoted_cells_may_hold_commas_and_lines(tmp_path: Path) -> None:
    table = read_pair_table(write(tmp_path, 'a,b,same\n"x, y","two\nlines",1\nu,v,0\n'))
    assert table.left[0] == "x, y"
    assert table.right[0] == "two\nlines"
    assert table.lines == (3, 4)


def test_tsv_takes_quotes_as_they_are(tmp_path: Path) -> None:
    path = write(tmp_path, 'Quality\t#1 String\t#2 String\n1\tthe "witness"\t"a\n', "pairs.tsv")
    table = read_pair_table(path, convention=SAME)
    assert table.left == ('the "witness"',)
    assert table.right == ('"a',)


def test_empty_lines_and_an_empty_last_column_are_passed_over(tmp_path: Path) -> None:
    table = read_pair_table(write(tmp_path, "a,b,same,\n\nx,y,1,\n,,,\n"))
    assert table.lines == (3,)


@pytest.mark.parametrize(
    ("text", "problem"),
    [
        ("a,b,same\nx,y,1\nx,,1\n", "line 3: one side is empty"),
        ("a,b,same\nx,y,2\n", "line 2: the label is '2', neither 0 nor 1"),
        ("a,b,same\nx,y,yes\n", "line 2: the label is 'yes', which is no number"),
        ("a,b,same\nx,y\n", "line 2: 2 cells and the table has 3 columns"),
        ("a,b,same\nx,y,1,z\n", "line 2: 4 cells and the table has 3 columns"),
        ('a,b,same\nx,"y"z,1\n', "line 2: "),
        ("", "is empty"),
        ("a,b,same\n", "has no rows"),
        ("a,b\nx,y\n", "name the label column; the file has 'a', 'b'"),
        ("a,left,b,same\n1,x,y,1\n", "'left' and 'a' could each be the left column"),
        (b"a,b,same\nx,\xff,1\n", "line 2 is not UTF-8 .byte 0xff"),
        ("a,b,same\nx,y,1\n".encode("utf-16"), "line 1 is not UTF-8"),
    ],
)
def test_bad_table_is_refused_by_line_and_reason(tmp_path: Path, text: str | bytes, problem: str) -> None:
    with pytest.raises(DataError, match=problem):
        read_pair_table(write(tmp_path, text))


def test_score_that_is_not_finite_is_refused(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="line 2: the score is 'nan'"):
        read_pair_table(write(tmp_path, "a,b,score\nx,y,nan\n"), same_from=3)


def test_many_bad_lines_are_counted(tmp_path: Path) -> None:
    text = "a,b,same\n" + "x,,1\n" * 8
    with pytest.raises(DataError, match="line 6: one side is empty; and 3 more"):
        read_pair_table(write(tmp_path, text))


def test_unknown_column_is_refused_with_those_there_are(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="no column 'c'; the file has 'a', 'b', 'same'"):
        read_pair_table(write(tmp_path, "a,b,same\nx,y,1\n"), left="c")


def test_missing_file_is_named(tmp_path: Path) -> None:
    with pytest.raises(MissingDataError, match=r"absent\.csv"):
        read_pair_table(tmp_path / "absent.csv")
