"""models verify, sign and keygen: what is checked, by whom a bundle is signed, and what is refused."""

from __future__ import annotations

import base64
import json
import re
import shutil
import stat
from pathlib import Path

import pytest

from app.encoding.seal import SEAL_NAME, SIGNATURE_NAME
from app.encoding.signature import key_id
from tests.support.cli import visavis, visavis_json
from tests.support.server import free_port


@pytest.fixture
def bundle(folder: Path, angle_models: Path) -> Path:
    """A copy of the ``angles`` bundle below the working directory."""
    return Path(shutil.copytree(angle_models / "angles", folder / "mine" / "angles"))


@pytest.fixture
def public(folder: Path) -> str:
    """The public key of ``key.pem``; it alone is in ``trusted``."""
    made = visavis("models", "keygen", "--out", "key.pem")
    assert made.exit_code == 0
    assert made.stderr == "the private key is in key.pem, readable by its owner only\n"
    (folder / "trusted").write_text(made.stdout)
    return str(made.stdout).strip()


def flip(path: Path) -> None:
    data = bytearray(path.read_bytes())
    data[len(data) // 2] ^= 1
    path.write_bytes(data)


def test_what_was_checked_is_said(bundle: Path) -> None:
    lines = visavis("models", "verify", bundle).stdout.splitlines()
    assert re.fullmatch(r"angles is sound: 3 files, digest [0-9a-f]{64}", lines[0])
    assert lines[1:4] == [
        "seal       4 files are as SHA256SUMS lists them, and no other is there",
        "signature  none, and none is asked for",
        "graphs     encoder.onnx on cpu",
    ]
    assert re.fullmatch(r"golden     7 embeddings, none off by more than \S+ \(0\.001 is allowed\)", lines[4])
    assert re.fullmatch(
        r"decisions  8 on 4 pairs are the reference's, no distance off by more than \S+", lines[5]
    )
    assert lines[6:] == ["evidence   100 subjects, 200 mated and 4950 non-mated trials"]


def test_what_was_checked_is_json(bundle: Path) -> None:
    checked = visavis_json("models", "verify", bundle)
    assert checked["sound"] is True
    assert checked["files"] == ["encoder.onnx", "evidence.npz", "golden.npz", "manifest.json"]
    assert checked["signature"] is None
    assert checked["golden"]["decisions"] == 8
    assert 0 <= checked["golden"]["largest_difference"] < checked["golden"]["allowed"] == 1e-3
    assert checked["digest"] == json.loads(visavis("models", "show", "angles").stdout)["digest"]


@pytest.mark.parametrize("name", ["encoder.onnx", "evidence.npz", "golden.npz", "manifest.json", SEAL_NAME])
@pytest.mark.parametrize("form", [[], ["--json"]], ids=["text", "json"])
def test_altered_file_ends_with_its_name_and_exit_code_1(bundle: Path, name: str, form: list[str]) -> None:
    flip(bundle / name)
    result = visavis("models", "verify", bundle, *form)
    assert result.exit_code == 1
    assert result.stdout == ""
    assert result.stderr.startswith(f"visavis: angles/{name} is altered: ")


def test_key_is_made_for_its_owner_alone_and_its_public_half_printed(public: str, folder: Path) -> None:
    assert len(base64.b64decode(public, validate=True)) == 32
    assert stat.S_IMODE((folder / "key.pem").stat().st_mode) == 0o600
    again = visavis("models", "keygen", "--out", "key.pem")
    assert again.exit_code == 1
    assert (
        again.stderr == "visavis: key.pem is there already; a key is never overwritten, name another file\n"
    )


def test_signed_bundle_is_said_to_be_trusted(bundle: Path, public: str) -> None:
    signer = key_id(base64.b64decode(public))
    signed = visavis("models", "sign", bundle, "--key", "key.pem")
    assert signed.stdout == f"angles is signed by key {signer}: {bundle / SIGNATURE_NAME}\n"
    trusted = visavis("models", "verify", bundle, "--trusted-keys", "trusted")
    assert f"\nsignature  by key {signer}, trusted by trusted\n" in trusted.stdout
    unasked = visavis("models", "verify", bundle)
    assert f"\nsignature  by key {signer}, whose it is was not asked\n" in unasked.stdout
    view = visavis_json("models", "verify", bundle, "--trusted-keys", "trusted")
    assert view["signature"] == {"key_id": signer, "trusted": True}


def test_unsigned_bundle_is_refused_where_keys_are_trusted(bundle: Path, public: str) -> None:
    result = visavis("models", "verify", bundle, "--trusted-keys", "trusted")
    assert result.exit_code == 1
    assert result.stderr.startswith(
        "visavis: angles/SHA256SUMS.sig is missing, and every bundle must be signed"
    )


def test_altered_bundle_is_not_signed(bundle: Path, public: str) -> None:
    flip(bundle / "evidence.npz")
    result = visavis("models", "sign", bundle, "--key", "key.pem")
    assert result.exit_code == 1
    assert "angles/evidence.npz is altered" in result.stderr
    assert not (bundle / SIGNATURE_NAME).exists()


def test_public_key_signs_nothing(bundle: Path, public: str) -> None:
    result = visavis("models", "sign", bundle, "--key", "trusted")
    assert result.exit_code == 1
    assert result.stderr.startswith("visavis: key trusted is no private key in PEM without a password")


def test_setting_asks_for_a_signature_of_every_command_and_of_the_service(
    bundle: Path, public: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("VISAVIS_TRUSTED_KEYS", "trusted")
    monkeypatch.setenv("VISAVIS_MODELS_DIR", str(bundle.parent))
    refused = "visavis: angles/SHA256SUMS.sig is missing, and every bundle must be signed by a key of trusted"
    commands: list[tuple[object, ...]] = [
        ("models", "verify", bundle),
        ("embed", "--out", "out.npz", "at0.png"),
        ("serve", "--models", "angles", "--port", free_port()),
    ]
    monkeypatch.setenv("VISAVIS_MODELS", "angles")
    for command in commands:
        result = visavis(*command)
        assert result.exit_code == 1, command
        assert result.stderr.splitlines()[-1].startswith(refused), command
    visavis("models", "sign", bundle, "--key", "key.pem")
    for command in commands[:2]:
        assert visavis(*command).exit_code == 0, command
