"""``visavis collections migrate`` and ``change``, and references on the command line."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from tests.support.cli import visavis, visavis_json
from tests.support.images import angle_png


@pytest.fixture(autouse=True)
def _store(tmp_path: Path, angle_models: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A folder of its own whose settings name the old model alone."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("VISAVIS_MODELS_DIR", str(angle_models))
    monkeypatch.setenv("VISAVIS_MODELS", "angles")
    monkeypatch.setenv("VISAVIS_PROVIDER", "cpu")


def photo(name: str, degrees: float) -> Path:
    path = Path(name)
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(angle_png(degrees))
    return path


def enrol(identity: str, degrees: float, *options: str) -> Any:
    return visavis("enroll", identity, photo("photo.png", degrees), *options)


def migrate(*options: object, exit_code: int = 0) -> Any:
    return visavis_json("collections", "migrate", "default", *options, exit_code=exit_code)


def test_change_of_model_from_crops_and_a_folder_to_its_end() -> None:
    enrol("eve", 60)
    visavis("collections", "change", "default", "--keep-images", "aligned")
    enrol("ada", 0)
    begun = migrate("--to", "other")
    assert (begun["state"], begun["pending_identities"]) == ("filling", ["eve"])
    assert begun["filled"]["from_crops"] == 1
    photo("photos/eve/one.png", 61)
    photo("photos/ada/one.png", 0)
    again = migrate("--to", "other", "--images", "photos")
    assert (again["pending"], again["filled"]["from_photos"]) == (0, 1)
    assert migrate("--switch")["model"] == "other"
    assert migrate("--rollback")["model"] == "angles"
    assert migrate("--switch")["state"] == migrate("--status")["state"] == "switched"
    finished = migrate("--finish")
    assert (finished["model"], finished["dropped"]) == ("other", [])
    assert migrate("--status")["state"] == "none"


def test_plain_output_says_who_decides_and_who_is_pending() -> None:
    enrol("ada", 0)
    text = visavis("collections", "migrate", "default", "--to", "other").stdout
    assert "filling: angles decides (angles -> other)" in text
    assert "pending     1, which no search by other finds\n            ada\n" in text
    visavis("collections", "migrate", "default", "--switch")
    refused = visavis("collections", "migrate", "default", "--finish")
    assert (refused.exit_code, "identities_pending" in refused.stderr) == (1, True)
    done = visavis("collections", "migrate", "default", "--finish", "--drop-pending")
    assert done.stdout == "dropped ada\nfinished: default has templates of other alone\n"


def test_folder_without_images_is_refused_before_the_change_begins() -> None:
    enrol("ada", 0)
    Path("empty").mkdir()
    refused = visavis("collections", "migrate", "default", "--to", "other", "--images", "empty")
    assert (refused.exit_code, "images: " in refused.stderr) == (1, True)
    assert migrate("--status")["state"] == "none"


@pytest.mark.parametrize(
    "options",
    [
        (),
        ("--to", "other", "--switch"),
        ("--switch", "--images", "."),
        ("--switch", "--drop-pending"),
        ("--status", "--abandon"),
    ],
    ids=" ".join,
)
def test_steps_that_do_not_go_together_are_wrong_usage(options: tuple[str, ...]) -> None:
    assert visavis("collections", "migrate", "default", *options).exit_code == 2


def test_references_are_added_listed_and_removed() -> None:
    enrol("ada", 0)
    refused = enrol("ada", 40, "--add")
    assert (refused.exit_code, "too_many_references" in refused.stderr) == (1, True)
    assert visavis("collections", "change", "default", "--max-references", "2").exit_code == 0
    assert enrol("ada", 40, "--add").stdout.startswith("added to ada in default")
    listed = visavis_json("identities", "references", "ada")["references"]
    assert [one["model"] for one in listed] == ["angles", "angles"]
    removed = visavis("identities", "delete-reference", "ada", listed[0]["id"])
    assert removed.exit_code == 0
    assert [one["id"] for one in visavis_json("identities", "references", "ada")["references"]] == [
        listed[1]["id"]
    ]
    assert enrol("ada", 0, "--add", "--replace").exit_code == 2


def test_change_of_a_policy_leaves_its_other_parts() -> None:
    visavis("collections", "create", "staff", "--max-references", "3", "--min-sharpness", "0.5")
    visavis("collections", "change", "staff", "--no-migrate-on-verify")
    policy = visavis_json("collections", "list")[1]["policy"]
    assert (policy["max_references"], policy["min_sharpness"], policy["migrate_on_verify"]) == (3, 0.5, False)
    assert visavis("collections", "change", "staff").exit_code == 2
