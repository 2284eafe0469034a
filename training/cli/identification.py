"""``visavis evaluate identification``: closed-set ranks and open-set error rates."""

from __future__ import annotations

from datetime import UTC, datetime
from pathlib import Path
from typing import Any, Final

import click
import numpy as np

from app.cli.common import FiniteRange, face_option, models_dir_option, print_json, progress_bar, span
from app.encoding.detection import FaceChoice
from app.encoding.model import Model
from app.errors import InsufficientEvidenceError
from training.cli.measuring import (
    as_json_option,
    check_page,
    described,
    embedded_with_progress,
    html_option,
    images_option,
    model_line,
    model_option,
    opened,
    seed_option,
    write_page,
)
from training.evaluation.folders import labelled_files
from training.evaluation.identification import (
    DRAWS,
    RANKS,
    OpenSetRates,
    Searches,
    Share,
    draw_galleries,
    search,
)

TARGETS: Final = ("0.1", "0.01")
"""False positive identification rates at which FNIR is reported, as the report spells them."""


@click.command("identification")
@model_option
@images_option
@click.option(
    "--enrolled-share",
    type=FiniteRange(0, 1, min_open=True, max_open=True),
    default=0.5,
    show_default=True,
    help="Share of the subjects with two images that is enrolled, with one image each.",
)
@click.option("--draws", type=click.IntRange(1), default=DRAWS, show_default=True, help="Random galleries.")
@seed_option
@html_option
@face_option("central")
@models_dir_option
@as_json_option
def identification(
    model: str | None,
    images: Path,
    enrolled_share: float,
    draws: int,
    seed: int,
    html: Path | None,
    face: FaceChoice,
    models_dir: Path | None,
    as_json: bool,
) -> None:
    """Measure 1:N identification on a folder of labelled images.

    Subjects are split at random into enrolled ones, each by one image, and others, several times. The other
    images of the enrolled are mated searches, all images of the others non-mated ones.

    Reported are the identification rate at ranks 1, 5 and 10 (closed set); and FPIR (searches by subjects
    not enrolled that return anyone) and FNIR (searches whose reference is not returned at rank 1), with 95 %
    intervals that leave out one subject at a time: at thresholds found on these searches for FPIR 0.1 and
    0.01, at those that the model's own evidence gives for them with a gallery of this size, and at the
    model's operating points.

    An image that cannot be decoded or shows no usable face is a failure to acquire: it takes no part, and
    is counted.
    """
    check_page(html)
    files = labelled_files(images)
    loaded = opened(model, models_dir)
    embedded = embedded_with_progress(loaded, files.paths, face)
    galleries = draw_galleries(
        files.labels, enrolled_share=enrolled_share, draws=draws, seed=seed, ok=embedded.ok
    )
    with progress_bar(sum(g.mated.size + g.nonmated.size for g in galleries), "searching") as progress:
        metric = loaded.manifest.metric
        searches = search(galleries, embedded.embeddings, files.labels, metric, progress=progress)
    ranks = {rank: searches.identification_rate(rank) for rank in RANKS if rank <= searches.gallery_size}
    measured = {target: _at_measured(searches, target) for target in TARGETS}
    promised = {target: _at_promised(searches, loaded, target) for target in TARGETS}
    points = {point.name: searches.at(point.threshold) for point in loaded.manifest.operating_points}
    if html:
        # They import Matplotlib, which the other options do without.
        from training.pages.common import Measurement  # noqa: PLC0415
        from training.pages.identification import identification_page  # noqa: PLC0415

        settings = {
            "subjects": f"{len(files.subjects):,}",
            "enrolled share": f"{enrolled_share:g}",
            "gallery": f"{searches.gallery_size:,} subjects, one image each",
            "draws": f"{draws}",
            "seed": f"{seed}",
            "face": face,
        }
        page = identification_page(
            Measurement(loaded, images, settings, datetime.now(UTC)),
            files=files,
            embedded=embedded,
            galleries=galleries,
            searches=searches,
            ranks=ranks,
            rates={
                **{f"FPIR {target}": rates for target, rates in measured.items()},
                **{f"max_fpir {target}": rates for target, rates in promised.items()},
                **{str(name): rates for name, rates in points.items()},
            },
        )
        write_page(html, page.html())
    if as_json:
        answer = {
            **described(loaded),
            "images": len(files.paths),
            "subjects": int(np.unique(files.labels[embedded.ok]).size),
            "failures_to_acquire": int((~embedded.ok).sum()),
            "gallery_size": searches.gallery_size,
            "draws": draws,
            "seed": seed,
            "searches": {"mated": searches.mated.rank.size, "nonmated": searches.nonmated.nearest.size},
            "identification_rate": {str(rank): _share(share) for rank, share in ranks.items()},
            "cumulative_match": searches.cumulative_match().tolist(),
            "fnir_at_fpir": {target: _entry(rates) for target, rates in measured.items()},
            "at_max_fpir": {target: _entry(rates) for target, rates in promised.items()},
            "at_operating_points": {name: rates.as_json() for name, rates in points.items()},
        }
        print_json(answer)
        return
    lines = [
        model_line(loaded),
        f"images    {len(files.paths)} of {len(files.subjects)} subjects",
        f"failures  {(~embedded.ok).sum()} images not acquired",
        f"searches  {searches.mated.rank.size} mated, {searches.nonmated.nearest.size} non-mated in "
        f"{draws} galleries of {searches.gallery_size}; seed {seed}",
        *(
            f"{f'rank {rank}':<10}{share.rate:.4f}  {span((share.lower95, share.upper95))}"
            for rank, share in ranks.items()
        ),
        "",
        f"{'at':<18}{'threshold':<11}{'FPIR':<26}FNIR at rank 1",
        *(_row(f"FPIR {target}", rates) for target, rates in measured.items()),
        *(_row(f"max_fpir {target}", rates) for target, rates in promised.items()),
        *(_row(str(name), rates) for name, rates in points.items()),
        "",
        "Thresholds for FPIR are from these searches, those for max_fpir from the model's evidence.",
        "In brackets: 95 % intervals by subject.",
    ]
    click.echo("\n".join(lines))


def _at_measured(searches: Searches, target: str) -> OpenSetRates | str:
    threshold = searches.threshold_at_fpir(float(target))
    if threshold is None:
        return f"{searches.nonmated_images} images of subjects not enrolled cannot show a rate of {target}"
    return searches.at(threshold)


def _at_promised(searches: Searches, loaded: Model, target: str) -> OpenSetRates | str:
    try:
        point = loaded.evidence.point_for_fpir(float(target), searches.gallery_size)
    except InsufficientEvidenceError as error:
        return str(error)
    return searches.at(point.threshold)


def _share(share: Share) -> dict[str, float]:
    return {"rate": share.rate, "lower95": share.lower95, "upper95": share.upper95}


def _entry(rates: OpenSetRates | str) -> dict[str, Any]:
    if isinstance(rates, str):
        return {"supported": False, "reason": rates}
    return {"supported": True, **rates.as_json()}


def _row(label: str, rates: OpenSetRates | str) -> str:
    if isinstance(rates, str):
        return f"{label:<18}{rates}"
    fpir, fnir = (
        f"{share.rate:.4f}  {span((share.lower95, share.upper95))}" for share in (rates.fpir, rates.fnir)
    )
    return f"{label:<18}{rates.threshold:<11.4f}{fpir:<26}{fnir}"
