"""A served model: a verified bundle, its encoder, its evidence."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from app.encoding.bundle import Bundle, load_bundle
from app.encoding.image_encoder import ImageEncoder
from app.encoding.intake import IntakeLimits
from app.encoding.manifest import Manifest
from app.encoding.onnx_session import Provider
from app.encoding.pixel_gate import PixelGate
from app.encoding.signature import read_trusted_keys
from app.matching.evidence import Evidence


@dataclass(frozen=True, eq=False)
class Model:
    """What the service needs of one bundle."""

    manifest: Manifest
    evidence: Evidence
    images: ImageEncoder
    digest: str
    """Hex SHA-256 of the embedding contract; templates of equal digest may be compared."""
    unit_length: bool
    """Whether its embeddings have norm 1."""

    @property
    def model_id(self) -> str:
        """Name of the bundle."""
        return self.manifest.model_id


def open_model(
    folder: Path,
    *,
    provider: Provider = "auto",
    limits: IntakeLimits | None = None,
    gate: PixelGate | None = None,
    trusted_keys: Path | None = None,
) -> Model:
    """Load the bundle in a folder, fully checked.

    Args:
        folder: Of the bundle.
        provider: Where its graphs run.
        limits: What is taken in as an image.
        gate: Shared bound of the pixels decoded at one time.
        trusted_keys: File of public keys, one of which must have signed the bundle; None asks for none.

    Raises:
        StartupError: The bundle is not what its seal and manifest say, or the provider does not work.
    """
    trusted = None if trusted_keys is None else read_trusted_keys(trusted_keys)
    bundle: Bundle = load_bundle(folder, provider, trusted)
    encoder = ImageEncoder(bundle.manifest, bundle.encoder, bundle.detector, limits or IntakeLimits(), gate)
    return Model(bundle.manifest, bundle.evidence, encoder, bundle.manifest.digest, bundle.golden.unit_length)
