"""A bundle whose evidence or files changed is sound again after one command."""

from __future__ import annotations

import shutil
from pathlib import Path

import numpy as np
import pytest
from click.testing import CliRunner

from app.encoding.bundle import load_bundle, read_manifest
from app.encoding.golden import read_golden
from app.encoding.seal import SIGNATURE_NAME
from app.encoding.signature import make_key, sign_bundle
from app.errors import BundleError
from app.matching.evidence import read_evidence
from tests.support.bundles import angle_evidence
from training.measured_evidence import MeasuredEvidence, operating_points, write_evidence
from training.refresh_bundle import main, refresh_bundle


@pytest.fixture
def folder(tmp_path: Path, angle_models: Path) -> Path:
    """A copy of the ``angles`` bundle to change."""
    return Path(shutil.copytree(angle_models / "angles", tmp_path / "angles"))


def test_bundle_that_needs_nothing_comes_out_as_it_was_and_keeps_its_signature(folder: Path) -> None:
    make_key(folder.parent / "key.pem")
    refresh_bundle(folder)
    sign_bundle(folder, folder.parent / "key.pem")
    before = {path.name: path.read_bytes() for path in folder.iterdir()}
    refresh_bundle(folder)
    assert {path.name: path.read_bytes() for path in folder.iterdir()} == before
    assert SIGNATURE_NAME in before


def test_new_evidence_gives_new_thresholds_and_golden_pairs_about_them(folder: Path) -> None:
    before = read_manifest(folder)
    write_evidence(
        folder / "evidence.npz", MeasuredEvidence(angle_evidence(160), "more people", 320, 1, {"eer": 0.1})
    )
    with pytest.raises(BundleError, match=r"^angles/evidence\.npz is altered"):
        load_bundle(folder, "cpu")
    result = CliRunner().invoke(main, [str(folder)])
    assert result.exit_code == 0, result.output
    assert result.output == f"{folder}: 3 files sealed, digest {before.digest} (as before)\n"
    bundle = load_bundle(folder, "cpu")
    manifest = bundle.manifest
    assert manifest.operating_points == operating_points(read_evidence(folder / "evidence.npz"))
    assert manifest.operating_points != before.operating_points
    assert (manifest.evidence.source, manifest.evidence.subjects) == ("more people", 160)
    assert manifest.results == {"evidence": {"eer": 0.1}}
    golden = read_golden(folder, manifest)
    assert len(golden.images) == 3 + len(golden.pairs)
    for point in manifest.operating_points:
        apart = golden.pair_distance - point.threshold
        assert apart.min() < 0 < apart.max()
        assert np.abs(apart).min() < 0.01


def test_evidence_that_supports_the_default_point_no_more_gives_a_laxer_one(folder: Path) -> None:
    write_evidence(folder / "evidence.npz", MeasuredEvidence(angle_evidence(12), "few people", 24, 0))
    refreshed = refresh_bundle(folder)
    assert [point.name for point in refreshed.operating_points] == ["fmr-1e-1"]
    assert refreshed.default_operating_point == "fmr-1e-1"


def test_bundle_written_before_there_were_seals_and_pairs_gets_both(folder: Path) -> None:
    with np.load(folder / "golden.npz") as stored:
        images, embeddings = stored["images"][:3], stored["embeddings"][:3]
    np.savez(folder / "golden.npz", images=images, embeddings=embeddings)
    (folder / "SHA256SUMS").unlink()
    with pytest.raises(BundleError, match=r"^angles/SHA256SUMS is missing"):
        load_bundle(folder, "cpu")
    refresh_bundle(folder)
    assert load_bundle(folder, "cpu").golden.pairs == 4


def test_file_that_was_added_is_listed_and_sealed(folder: Path) -> None:
    (folder / "MODEL_CARD.md").write_text("two pixels")
    assert list(refresh_bundle(folder).files)[-1] == "MODEL_CARD.md"
    assert "MODEL_CARD.md" in (folder / "SHA256SUMS").read_text()


def test_encoder_that_contradicts_its_golden_embeddings_stays_refused(folder: Path) -> None:
    with np.load(folder / "golden.npz") as stored:
        arrays = dict(stored)
    arrays["embeddings"][:3] += 0.01
    np.savez(folder / "golden.npz", **arrays)
    result = CliRunner().invoke(main, [str(folder)])
    assert result.exit_code == 1
    assert "angles/golden.npz: the encoder's embeddings differ by 0.01" in result.output
