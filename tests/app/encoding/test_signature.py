"""A signature over the seal says whose bundle it is, and a torn one is never taken for none."""

from __future__ import annotations

import base64
import shutil
import stat
import subprocess
import sys
from pathlib import Path

import pytest
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric.ec import SECP256R1, generate_private_key
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PublicKey

from app.encoding.bundle import verify_files
from app.encoding.model import open_model
from app.encoding.seal import SEAL_NAME, SIGNATURE_NAME, write_seal
from app.encoding.signature import key_id, make_key, read_trusted_keys, sign_bundle
from app.errors import BundleError, StartupError

PEM, PUBLIC = serialization.Encoding.PEM, serialization.PublicFormat.SubjectPublicKeyInfo


@pytest.fixture
def folder(tmp_path: Path, angle_models: Path) -> Path:
    """A copy of the ``angles`` bundle to sign."""
    return Path(shutil.copytree(angle_models / "angles", tmp_path / "angles"))


@pytest.fixture
def public(tmp_path: Path) -> str:
    """The public key of ``ours.pem``, in base64; it alone is in ``trusted``."""
    text = make_key(tmp_path / "ours.pem")
    (tmp_path / "trusted").write_text(f"# the team's\n{text}\n")
    return text


def test_signed_bundle_is_trusted_by_its_key(folder: Path, public: str, tmp_path: Path) -> None:
    signer = sign_bundle(folder, tmp_path / "ours.pem")
    assert signer == key_id(base64.b64decode(public))
    _, signature = verify_files(folder, read_trusted_keys(tmp_path / "trusted"))
    assert signature is not None
    assert (signature.key_id, signature.trusted) == (signer, True)
    assert open_model(folder, provider="cpu", trusted_keys=tmp_path / "trusted").model_id == "angles"


def test_signature_is_plain_ed25519_over_the_bytes_of_the_seal(
    folder: Path, public: str, tmp_path: Path
) -> None:
    sign_bundle(folder, tmp_path / "ours.pem")
    title, name, key, signature = (folder / SIGNATURE_NAME).read_text().splitlines()
    assert title == "Ed25519 signature of SHA256SUMS"
    assert name == f"key-id: {key_id(base64.b64decode(public))}"
    assert key == f"public-key: {public}"
    value = base64.b64decode(signature.removeprefix("signature: "))
    signer = Ed25519PublicKey.from_public_bytes(base64.b64decode(public))
    signer.verify(value, (folder / SEAL_NAME).read_bytes())


def test_signed_bundle_loads_without_trusted_keys(folder: Path, public: str, tmp_path: Path) -> None:
    sign_bundle(folder, tmp_path / "ours.pem")
    _, signature = verify_files(folder)
    assert signature is not None
    assert signature.trusted is None


def test_unsigned_bundle_is_refused_where_keys_are_trusted(folder: Path, public: str, tmp_path: Path) -> None:
    with pytest.raises(
        BundleError, match=r"^angles/SHA256SUMS\.sig is missing, .*VISAVIS_TRUSTED_KEYS.*visavis models sign"
    ):
        open_model(folder, provider="cpu", trusted_keys=tmp_path / "trusted")


def test_signature_of_a_key_that_is_not_trusted_is_refused(folder: Path, public: str, tmp_path: Path) -> None:
    other = make_key(tmp_path / "other.pem")
    signer = sign_bundle(folder, tmp_path / "other.pem")
    with pytest.raises(
        BundleError, match=rf"^angles/SHA256SUMS\.sig: key {signer} is not among the 1 of .*trusted"
    ) as refused:
        verify_files(folder, read_trusted_keys(tmp_path / "trusted"))
    assert other in str(refused.value)


def test_bundle_sealed_anew_by_another_hand_is_refused(folder: Path, public: str, tmp_path: Path) -> None:
    sign_bundle(folder, tmp_path / "ours.pem")
    signature = (folder / SIGNATURE_NAME).read_bytes()
    (folder / "MODEL_CARD.md").write_text("for everything")
    write_seal(folder)
    (folder / SIGNATURE_NAME).write_bytes(signature)
    for trusted in (None, read_trusted_keys(tmp_path / "trusted")):
        with pytest.raises(
            BundleError, match=r"^angles/SHA256SUMS\.sig: key \w+ did not sign this SHA256SUMS; "
        ):
            verify_files(folder, trusted)


@pytest.mark.parametrize("trusted", [False, True], ids=["no trusted keys", "trusted keys"])
def test_any_flipped_bit_of_the_signature_is_refused(
    folder: Path, public: str, tmp_path: Path, trusted: bool
) -> None:
    sign_bundle(folder, tmp_path / "ours.pem")
    keys = read_trusted_keys(tmp_path / "trusted") if trusted else None
    sound = (folder / SIGNATURE_NAME).read_bytes()
    for place in range(len(sound)):
        for bit in (0, 1, 5, 7):
            damaged = bytearray(sound)
            damaged[place] ^= 1 << bit
            (folder / SIGNATURE_NAME).write_bytes(damaged)
            with pytest.raises(BundleError, match=r"^angles/SHA256SUMS\.sig"):
                verify_files(folder, keys)


