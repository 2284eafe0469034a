"""``visavis evaluate verification --cohorts`` with templates at known angles."""

from itertools import combinations
from pathlib import Path

import pytest

from tests.support.cli import visavis, visavis_json
from tests.support.images import angle_png

SUBJECTS = 66


@pytest.fixture
def people(tmp_path: Path) -> Path:
    """33 subjects of ``west`` at 0 to 32 degrees, 33 of ``east`` at 56 to 88; 4 of ``west`` look like two.

    About 30 degrees are the default threshold, so nearly all of one side match and nobody across.
    """
    for index in range(SUBJECTS):
        degrees = index if index < 33 else index + 23
        (tmp_path / f"s{index:02d}").mkdir()
        for number, shift in ((1, 0), (2, 50 if index < 4 else 1)):
            (tmp_path / f"s{index:02d}" / f"s{index:02d}_{number:04d}.png").write_bytes(
                angle_png(degrees + shift)
            )
    names = [f"s{index:02d}" for index in range(SUBJECTS)]
    lines = [f"{name} 1 2" for name in names] + [f"{a} 1 {b} 1" for a, b in combinations(names, 2)]
    (tmp_path / "pairs.txt").write_text("\n".join(lines))
    return tmp_path


def cohorts(people: Path, text: str) -> Path:
    (people / "cohorts.csv").write_text(text)
    return people / "cohorts.csv"


def two_sides() -> str:
    return "subject,cohort\n" + "".join(f"s{i:02d},{'west' if i < 33 else 'east'}\n" for i in range(SUBJECTS))


def arguments(people: Path, models: Path, *options: object) -> list[object]:
    return [
        *("evaluate", "verification", "--model", "angles", "--models-dir", models),
        *("--images", people, "--pairs", people / "pairs.txt", *options),
    ]


def test_rates_are_reported_by_cohort(people: Path, angle_models: Path) -> None:
    options = ("--cohorts", cohorts(people, two_sides()))
    got = visavis_json(*arguments(people, angle_models, *options))["cohorts"]
    assert (got["name"], got["max_fmr"], got["minimum_subjects"]) == ("fmr-1e-2", 0.01, 30)
    east, west = got["cohorts"]
    assert (east["cohort"], east["subjects"], west["cohort"], west["subjects"]) == ("east", 33, "west", 33)
    assert east["fnmr"]["rate"] == 0.0
    assert west["fnmr"]["rate"] == pytest.approx(4 / 33)
    assert west["fnmr"]["lower95"] < 4 / 33 < west["fnmr"]["upper95"]
    # Of 528 pairs within a side only those more than 30 degrees apart do not match: 3 of them.
    assert west["fmr_within"]["rate"] == pytest.approx(525 / 528, abs=0.01)
    assert (west["fmr_others"]["trials"], west["fmr_others"]["rate"]) == (
        33 * 33,
        pytest.approx(0.019, abs=0.02),
    )
    assert got["fnmr_ratio"] == {
        "supported": False,
        "reason": "no error was seen in east, so a ratio has no upper end",
    }
    assert got["fmr_ratio"]["ratio"] == pytest.approx(1.0, abs=0.01)
    assert got["suppressed"] == []


def test_small_cohorts_are_not_shown_and_the_reason_is(people: Path, angle_models: Path) -> None:
    text = "".join(f"s{i:02d},{'big' if i < 34 else 'small' if i < 40 else ''}\n" for i in range(SUBJECTS))
    options = ("--cohorts", cohorts(people, text))
    got = visavis_json(*arguments(people, angle_models, *options))["cohorts"]
    assert [cohort["cohort"] for cohort in got["cohorts"]] == ["big"]
    assert [hidden["cohort"] for hidden in got["suppressed"]] == ["small", "unknown"]
    assert got["suppressed_together"]["subjects"] == 32
    table = visavis(*arguments(people, angle_models, *options)).stdout
    assert "small: not shown on its own; 6 subjects with mated trials; at least 30 are needed" in table
    assert "suppressed, together  32" in table
    assert "largest to smallest FNMR: 1 cohorts have a rate that is shown; two are needed" in table


def test_report_without_cohorts_has_no_such_key(people: Path, angle_models: Path) -> None:
    assert "cohorts" not in visavis_json(*arguments(people, angle_models))


def test_subjects_of_the_file_without_a_trial_are_counted(people: Path, angle_models: Path) -> None:
    options = ("--cohorts", cohorts(people, two_sides() + "zoe,west\n"))
    result = visavis(*arguments(people, angle_models, *options))
    assert "cohorts.csv: 1 of its 67 subjects take part in no trial" in result.stderr


@pytest.mark.parametrize(
    ("text", "problem"),
    [
        ("s00,west\ns01\n", "cohorts: cohorts.csv, line 2: 1 field; a line is a subject and its cohort"),
        ("Ada,west\n", "cohorts: cohorts.csv: none of its 1 subjects is among the 66 that are compared"),
    ],
)
def test_wrong_file_is_refused_before_the_work(
    people: Path, angle_models: Path, text: str, problem: str
) -> None:
    result = visavis(*arguments(people, angle_models, "--cohorts", cohorts(people, text)))
    assert result.exit_code == 1
    assert problem in result.stderr
    assert "embedding" not in result.stderr
