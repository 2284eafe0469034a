"""The file that says which cohort a subject is of: its forms, and what is refused with its line."""

from pathlib import Path

import pytest

from app.cli.cohort_file import check_known, parse_cohorts, read_cohorts
from app.errors import InvalidRequestError


def problem(text: str) -> str:
    with pytest.raises(InvalidRequestError) as refused:
        parse_cohorts(text, "groups.csv")
    assert refused.value.problems[0]["field"] == "cohorts"
    return refused.value.problems[0]["problem"]


@pytest.mark.parametrize(
    "text",
    [
        "subject,cohort\nada,north\nbob,south\n",
        "ada,north\nbob,south",
        "Subject , Cohort\r\nada, north\r\n\r\nbob ,south\r\n",
        "subject\tcohort\nada\tnorth\nbob\tsouth\n",
        '"ada","north"\n"bob",south\n',
    ],
)
def test_commas_or_tabs_with_or_without_header(text: str) -> None:
    assert parse_cohorts(text, "groups.csv") == {"ada": "north", "bob": "south"}


def test_names_may_hold_commas_between_tabs_and_in_quotes() -> None:
    assert (
        parse_cohorts("Lee, Ann\tnorth", "f")
        == parse_cohorts('"Lee, Ann",north', "f")
        == {"Lee, Ann": "north"}
    )


def test_subject_with_an_empty_cohort_is_of_none() -> None:
    assert parse_cohorts("ada,north\nbob,\n", "f") == {"ada": "north"}


def test_byte_order_mark_is_no_part_of_the_first_name(tmp_path: Path) -> None:
    (tmp_path / "groups.csv").write_bytes("ada,north\n김민수,south".encode("utf-8-sig"))
    assert read_cohorts(tmp_path / "groups.csv") == {"ada": "north", "김민수": "south"}


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("ada,north\nbob\n", "groups.csv, line 2: 1 field; a line is a subject and its cohort, with a comma"),
        (
            "ada\tnorth\n\nbob,south\n",
            "groups.csv, line 3: 1 field; a line is a subject and its cohort, with a tab",
        ),
        ("subject,cohort\nada,north,cold\n", "groups.csv, line 2: 3 fields"),
        (
            "ada,north\nbob,south\nada,south\n",
            "line 3: subject 'ada' already has a cohort in line 1; keep one",
        ),
        ("ada,north\n,south\n", "groups.csv, line 2: the subject is empty"),
        (
            "ada,no\x07rth\n",
            "groups.csv, line 1: the cohort 'no\\x07rth' holds a character that cannot be shown",
        ),
        ('ada,"north\n', "groups.csv, line 1: no row of a CSV file"),
        ("subject,cohort\n", "groups.csv: no subject has a cohort; each line is 'subject,cohort'"),
        ("", "groups.csv: no subject has a cohort"),
    ],
)
def test_what_is_wrong_is_named_with_its_line(text: str, expected: str) -> None:
    assert expected in problem(text)


def test_file_that_is_no_text_is_refused(tmp_path: Path) -> None:
    (tmp_path / "groups.csv").write_bytes(b"\xff\xfe\x00")
    with pytest.raises(InvalidRequestError, match=r"groups\.csv: the file cannot be read as UTF-8 text"):
        read_cohorts(tmp_path / "groups.csv")


def test_file_of_other_subjects_is_refused_with_one_of_each() -> None:
    check_known({"ada": "north", "zoe": "north"}, ["bob", "zoe"], "groups.csv")
    with pytest.raises(
        InvalidRequestError, match=r"none of its 1 subjects is among the 2 .*'ada' in the file, 'bob'"
    ):
        check_known({"ada": "north"}, ["bob", "zoe"], "groups.csv")
