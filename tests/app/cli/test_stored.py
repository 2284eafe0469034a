"""identities, collections, models, keys, db: what is stored and served."""

import json
import re
import shutil
import sqlite3
import stat
from pathlib import Path

import pytest

from tests.support.cli import visavis, visavis_json

KEY = r"vv_[0-9a-f]{12}_[A-Za-z0-9_-]{43}"


# the store


@pytest.mark.parametrize(
    "command",
    [
        ("identities", "list"),
        ("identities", "show", "ada"),
        ("identities", "rename", "ada", "bob"),
        ("identities", "delete", "ada"),
        ("collections", "list"),
        ("collections", "show", "default"),
        ("collections", "delete", "staff", "--yes"),
        ("identify", "at0.png"),
        ("verify", "at0.png", "--identity", "ada"),
    ],
    ids=" ".join,
)
def test_command_that_has_nothing_to_add_refuses_a_missing_store_and_makes_none(
    folder: Path, command: tuple[str, ...]
) -> None:
    result = visavis(*command)
    assert result.exit_code == 1
    assert result.stderr.startswith(f"visavis: there is no store at {folder / 'visavis.db'}; ")
    assert not (folder / "visavis.db").exists()


@pytest.mark.parametrize(
    "command",
    [
        ("enroll", "ada", "at0.png"),
        ("collections", "create", "staff"),
        ("keys", "create", "door"),
        ("db", "upgrade"),
    ],
    ids=" ".join,
)
def test_new_store_is_readable_to_its_owner_only(folder: Path, command: tuple[str, ...]) -> None:
    assert visavis(*command).exit_code == 0
    assert stat.S_IMODE((folder / "visavis.db").stat().st_mode) == 0o600


def test_store_that_is_there_keeps_its_mode(folder: Path) -> None:
    visavis("db", "upgrade")
    (folder / "visavis.db").chmod(0o640)
    visavis("enroll", "ada", "at0.png")
    assert stat.S_IMODE((folder / "visavis.db").stat().st_mode) == 0o640


# identities


def test_identities_are_listed_in_order_of_enrolment() -> None:
    visavis("enroll", "zoe", "at0.png", "--metadata", '{"team": 1}')
    visavis("enroll", "ada", "at90.png")
    lines = visavis("identities", "list").stdout.splitlines()
    assert [line.split("  ")[0] for line in lines] == ["zoe", "ada"]
    assert lines[0].endswith("{'team': 1}")
    listed = visavis_json("identities", "list")
    assert [entry["identity"] for entry in listed] == ["zoe", "ada"]
    assert set(listed[0]) == {
        *("identity", "collection", "metadata", "references", "revision", "created_at", "updated_at")
    }


def test_identities_list_ends_at_its_limit() -> None:
    visavis("enroll", "ada", "at0.png")
    visavis("enroll", "bob", "at90.png")
    assert [e["identity"] for e in visavis_json("identities", "list", "--limit", "1")] == ["ada"]


def test_identity_is_shown_as_json() -> None:
    visavis("enroll", "ada", "at0.png", "--metadata", '{"team": "analysis"}')
    shown = json.loads(visavis("identities", "show", "ada").stdout)
    assert (shown["identity"], shown["references"], shown["metadata"]) == ("ada", 1, {"team": "analysis"})


def test_deleted_identity_is_neither_listed_nor_found() -> None:
    visavis("enroll", "ada", "at0.png")
    assert visavis("identities", "delete", "ada").stdout == "deleted ada from default\n"
    assert visavis_json("identities", "list") == []
    assert visavis("identify", "at0.png").exit_code == 3


@pytest.mark.parametrize("command", [("show", "nobody"), ("rename", "nobody", "ada"), ("delete", "nobody")])
def test_unknown_identity_is_refused(command: tuple[str, ...]) -> None:
    visavis("db", "upgrade")
    result = visavis("identities", *command)
    assert result.exit_code == 1
    assert result.stderr.startswith("visavis: identity_not_found: there is no identity 'nobody'")


def test_renamed_identity_is_found_by_its_new_name() -> None:
    visavis("enroll", "ada", "at0.png")
    renamed = visavis("identities", "rename", "ada", "countess")
    assert (renamed.exit_code, renamed.stdout) == (0, "renamed ada to countess in default\n")
    assert visavis("identify", "at0.png").stdout.startswith("1. countess  distance 0.0000")


def test_renamed_identity_is_gone_by_its_old_name() -> None:
    visavis("enroll", "ada", "at0.png")
    visavis("identities", "rename", "ada", "countess")
    assert [entry["identity"] for entry in visavis_json("identities", "list")] == ["countess"]


def test_renamed_identity_keeps_its_metadata() -> None:
    visavis("enroll", "ada", "at0.png", "--metadata", '{"team": "analysis"}')
    visavis("identities", "rename", "ada", "countess")
    shown = json.loads(visavis("identities", "show", "countess").stdout)
    assert (shown["metadata"], shown["references"]) == ({"team": "analysis"}, 1)


