"""Write what follows from a bundle's graphs and evidence anew, without training or measuring again.

    python -m training.refresh_bundle models/digits [models/...]

Operating points and evidence summary come from ``evidence.npz``, golden pairs from ``encoder.onnx`` and the
operating points, digests from the files that lie in the folder; then the bundle is sealed. Names, recipe,
results, card and plots stay. Run it after changing any file of a bundle. A bundle that needs nothing comes
out as it was, byte for byte, and keeps its signature.
"""

from __future__ import annotations

from pathlib import Path

import click

from app.encoding.bundle import load_bundle, read_manifest
from app.encoding.manifest import Manifest
from app.errors import VisavisError
from app.matching.evidence import read_evidence
from training.bundle_files import file_entries, write_manifest
from training.golden import add_pairs
from training.measured_evidence import evidence_summary, operating_points


def refresh_bundle(folder: Path) -> Manifest:
    """Bring golden pairs, manifest and seal of a bundle up to its evidence, and check the result.

    Raises:
        BundleError: The manifest is invalid, or the bundle is not sound even now.
        ValueError: The evidence supports no operating point, or not the default one.
    """
    manifest = read_manifest(folder)
    points = operating_points(read_evidence(folder / manifest.evidence.file))
    add_pairs(folder, points, manifest.metric)
    changed = {
        **manifest.model_dump(),
        "files": file_entries(folder, tuple(manifest.files)),
        "operating_points": points,
        "evidence": evidence_summary(folder / manifest.evidence.file),
    }
    refreshed = Manifest.model_validate(changed)
    write_manifest(folder, refreshed)
    load_bundle(folder, "cpu")
    return refreshed


@click.command(help=__doc__)
@click.argument(
    "bundles",
    nargs=-1,
    required=True,
    metavar="PATH...",
    type=click.Path(path_type=Path, exists=True, file_okay=False),
)
def main(bundles: tuple[Path, ...]) -> None:
    """Run the command."""
    for path in bundles:
        folder = path.resolve()
        try:
            before = read_manifest(folder).digest
            manifest = refresh_bundle(folder)
        except (VisavisError, ValueError, OSError) as error:
            raise click.ClickException(f"{path}: {error}") from error
        same = "as before" if manifest.digest == before else f"was {before}"
        click.echo(f"{path}: {len(manifest.files)} files sealed, digest {manifest.digest} ({same})")


if __name__ == "__main__":
    main()