@pytest.mark.parametrize("content", [b"", b"\xff", b"Ed25519 signature of SHA256SUMS\n"])
def test_torn_signature_is_refused_without_trusted_keys(folder: Path, content: bytes) -> None:
    (folder / SIGNATURE_NAME).write_bytes(content)
    with pytest.raises(
        BundleError, match=r"^angles/SHA256SUMS\.sig is altered or torn: .*or remove it where no signature"
    ):
        verify_files(folder)


def test_altered_bundle_is_not_signed(folder: Path, public: str, tmp_path: Path) -> None:
    (folder / "golden.npz").write_bytes(b"")
    with pytest.raises(BundleError, match=r"^angles/golden\.npz is altered"):
        sign_bundle(folder, tmp_path / "ours.pem")
    assert not (folder / SIGNATURE_NAME).exists()


def test_private_key_is_its_owners_alone_and_is_never_overwritten(public: str, tmp_path: Path) -> None:
    assert stat.S_IMODE((tmp_path / "ours.pem").stat().st_mode) == 0o600
    with pytest.raises(StartupError, match=r"ours\.pem is there already"):
        make_key(tmp_path / "ours.pem")
    with pytest.raises(StartupError, match=r"key\.pem cannot be written: No such file"):
        make_key(tmp_path / "absent" / "key.pem")


def test_trusted_keys_are_pem_or_base64(public: str, tmp_path: Path) -> None:
    other = base64.b64decode(make_key(tmp_path / "other.pem"))
    pem = Ed25519PublicKey.from_public_bytes(other).public_bytes(PEM, PUBLIC).decode()
    file = tmp_path / "both"
    file.write_text(f"\n# ours\n{public}  # since May\n\n{pem}")
    assert read_trusted_keys(file).keys == {base64.b64decode(public), other}


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("", "holds no key"),
        ("# none yet\n", "holds no key"),
        ("\nssh-ed25519 AAAA\n", "line 2: no Ed25519 public key"),
        ("AAAA\n", r"line 1: no Ed25519 public key \(not the base64 of 32 bytes\)"),
        ("-----BEGIN PUBLIC KEY-----\nAAAA\n-----END PUBLIC KEY-----\n", "a PEM block that is no public key"),
    ],
)
def test_file_of_trusted_keys_that_holds_something_else_is_refused(
    tmp_path: Path, text: str, message: str
) -> None:
    (tmp_path / "keys").write_text(text)
    with pytest.raises(StartupError, match=rf"^trusted keys .*/keys.*{message}"):
        read_trusted_keys(tmp_path / "keys")


def test_private_key_among_trusted_ones_is_refused(public: str, tmp_path: Path) -> None:
    with pytest.raises(StartupError, match=r"ours\.pem holds a private key: put the public key there"):
        read_trusted_keys(tmp_path / "ours.pem")


def test_key_of_another_algorithm_is_refused(folder: Path, tmp_path: Path) -> None:
    key = generate_private_key(SECP256R1())
    private = key.private_bytes(PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption())
    (tmp_path / "ec.pem").write_bytes(private)
    (tmp_path / "ec.pub").write_bytes(key.public_key().public_bytes(PEM, PUBLIC))
    with pytest.raises(StartupError, match=r"ec\.pem is no Ed25519 key"):
        sign_bundle(folder, tmp_path / "ec.pem")
    with pytest.raises(StartupError, match=r"ec\.pub: a PEM block is a public key, but not of Ed25519"):
        read_trusted_keys(tmp_path / "ec.pub")


@pytest.mark.parametrize("file", ["absent", "."])
def test_file_of_trusted_keys_that_cannot_be_read_is_named(tmp_path: Path, file: str) -> None:
    with pytest.raises(StartupError, match=r"^trusted keys .*\(VISAVIS_TRUSTED_KEYS\) cannot be read: "):
        read_trusted_keys(tmp_path / file)
    (tmp_path / "picture").write_bytes(b"\xff\xd8")
    with pytest.raises(StartupError, match="cannot be read: it is no text"):
        read_trusted_keys(tmp_path / "picture")


@pytest.mark.parametrize("signed", [False, True])
def test_cryptography_is_imported_only_where_there_is_a_signature(
    folder: Path, public: str, tmp_path: Path, signed: bool
) -> None:
    if signed:
        sign_bundle(folder, tmp_path / "ours.pem")
    code = (
        "import sys; from pathlib import Path; from app.cli.stored import models; "
        "from app.encoding.bundle import verify_files; verify_files(Path(sys.argv[1])); "
        "print('cryptography' in sys.modules)"
    )
    done = subprocess.run([sys.executable, "-c", code, folder], capture_output=True, text=True, check=True)
    assert done.stdout == f"{signed}\n"