def test_identity_is_renamed_in_the_collection_named() -> None:
    visavis("collections", "create", "staff")
    visavis("enroll", "ada", "at0.png")
    visavis("enroll", "ada", "at0.png", "--collection", "staff")
    visavis("identities", "rename", "ada", "countess", "--collection", "staff")
    assert [entry["identity"] for entry in visavis_json("identities", "list")] == ["ada"]


def test_identity_cannot_take_the_name_of_another() -> None:
    visavis("enroll", "ada", "at0.png")
    visavis("enroll", "bob", "at90.png")
    result = visavis("identities", "rename", "ada", "bob")
    assert result.exit_code == 1
    assert result.stderr.startswith("visavis: identity_exists: identity 'bob' ")


def test_new_name_that_is_none_is_refused_as_the_new_name() -> None:
    visavis("enroll", "ada", "at0.png")
    result = visavis("identities", "rename", "ada", " ada")
    assert result.exit_code == 1
    assert result.stderr.startswith("visavis: invalid_request: new_name: ")


def test_either_spelling_of_a_name_is_the_same_identity() -> None:
    visavis("enroll", "Zoe\u0301", "at0.png")
    assert json.loads(visavis("identities", "show", "Zo\u00e9").stdout)["identity"] == "Zo\u00e9"
    assert visavis("identities", "delete", "Zoe\u0301").exit_code == 0


# collections


def test_collection_is_created_bound_to_its_model_and_deleted() -> None:
    assert visavis("collections", "create", "staff", "--model", "other").stdout == (
        "created staff, model other\n"
    )
    visavis("enroll", "ada", "at0.png", "--collection", "staff")
    listed = {entry["name"]: entry for entry in visavis_json("collections", "list")}
    assert set(listed) == {"default", "staff"}
    assert (listed["staff"]["model"], listed["staff"]["identities"]) == ("other", 1)
    assert "staff  model other, 1 identities, revision 1" in visavis("collections", "list").stdout
    assert visavis("collections", "delete", "staff", "--yes").stdout == "deleted staff\n"
    assert [entry["name"] for entry in visavis_json("collections", "list")] == ["default"]


def test_collection_is_kept_unless_its_deletion_is_confirmed() -> None:
    visavis("collections", "create", "staff")
    result = visavis("collections", "delete", "staff", stdin="n\n")
    assert result.exit_code == 1
    assert "staff" in visavis("collections", "list").stdout


def test_collection_of_a_taken_name_is_refused() -> None:
    visavis("collections", "create", "staff")
    result = visavis("collections", "create", "staff")
    assert result.exit_code == 1
    assert result.stderr.startswith("visavis: collection_exists: ")


def test_collection_with_a_floor_refuses_what_is_below_it() -> None:
    visavis("collections", "create", "sharp", "--min-sharpness", "1000000")
    result = visavis("enroll", "ada", "at0.png", "--collection", "sharp")
    assert result.exit_code == 1
    assert result.stderr.startswith("visavis: quality_too_low: ")


def test_collection_is_shown_as_json() -> None:
    visavis("collections", "create", "staff", "--model", "other")
    visavis("enroll", "ada", "at0.png", "--collection", "staff")
    shown = json.loads(visavis("collections", "show", "staff").stdout)
    assert (shown["name"], shown["model"], shown["identities"], shown["revision"]) == ("staff", "other", 1, 1)


@pytest.mark.parametrize("command", [("show", "staff"), ("delete", "staff", "--yes")])
def test_collection_that_is_not_there_is_refused(command: tuple[str, ...]) -> None:
    visavis("db", "upgrade")
    result = visavis("collections", *command)
    assert result.exit_code == 1
    assert result.stderr.startswith("visavis: collection_not_found: there is no collection 'staff'")


POLICY = {
    "--min-face-size": "min_face_size",
    "--min-sharpness": "min_sharpness",
    "--min-brightness": "min_brightness",
    "--max-brightness": "max_brightness",
    "--max-yaw": "max_yaw",
}


@pytest.mark.parametrize("option", POLICY)
def test_collection_keeps_the_policy_it_is_created_with(option: str) -> None:
    visavis("collections", "create", "staff", option, "0.5")
    policy = json.loads(visavis("collections", "show", "staff").stdout)["policy"]
    assert {name: policy[name] for name in POLICY.values()} == dict.fromkeys(POLICY.values()) | {
        POLICY[option]: 0.5
    }


@pytest.mark.parametrize("option", POLICY)
@pytest.mark.parametrize("number", ["-1", "nan", "inf", "1e9"])
def test_floor_that_is_none_is_wrong_usage(option: str, number: str) -> None:
    result = visavis("collections", "create", "staff", option, number)
    assert result.exit_code == 2
    assert f"Invalid value for '{option}'" in result.stderr


