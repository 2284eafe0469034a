"""``visavis enroll | verify | identify | embed | detect``: the service's use cases without HTTP."""

from __future__ import annotations

import json
import sys
import time
from contextlib import closing
from pathlib import Path
from typing import Any

import click
import numpy as np

from app import answers
from app.cli.common import (
    NO_MATCH,
    FiniteRange,
    as_json_option,
    collection_option,
    database_option,
    expand,
    face_option,
    given,
    models_dir_option,
    print_json,
    progress_bar,
    read_image,
    run,
)
from app.context import Context, open_context
from app.encoding.bulk import embed_files
from app.encoding.detection import FaceChoice
from app.encoding.image_encoder import Timings
from app.encoding.intake import IMAGE_SUFFIXES
from app.encoding.model import Model, open_model
from app.encoding.workers import Workers
from app.errors import InvalidRequestError
from app.matching.decision import OperatingPoint
from app.services.decisions import Criterion
from app.services.images import Images
from app.services.names import collection_name, identity_name, metadata_object
from app.services.verification import compare_images
from app.settings import load_settings

_rate = FiniteRange(0, 1, min_open=True, max_open=True)
_threshold = click.option("--threshold", type=FiniteRange(0), help="Distance at or below which it matches.")
_point = click.option("--operating-point", help="Name of one of the model's operating points.")
_prior = click.option(
    "--prior",
    type=_rate,
    default=answers.DEFAULT_PRIOR,
    show_default=True,
    help="Probability, before looking, that it is the same subject, or somebody enrolled.",
)
_model = click.option("--model", help="Model id.  [default: the first of VISAVIS_MODELS]")


@click.command()
@click.argument("identity")
@click.argument("image", type=click.Path(allow_dash=True))
@collection_option
@click.option("--metadata", help="A JSON object to keep beside the identity.")
@click.option("--replace", is_flag=True, help="Replace every photo of an identity that is enrolled.")
@click.option("--add", is_flag=True, help="Add a photo to those of an identity, as the policy allows.")
@face_option("only")
@database_option
@models_dir_option
@as_json_option
def enroll(
    identity: str,
    image: str,
    collection: str,
    metadata: str | None,
    replace: bool,
    add: bool,
    face: FaceChoice,
    as_json: bool,
    **store: Any,  # noqa: ANN401 - database_url and models_dir
) -> None:
    """Enrol one photo for an identity. IMAGE may be - for standard input."""
    if replace and add:
        raise click.UsageError("give --replace or --add, not both")
    started = time.perf_counter()

    async def work(context: Context) -> answers.Enrolled:
        result = await context.enrolment.enrol(
            identity_name(identity),
            read_image(image, "image"),
            collection=collection_name(collection),
            metadata=None if metadata is None else _json_object("metadata", metadata),
            replace=replace,
            add=add,
            face=face,
        )
        return answers.enrolled(result, started)

    with open_context(load_settings(**given(**store))) as context:
        answer = run(work(context))
    verb = "replaced" if answer.replaced else "added to" if answer.added else "enrolled"
    text = f"{verb} {answer.identity} in {answer.collection}, revision {answer.revision}"
    _show(answer, text, as_json=as_json)


@click.command()
@click.argument("image", type=click.Path(allow_dash=True))
@click.argument("other_image", required=False, type=click.Path(allow_dash=True))
@click.option("--identity", help="Compare with the photo enrolled for this identity instead of OTHER_IMAGE.")
@collection_option
@_model
@click.option("--max-fmr", type=_rate, help="False match rate that the decision must hold.")
@_threshold
@_point
@_prior
@face_option("largest")
@database_option
@models_dir_option
@as_json_option
def verify(
    image: str,
    other_image: str | None,
    identity: str | None,
    collection: str,
    model: str | None,
    max_fmr: float | None,
    threshold: float | None,
    operating_point: str | None,
    prior: float,
    face: FaceChoice,
    as_json: bool,
    **store: Any,  # noqa: ANN401 - database_url and models_dir
) -> None:
    """Decide whether two images, or an image and an enrolled identity, show the same subject.

    Two images need no store. Exit code 0 for a match, 3 for none.
    """
    if (other_image is None) == (identity is None):
        raise click.UsageError("give a second image or --identity NAME")
    started = time.perf_counter()
    criterion = Criterion(max_fmr=max_fmr, threshold=threshold, operating_point=operating_point)
    if identity is not None:
        name = identity_name(identity)
        with open_context(load_settings(**given(**store)), existing=True) as context:
            result = run(
                context.verification.compare_with_identity(
                    read_image(image, "image"),
                    name,
                    collection=collection_name(collection),
                    model=model,
                    criterion=criterion,
                    face=face,
                )
            )
    else:
        loaded = _open(model, store["models_dir"])
        pair = [read_image(image, "image"), read_image(str(other_image), "other_image")]
        with closing(Workers(0, len(pair))) as workers:
            result = run(compare_images(Images(workers), loaded, pair, criterion, face))
    answer = answers.verified(result, started, prior=prior)
    text = (
        f"{'match' if answer.match else 'no match'}: distance {answer.distance:.4f}, "
        f"threshold {answer.threshold:.4f}{_rates(answer.operating_point)}"
    )
    if answer.fmr_at_distance is not None and answer.probability is not None:
        text += (
            f"\nof strangers {answer.fmr_at_distance:.2g} are as close; one subject with a probability of "
            f"{answer.probability:.2g} if it was {prior:g} before looking"
        )
    _show(answer, text, as_json=as_json)
    sys.exit(0 if answer.match else NO_MATCH)


