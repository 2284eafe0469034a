"""visavis calibrate: a collection on its own people; a bundle is handed over to the offline half."""

from __future__ import annotations

import sys
import types
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest

from app.context import open_context
from app.settings import load_settings
from app.storage import collections
from app.storage.database import Database
from tests.support.cli import visavis, visavis_json
from tests.support.crowd import apart, enrol_at, evenly
from tests.support.images import angle_png

PEOPLE = evenly(40)


@pytest.fixture
def people(folder: Path, crowd_models: Path, monkeypatch: pytest.MonkeyPatch) -> dict[str, Any]:
    """A store whose collection ``people`` has 40 identities; every other one is of the team ``even``."""
    monkeypatch.setenv("VISAVIS_MODELS_DIR", str(crowd_models))
    monkeypatch.setenv("VISAVIS_MODELS", "crowd")
    return enrolled({**PEOPLE})


def enrolled(people: dict[str, float]) -> dict[str, Any]:
    metadata = {name: {"team": "even" if number % 2 == 0 else "odd"} for number, name in enumerate(people)}
    with open_context(load_settings()) as context:
        enrol_at(context.database, context.models.default, people, metadata=metadata)
    return metadata


def photos(**degrees: list[float]) -> Path:
    for name, several in degrees.items():
        home = Path("probes") / name
        home.mkdir(parents=True)
        for number, angle in enumerate(several):
            (home / f"{number}.png").write_bytes(angle_png(angle))
    return Path("probes")


def in_force() -> int | None:
    with closing(Database("sqlite:///visavis.db", timeout_s=5, pool_size=1)) as database:
        return database.read_now(collections.get, "people").evidence_id


# a collection


def test_collection_is_measured_and_decides_from_then_on(people: Any) -> None:
    ask = ("verify", "at10.png", "--identity", "p0", "--collection", "people", "--max-fmr", "0.06")
    before = visavis_json(*ask, exit_code=3)
    assert (before["match"], before["evidence"]["source"]) == (False, "bundle")
    answer = visavis_json("calibrate", "--collection", "people")
    assert (answer["evidence"]["source"], answer["evidence"]["nonmated"]) == ("deployment", 780)
    assert "cohorts" not in answer
    after = visavis_json(*ask)
    assert (after["match"], after["evidence"]["source"]) == (True, "deployment")
    # Two neighbours each are 9 degrees apart, 5 % of the pairs; the next are 18.
    assert after["threshold"] == pytest.approx(apart(18), abs=1e-6)
    assert "FNMR not measured" in visavis(*ask).stdout


def test_probes_give_the_false_non_match_rate_and_failures_are_named(people: Any) -> None:
    probes = photos(p0=[5, 1], p1=[9 + 30])
    (probes / "p1" / "broken.png").write_bytes(b"no image")
    answer = visavis_json("calibrate", "--collection", "people", "--probes", probes)
    assert (answer["evidence"]["mated"], answer["probes"]["used"]) == (3, 3)
    assert [
        (f["identity"], Path(f["image"]).name, f["code"]) for f in answer["probes"]["failures_to_acquire"]
    ] == [("p1", "broken.png", "image_unreadable")]
    assert answer["operating_points"][0]["in_force"]["fnmr"] == pytest.approx(1 / 3)


def test_text_shows_both_sets_of_trials_at_each_threshold(people: Any) -> None:
    probes = photos(p0=[5], p1=[9 + 30])
    (probes / "p1" / "broken.png").write_bytes(b"no image")
    text = visavis("calibrate", "--collection", "people", "--probes", probes).stdout
    assert "collection  people, revision 1, model crowd" in text
    assert "2 mated, 780 non-mated: references of all 40 identities" in text
    assert "broken.png: image_unreadable" in text
    (row,) = [line for line in text.splitlines() if line.startswith("1e-02")]
    assert row.split()[:3] == ["1e-02", f"{apart(9):.4f}", "0.00e+00"]
    assert row.split()[4] == "0.5000"
    assert "smallest FMR that these trials can show: 0.0038" in text


def test_folder_of_somebody_not_enrolled_is_refused(people: Any) -> None:
    result = visavis("calibrate", "--collection", "people", "--probes", photos(eve=[3]))
    assert result.exit_code == 1
    assert "there is no identity 'eve'" in result.stderr
    assert in_force() is None


def test_duplicates_are_refused_unless_accepted(people: Any) -> None:
    enrolled({f"again {n}": PEOPLE[f"p{n}"] for n in range(6)})
    result = visavis("calibrate", "--collection", "people")
    assert result.exit_code == 1
    assert "visavis: duplicates_suspected: 6 pairs of identities in collection 'people'" in result.stderr
    assert "visavis audit --collection people" in result.stderr
    assert in_force() is None
    answer = visavis_json("calibrate", "--collection", "people", "--accept-duplicates")
    assert "accepted although" in answer["evidence"]["description"]


def test_small_collection_is_refused_with_how_many_it_takes(folder: Path) -> None:
    assert visavis("enroll", "ada", "at0.png").exit_code == 0
    result = visavis("calibrate", "--collection", "default")
    assert result.exit_code == 1
    assert "too_few_identities: collection 'default' has 1 identities" in result.stderr
    assert "takes 25" in result.stderr