# models


def test_models_are_listed_by_name() -> None:
    assert visavis("models", "list").stdout.splitlines() == [
        "angles  1  two grey pixels as an angle",
        "other  1  two grey pixels as an angle",
    ]
    assert [entry["model_id"] for entry in visavis_json("models", "list")] == ["angles", "other"]


def test_model_is_shown_with_its_digest_and_operating_points() -> None:
    shown = json.loads(visavis("models", "show", "angles").stdout)
    assert len(shown["digest"]) == 64
    assert shown["operating_points"][0]["name"] == "fmr-1e-2"


def test_unknown_model_is_refused_with_those_there_are() -> None:
    result = visavis("models", "show", "angels")
    assert result.exit_code == 1
    assert "holds: angles, other" in result.stderr


def test_sound_bundle_is_said_to_be_sound(angle_models: Path) -> None:
    result = visavis("models", "verify", angle_models / "angles")
    assert result.exit_code == 0
    assert result.stdout.startswith("angles is sound: 3 files, digest ")


def test_altered_bundle_is_refused_by_the_name_of_the_file(folder: Path, angle_models: Path) -> None:
    bundle = folder / "angles"
    shutil.copytree(angle_models / "angles", bundle)
    altered = bytearray((bundle / "encoder.onnx").read_bytes())
    altered[-1] ^= 1
    (bundle / "encoder.onnx").write_bytes(altered)
    result = visavis("models", "verify", bundle)
    assert result.exit_code == 1
    assert "angles/encoder.onnx is altered: sha256 " in result.stderr


def test_manifest_that_is_no_json_is_refused_by_the_name_of_the_file(folder: Path) -> None:
    (folder / "angles").mkdir()
    (folder / "angles" / "manifest.json").write_text("{")
    result = visavis("models", "list", "--models-dir", folder)
    assert result.exit_code == 1
    assert result.stderr.startswith("visavis: angles/manifest.json: Invalid JSON: ")


# keys


def test_key_is_printed_once_and_listed_without_its_secret() -> None:
    key = visavis("keys", "create", "door", "--role", "match").stdout.strip()
    assert re.fullmatch(KEY, key)
    listed = visavis("keys", "list").stdout
    assert listed.startswith("door  role match, made ")
    assert listed.endswith(", valid\n")
    (entry,) = visavis_json("keys", "list")
    assert set(entry) == {"id", "name", "role", "created_at", "revoked_at"}
    assert key.split("_", 2)[2] not in json.dumps(entry)


def test_created_key_alone_is_on_standard_output_and_where_it_is_kept_on_standard_error(folder: Path) -> None:
    made = visavis("keys", "create", "door")
    assert re.fullmatch(KEY + r"\n", made.stdout)
    assert made.stderr == f"kept in sqlite:///{folder / 'visavis.db'}; it cannot be shown again\n"


def test_revoked_key_is_listed_as_revoked() -> None:
    visavis("keys", "create", "door")
    assert visavis("keys", "revoke", "door").stdout == "revoked door\n"
    assert ", revoked 20" in visavis("keys", "list").stdout
    assert visavis_json("keys", "list")[0]["revoked_at"] is not None


def test_key_of_a_taken_name_is_refused() -> None:
    visavis("keys", "create", "door")
    result = visavis("keys", "create", "door")
    assert result.exit_code == 1
    assert "a key 'door' exists already" in result.stderr


def test_unknown_key_cannot_be_revoked() -> None:
    visavis("keys", "create", "gate")
    result = visavis("keys", "revoke", "door")
    assert result.exit_code == 1
    assert "there is no key 'door'" in result.stderr


# db


def test_upgrade_makes_the_schema_and_then_finds_nothing_to_do(folder: Path) -> None:
    first = visavis("db", "upgrade").stdout.strip()
    assert first.startswith("schema at ")
    assert first.endswith(" (was empty)")
    assert visavis("db", "upgrade").stdout.strip() == first.removesuffix(" (was empty)")
    with sqlite3.connect(folder / "visavis.db") as connection:
        tables = {name for (name,) in connection.execute("SELECT name FROM sqlite_master")}
    connection.close()
    assert "alembic_version" in tables


def test_database_url_of_the_command_line_wins(folder: Path) -> None:
    visavis("db", "upgrade", "--database-url", f"sqlite:///{folder / 'elsewhere.db'}")
    assert (folder / "elsewhere.db").exists()
    assert not (folder / "visavis.db").exists()


def test_database_of_another_kind_is_refused() -> None:
    result = visavis("db", "upgrade", "--database-url", "mysql://localhost/visavis")
    assert result.exit_code == 1
    assert "must begin with sqlite:// or postgresql+psycopg://" in result.stderr