@click.command()
@click.argument("image", type=click.Path(allow_dash=True))
@collection_option
@click.option(
    "--top-k", type=click.IntRange(1, 100), default=5, show_default=True, help="Candidates to show."
)
@click.option("--max-fpir", type=_rate, help="False positive identification rate to hold.")
@_threshold
@_point
@_prior
@face_option("largest")
@database_option
@models_dir_option
@as_json_option
def identify(
    image: str,
    collection: str,
    top_k: int,
    max_fpir: float | None,
    threshold: float | None,
    operating_point: str | None,
    prior: float,
    face: FaceChoice,
    as_json: bool,
    **store: Any,  # noqa: ANN401 - database_url and models_dir
) -> None:
    """Find who of those enrolled an image shows.

    Exit code 0 when someone matches, 3 when nobody does.
    """
    started = time.perf_counter()
    criterion = Criterion(max_fpir=max_fpir, threshold=threshold, operating_point=operating_point)

    async def work(context: Context) -> answers.Identified:
        result = await context.identification.identify(
            read_image(image, "image"),
            collection=collection_name(collection),
            top_k=top_k,
            criterion=criterion,
            face=face,
        )
        return answers.identified(result, started, prior=prior)

    with open_context(load_settings(**given(**store)), existing=True) as context:
        answer = run(work(context))
    lines = [
        f"{c.rank}. {c.identity}  distance {c.distance:.4f}  {'match' if c.match else 'no match'}"
        for c in answer.candidates
    ]
    lines.append(
        f"{answer.gallery_size} enrolled, threshold {answer.threshold:.4f}{_rates(answer.operating_point)}"
    )
    _show(answer, "\n".join(lines), as_json=as_json)
    sys.exit(0 if answer.match else NO_MATCH)


@click.command()
@click.argument("paths", nargs=-1, required=True, type=click.Path(exists=True))
@click.option(
    "--out", required=True, type=click.Path(path_type=Path, dir_okay=False), help="File to write (.npz)."
)
@_model
@face_option("central")
@models_dir_option
@as_json_option
def embed(
    paths: tuple[str, ...],
    out: Path,
    model: str | None,
    face: FaceChoice,
    models_dir: Path | None,
    as_json: bool,
) -> None:
    """Write the embeddings of images (files, or folders searched for images) to an npz file.

    It holds paths, embeddings float32[N, D] and ok bool[N]; rows of images that could not be used are zero.
    """
    files = expand(paths, IMAGE_SUFFIXES)
    if not files:
        raise InvalidRequestError([{"field": "paths", "problem": "no image files found"}])
    if not out.parent.is_dir():
        raise InvalidRequestError([{"field": "out", "problem": f"there is no folder {out.parent}"}])
    loaded = _open(model, models_dir)
    with progress_bar(len(files), "embedding") as progress:
        result = embed_files(loaded.images, files, face, progress=progress)
    # Opened here, because numpy would add .npz to a name that does not end with it.
    with out.open("wb") as file:
        np.savez(
            file,
            paths=np.array([str(path) for path in result.paths]),
            embeddings=result.embeddings,
            ok=result.ok,
            model=np.array(loaded.model_id),
            model_digest=np.array(loaded.digest),
        )
    failed = {str(p): reason for p, reason in zip(result.paths, result.reasons, strict=True) if reason}
    if as_json:
        print_json({"out": str(out), "images": len(files), "failed": failed, "model": loaded.model_id})
        return
    for path, reason in failed.items():
        click.echo(f"{path}: {reason}", err=True)
    click.echo(f"{out}: {int(result.ok.sum())} of {len(files)} images embedded")


@click.command()
@click.argument("image", type=click.Path(allow_dash=True))
@_model
@models_dir_option
@as_json_option
def detect(image: str, model: str | None, models_dir: Path | None, as_json: bool) -> None:
    """List the faces of an image, best score first."""
    started = time.perf_counter()
    loaded = _open(model, models_dir)
    timings = Timings()
    found, size = loaded.images.detect(read_image(image, "image"), timings)
    answer = answers.detected(loaded, found, size, timings, started)
    lines = [
        f"face at x {f.box.x:.0f}, y {f.box.y:.0f}, {f.box.width:.0f} x {f.box.height:.0f} px, "
        f"score {f.score:.2f}"
        for f in answer.faces
    ]
    _show(answer, "\n".join(lines) or "no face", as_json=as_json)


def _open(model_id: str | None, models_dir: Path | None) -> Model:
    settings = load_settings(**given(models_dir=models_dir))
    return open_model(
        settings.models_dir / (model_id or settings.models[0]),
        provider=settings.provider,
        trusted_keys=settings.trusted_keys,
    )


def _show(answer: Any, text: str, *, as_json: bool) -> None:  # noqa: ANN401 - any answer
    if as_json:
        print_json(answer.model_dump(mode="json"))
    else:
        click.echo(text)


def _rates(point: OperatingPoint) -> str:
    if point.fmr is None:
        return ""
    bound = "" if point.fmr_upper95 is None else f", at most {point.fmr_upper95:.2g} with 95 % confidence"
    fnmr = "not measured" if point.fnmr is None else f"{point.fnmr:.2g}"
    return f" (FMR {point.fmr:.2g}{bound}; FNMR {fnmr})"


def _json_object(field: str, text: str) -> dict[str, Any]:
    try:
        value = json.loads(text)
    except (ValueError, RecursionError):
        value = None
    if not isinstance(value, dict):
        raise InvalidRequestError([{"field": field, "problem": "a JSON object is wanted"}])
    return metadata_object(value, field=field)
