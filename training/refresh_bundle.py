"""Write what follows from a bundle's graphs and evidence anew, without training or measuring again.

    python -m training.refresh_bundle models/digits [models/...]

Operating points, evidence summary and the results measured with it come from ``evidence.npz``, golden pairs
from ``encoder.onnx`` and the operating points, digests from the files that lie in the folder; then the bundle
is sealed. Names, recipe, other results, card and plots stay. Run it after changing any file of a bundle. A
bundle that needs nothing comes out as it was, byte for byte, and keeps its signature.
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
from training.measured_evidence import default_point, evidence_results, evidence_summary, operating_points


def refresh_bundle(folder: Path) -> Manifest:
    """Bring golden pairs, manifest and seal of a bundle up to its evidence, and check the result.

    Raises:
        BundleError: The manifest is invalid, or the bundle is not sound even now.
        ValueError: The evidence supports no operating point.
    """
    manifest = read_manifest(folder)
    file = folder / manifest.evidence.file
    evidence, results = read_evidence(file), evidence_results(file)
    points, default = operating_points(evidence), manifest.default_operating_point
    if default not in {point.name for point in points}:
        default = default_point(evidence).name or ""
    add_pairs(folder, points, manifest.metric)
    changed = {
        **manifest.model_dump(),
        "files": file_entries(folder, tuple(manifest.files)),
        "operating_points": points,
        "default_operating_point": default,
        "evidence": evidence_summary(file),
        "results": {**manifest.results, **({"evidence": results} if results else {})},
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