def test_removed_evidence_gives_way_to_the_models(people: Any) -> None:
    visavis_json("calibrate", "--collection", "people")
    assert in_force() is not None
    result = visavis("calibrate", "--collection", "people", "--remove")
    assert (result.exit_code, "the evidence of crowd is in force" in result.stdout) == (0, True)
    assert in_force() is None
    again = visavis("calibrate", "--collection", "people", "--remove")
    assert again.exit_code == 0


def test_cohorts_by_a_key_of_the_metadata(
    folder: Path, crowd_models: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("VISAVIS_MODELS_DIR", str(crowd_models))
    monkeypatch.setenv("VISAVIS_MODELS", "crowd")
    # A quarter of the circle, where photos reach: 70 people, 1.25 degrees apart, each with one photo.
    near = {f"n{number}": 1.25 * number for number in range(70)}
    enrolled(near)
    # The photos of the odd ones are 3 degrees off, those of the even ones not at all.
    probes = photos(
        **{name: [abs(angle - 3 * (number % 2))] for number, (name, angle) in enumerate(near.items())}
    )
    options = ("calibrate", "--collection", "people", "--probes", probes, "--cohorts", "team")
    answer = visavis_json(*options)
    (report,) = [report for report in answer["cohorts"] if report["asked_fmr"] == 0.01]
    rates = {cohort["cohort"]: cohort["fnmr"]["rate"] for cohort in report["cohorts"]}
    assert set(rates) == {"even", "odd"}
    assert (rates["even"], rates["odd"] > 0.9) == (0.0, True)
    assert report["threshold"] < apart(3)
    text = visavis(*options).stdout
    assert "cohorts at a threshold of" in text
    assert "largest to smallest FNMR" in text


def test_cohorts_without_photos_are_suppressed_with_the_reason(people: Any) -> None:
    answer = visavis_json("calibrate", "--collection", "people", "--cohorts", "team")
    assert answer["cohorts"][0]["cohorts"] == []
    assert {hidden["cohort"] for hidden in answer["cohorts"][0]["suppressed"]} == {"even", "odd"}


def test_cohorts_of_a_key_that_nobody_has_are_refused(people: Any) -> None:
    result = visavis("calibrate", "--collection", "people", "--cohorts", "town")
    assert result.exit_code == 1
    assert "cohorts: no identity has 'town' in its metadata" in result.stderr
    assert in_force() is None


# a bundle


def test_bundle_is_handed_over_with_everything_that_was_given(
    folder: Path, angle_models: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    calls: list[dict[str, Any]] = []
    offline = types.ModuleType("training.calibration")
    offline.main_for_cli = lambda **given: calls.append(given)  # type: ignore[attr-defined]
    monkeypatch.setitem(sys.modules, "training.calibration", offline)
    for name in ("pairs.txt", "cohorts.csv"):
        Path(name).touch()
    assert visavis("calibrate", "--data", ".").exit_code == 0
    files = ("--pairs", "pairs.txt", "--cohorts", "cohorts.csv", "--out", "new", "--work", "w")
    assert (
        visavis("calibrate", "--model", "other", "--data", ".", *files, "--seed", 3, "--json").exit_code == 0
    )
    plain = {"pairs": None, "out": None, "seed": 0, "work": None, "cohorts": None, "as_json": False}
    assert calls == [
        {"model_folder": angle_models / "angles", "data": Path(), **plain},
        {
            "model_folder": angle_models / "other",
            "data": Path(),
            "pairs": Path("pairs.txt"),
            "out": Path("new"),
            "seed": 3,
            "work": Path("w"),
            "cohorts": Path("cohorts.csv"),
            "as_json": True,
        },
    ]


@pytest.mark.parametrize(
    ("options", "why"),
    [
        ((), "give --collection NAME, or --data FOLDER"),
        (("--model", "angles"), "give --collection NAME, or --data FOLDER"),
        (("--collection", "people", "--data", "."), "give --collection NAME, or --data FOLDER"),
        (("--collection", "people", "--model", "angles"), "--model goes with --data"),
        (("--collection", "people", "--seed", "1"), "--seed goes with --data"),
        (("--collection", "people", "--remove", "--probes", "."), "--probes goes with a measurement"),
        (("--data", ".", "--probes", "."), "--probes goes with --collection"),
        (("--data", ".", "--accept-duplicates"), "--accept-duplicates goes with --collection"),
        (("--data", ".", "--face", "only"), "--face goes with --collection"),
        (("--data", ".", "--database-url", "sqlite:///a.db"), "--database-url goes with --collection"),
    ],
)
def test_options_of_two_uses_together_are_wrong_usage(folder: Path, options: Any, why: str) -> None:
    result = visavis("calibrate", *options)
    assert result.exit_code == 2
    assert why in result.stderr


def test_cohorts_of_a_bundle_are_a_file(folder: Path) -> None:
    result = visavis("calibrate", "--data", ".", "--cohorts", "team")
    assert (result.exit_code, "cohorts: there is no file team" in result.stderr) == (1, True)
