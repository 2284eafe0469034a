"""Sign the seal of a bundle with Ed25519, and check whose signature it is.

``SHA256SUMS.sig`` is four lines of text: what it is, the key's id, the public key and the signature over the
bytes of ``SHA256SUMS``, both in base64. As the public key is beside it, a torn signature is found without any
setting; only a list of trusted keys says whether the key is one's own.

``cryptography`` is imported when there is a signature to make or check, and not before: a service whose
bundles are unsigned does not wait for it.

Source: RFC 8032, Edwards-Curve Digital Signature Algorithm, through the package ``cryptography``.
"""

from __future__ import annotations

import base64
import binascii
import hashlib
import os
import re
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from app.encoding.seal import SEAL_NAME, SIGNATURE_NAME, Seal, check_files, read_seal
from app.errors import BundleError, StartupError

if TYPE_CHECKING:
    from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

SETTING = "VISAVIS_TRUSTED_KEYS"

_TITLE = f"Ed25519 signature of {SEAL_NAME}"
_LAYOUT = re.compile(
    rf"{_TITLE}\nkey-id: ([0-9a-f]{{16}})\npublic-key: ([A-Za-z0-9+/=]+)\nsignature: ([A-Za-z0-9+/=]+)\n"
)
_PEM = re.compile(r"-----BEGIN ([A-Z0-9 ]+)-----.*?-----END \1-----", re.DOTALL)
_KEY_BYTES, _SIGNATURE_BYTES = 32, 64


@dataclass(frozen=True)
class Signature:
    """A signature that holds.

    Attributes:
        key_id: First 16 hex digits of the SHA-256 of the public key.
        trusted: Whether the key is among the trusted ones; None when no trusted keys were given.
    """

    key_id: str
    trusted: bool | None


@dataclass(frozen=True)
class TrustedKeys:
    """Public keys, 32 bytes each, and the file that they were read from."""

    file: Path
    keys: frozenset[bytes]


def key_id(public_key: bytes) -> str:
    """Return the short name of a public key: the first 16 hex digits of its SHA-256."""
    return hashlib.sha256(public_key).hexdigest()[:16]


def make_key(file: Path) -> str:
    """Write a new private key as PEM, readable by its owner only, and return the public key in base64.

    Raises:
        StartupError: The file is there already, or cannot be written.
    """
    from cryptography.hazmat.primitives import serialization  # noqa: PLC0415
    from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey  # noqa: PLC0415

    key = Ed25519PrivateKey.generate()
    pem = key.private_bytes(
        serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
    )
    try:
        # Made with its mode, never over another file: there is no moment at which somebody else can read it.
        with open(file, "xb", opener=lambda path, flags: os.open(path, flags, 0o600)) as target:
            target.write(pem)
    except FileExistsError as error:
        raise StartupError(
            f"{file} is there already; a key is never overwritten, name another file"
        ) from error
    except OSError as error:
        raise StartupError(f"{file} cannot be written: {error.strerror}") from error
    return _text(key.public_key().public_bytes_raw())


def sign_bundle(folder: Path, key_file: Path) -> str:
    """Check a bundle's files against its seal, write ``SHA256SUMS.sig``, and return the key's id.

    Raises:
        BundleError: The bundle is not as its seal says; nothing is written.
        StartupError: The key file holds no Ed25519 private key.
    """
    key = _private_key(key_file)
    seal = read_seal(folder)
    check_files(folder, seal)
    public = key.public_key().public_bytes_raw()
    (folder / SIGNATURE_NAME).write_bytes(_layout(public, key.sign(seal.content)))
    return key_id(public)


def check_signature(folder: Path, seal: Seal, trusted: TrustedKeys | None) -> Signature | None:
    """Return the signature of a bundle, checked, or None if it has none and needs none.

    Args:
        folder: Of the bundle.
        seal: What was read of its ``SHA256SUMS``.
        trusted: Keys of which one must have signed; None accepts any signature that holds, and none at all.

    Raises:
        BundleError: The signature is missing, torn, of other bytes, or of a key that is not trusted.
    """
    name = f"{folder.name}/{SIGNATURE_NAME}"
    path = folder / SIGNATURE_NAME
    if not path.exists():
        if trusted is None:
            return None
        raise BundleError(
            f"{name} is missing, and every bundle must be signed by a key of {trusted.file} ({SETTING}): "
            "sign it with 'visavis models sign PATH --key FILE'"
        )
    try:
        public, signature = _parsed(path.read_bytes())
    except OSError as error:
        raise BundleError(f"{name} cannot be read: {error.strerror}") from error
    except ValueError as error:
        raise BundleError(
            f"{name} is altered or torn: {error}; sign again with 'visavis models sign PATH --key FILE', or "
            "remove it where no signature is wanted"
        ) from error
    signer = key_id(public)
    if not _holds(public, signature, seal.content):
        raise BundleError(
            f"{name}: key {signer} did not sign this {SEAL_NAME}; sign again with "
            "'visavis models sign PATH --key FILE', or remove it where no signature is wanted"
        )
    if trusted is not None and public not in trusted.keys:
        raise BundleError(
            f"{name}: key {signer} is not among the {len(trusted.keys)} of {trusted.file} ({SETTING}); add "
            f"its public key {_text(public)} there if you trust it, or sign with a key that is listed"
        )
    return Signature(signer, None if trusted is None else True)


def read_trusted_keys(file: Path) -> TrustedKeys:
    """Read public keys: PEM, or base64 of the 32 bytes, one a line; ``#`` begins a comment.

    Raises:
        StartupError: The file cannot be read, holds no key, or something else; the message names it.
    """
    try:
        text = file.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        reason = error.strerror if isinstance(error, OSError) else "it is no text"
        raise StartupError(f"trusted keys {file} ({SETTING}) cannot be read: {reason}") from error
    keys = {_pem_key(file, match[0], match[1]) for match in _PEM.finditer(text)}
    rest = _PEM.sub(lambda match: "\n" * match[0].count("\n"), text)
    for number, line in enumerate(rest.splitlines(), 1):
        entry = line.partition("#")[0].strip()
        if not entry:
            continue
        try:
            keys.add(_bytes(entry, _KEY_BYTES))
        except ValueError as error:
            raise StartupError(
                f"trusted keys {file}, line {number}: no Ed25519 public key ({error}); each is PEM or one "
                "line of base64, as 'visavis models keygen' prints it"
            ) from error
    if not keys:
        raise StartupError(
            f"trusted keys {file} ({SETTING}) holds no key: put in what 'visavis models keygen' prints, or "
            "unset it"
        )
    return TrustedKeys(file, frozenset(keys))


def _holds(public: bytes, signature: bytes, content: bytes) -> bool:
    from cryptography.exceptions import InvalidSignature  # noqa: PLC0415
    from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PublicKey  # noqa: PLC0415

    try:
        Ed25519PublicKey.from_public_bytes(public).verify(signature, content)
    except InvalidSignature:
        return False
    return True


def _private_key(file: Path) -> Ed25519PrivateKey:
    from cryptography.hazmat.primitives import serialization  # noqa: PLC0415
    from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey  # noqa: PLC0415

    try:
        key: Any = serialization.load_pem_private_key(file.read_bytes(), password=None)
    except OSError as error:
        raise StartupError(f"key {file} cannot be read: {error.strerror}") from error
    except (
        Exception
    ) as error:  # cryptography has its own classes for damage, for passwords, for odd algorithms
        raise StartupError(
            f"key {file} is no private key in PEM without a password; make one with 'visavis models keygen'"
        ) from error
    if not isinstance(key, Ed25519PrivateKey):
        raise StartupError(f"key {file} is no Ed25519 key; make one with 'visavis models keygen'")
    return key


def _pem_key(file: Path, pem: str, kind: str) -> bytes:
    from cryptography.hazmat.primitives import serialization  # noqa: PLC0415
    from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PublicKey  # noqa: PLC0415

    if "PRIVATE" in kind:
        raise StartupError(
            f"trusted keys {file} holds a private key: put the public key there, and the private one where "
            "only its owner reads it"
        )
    try:
        key: Any = serialization.load_pem_public_key(pem.encode())
    except Exception as error:  # cryptography has its own classes for each kind of damage
        raise StartupError(f"trusted keys {file}: a PEM block that is no public key") from error
    if not isinstance(key, Ed25519PublicKey):
        raise StartupError(f"trusted keys {file}: a PEM block is a public key, but not of Ed25519")
    return key.public_bytes_raw()


def _layout(public: bytes, signature: bytes) -> bytes:
    return (
        f"{_TITLE}\nkey-id: {key_id(public)}\npublic-key: {_text(public)}\nsignature: {_text(signature)}\n"
    ).encode()


def _parsed(content: bytes) -> tuple[bytes, bytes]:
    match = _LAYOUT.fullmatch(content.decode("utf-8", "replace"))
    if match is None:
        raise ValueError("it is not the four lines of a signature")
    public, signature = _bytes(match[2], _KEY_BYTES), _bytes(match[3], _SIGNATURE_BYTES)
    if match[1] != key_id(public):
        raise ValueError("the key id is not that of the public key")
    return public, signature


def _text(value: bytes) -> str:
    return base64.b64encode(value).decode()


def _bytes(text: str, length: int) -> bytes:
    try:
        value = base64.b64decode(text, validate=True)
    except (binascii.Error, ValueError) as error:
        raise ValueError(f"not base64: {error}") from error
    # Base64 leaves bits over at its end that mean nothing; here they must be what was written.
    if len(value) != length or _text(value) != text:
        raise ValueError(f"not the base64 of {length} bytes")
    return value
