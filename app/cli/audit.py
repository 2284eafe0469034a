"""``visavis audit``: a gallery or a folder of photos looks for its own errors."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any, Final

import click

from app.cli.common import as_json_option, database_option, given, models_dir_option, print_json, progress_bar
from app.context import open_context
from app.encoding.model import Model, open_model
from app.errors import InvalidRequestError
from app.matching.audit import LOOK_ALIKE_RATE, MAX_FALSE_SHARE, MOST_LIKELY_CHANCE, AuditResult
from app.services import audit as auditing
from app.services.audit import Sample, StateFile
from app.services.names import DEFAULT_COLLECTION, collection_name
from app.settings import load_settings

_LINES: Final = 20
"""Findings of a kind in the table; more are counted."""
_ONE_IMAGE_EACH: Final = (
    "mislabels cannot be found: every identity has one image, and one image cannot contradict its name "
    "(give labelled photos with --probes or --data)"
)
_folder = click.Path(path_type=Path, exists=True, file_okay=False)
_file = click.Path(path_type=Path, dir_okay=False)


@click.command()
@click.option("--collection", help=f"Collection to audit.  [default: {DEFAULT_COLLECTION}]")
@click.option("--data", type=_folder, help="Audit photos <subject>/<image> in this folder instead.")
@click.option("--model", help="Model id for --data.  [default: the first of VISAVIS_MODELS]")
@click.option("--probes", type=_folder, help="Labelled photos <identity>/<image> beside the collection.")
@click.option("--html", type=_file, help="Write a page with the findings and their photos.")
@click.option("--state", type=_file, help="File to go on from when the audit was broken off.")
@database_option
@models_dir_option
@as_json_option
def audit(
    collection: str | None,
    data: Path | None,
    model: str | None,
    probes: Path | None,
    html: Path | None,
    state: Path | None,
    as_json: bool,
    **store: Any,  # noqa: ANN401 - database_url and models_dir
) -> None:
    """Find identities that are one person, images under a wrong name, and look-alikes.

    Every finding comes with what chance would do in a gallery of this size. Exit code 0, whatever is found.
    """
    if data is not None and (collection is not None or probes is not None):
        raise click.UsageError("--data is audited without a collection: leave out --collection and --probes")
    if data is None and model is not None:
        raise click.UsageError("--model goes with --data: a collection is bound to its model")
    if html is not None and not html.parent.is_dir():
        raise InvalidRequestError([{"field": "html", "problem": f"there is no folder {html.parent}"}])
    kept = StateFile(state)
    try:
        if data is not None:
            sample, opened = _folder_sample(data, model, store["models_dir"], kept)
            about = {"data": str(data)}
        else:
            name = collection_name(collection or DEFAULT_COLLECTION)
            sample, opened = _collection_sample(name, probes, store, kept)
            about = {"collection": name}
        result = _compared(sample, opened, kept)
    except KeyboardInterrupt:
        if state is not None:
            click.echo(f"\nstopped; the same command goes on from {state}", err=True)
        raise
    if html is not None:
        # Imported here: jinja2 takes longer to load than the rest of this command.
        from app.pages.audit import audit_page  # noqa: PLC0415

        title = next(iter(about.values()))
        page = audit_page(result, sample, title=title, model=opened.model_id)
        html.write_text(page, encoding="utf-8", newline="\n")
    if as_json:
        print_json({**about, **as_answer(result, sample, opened)})
    else:
        click.echo("\n".join(as_lines(result, sample)))


def _folder_sample(
    data: Path, model_id: str | None, models_dir: Path | None, state: StateFile
) -> tuple[Sample, Model]:
    settings = load_settings(**given(models_dir=models_dir))
    files = auditing.labelled_files(data, field="data")
    model = open_model(settings.models_dir / (model_id or settings.models[0]), provider=settings.provider)
    with progress_bar(len(files), "embedding") as progress:
        rows, failed = auditing.embedded(model, files, "central", state, progress=progress)
    return auditing.of_folder(files, rows, failed), model


def _collection_sample(
    name: str, probes: Path | None, store: dict[str, Any], state: StateFile
) -> tuple[Sample, Model]:
    files = [] if probes is None else auditing.labelled_files(probes, field="probes")
    with open_context(load_settings(**given(**store)), existing=True) as context:
        sample, model = auditing.of_collection(context.database, context.models, name)
        if not files:
            return sample, model
        auditing.with_probes(sample, files, sample.embeddings[:0], {path: "" for _, path in files})
        with progress_bar(len(files), "embedding") as progress:
            rows, failed = auditing.embedded(model, files, "central", state, progress=progress)
    return auditing.with_probes(sample, files, rows, failed), model


def _compared(sample: Sample, model: Model, state: StateFile) -> AuditResult:
    work = auditing.prepared(sample, model)
    if auditing.resumed(work, state) is False:
        click.echo("the state is of other images or another revision; comparing anew", err=True)
    with progress_bar(work.steps, "comparing") as progress:
        progress(work.steps_done)
        return auditing.compared(work, state, progress=progress)


def as_answer(result: AuditResult, sample: Sample, model: Model) -> dict[str, object]:
    """Return the findings as plain values for JSON."""
    names, images = sample.names, sample.images

    def file_of(row: int) -> str | None:
        return None if images[row] is None else str(images[row])

    judged = result.judged_images > 0
    return {
        "model": model.model_id,
        "revision": sample.revision,
        "identities": result.identities,
        "images": result.images,
        "unusable": {str(path): reason for path, reason in sample.unusable},
        "identity_pairs": result.pairs,
        "comparisons": result.compared,
        "operating_points": [
            {
                **total.point.model_dump(mode="json"),
                "expected": total.expected,
                "expected_upper95": total.expected_upper95,
                "seen": total.seen,
            }
            for total in result.totals
        ],
        "rule": {
            "max_false_share": MAX_FALSE_SHARE,
            "most_likely_chance": MOST_LIKELY_CHANCE,
            "look_alike_rate": LOOK_ALIKE_RATE,
        },
        "evidence": {
            "source": model.manifest.evidence.source,
            "subjects": model.evidence.subjects,
            "excess_false_matches": result.chance.excess,
            "excess_at": result.chance.excess_at,
        },
        "duplicates": [
            {
                "identities": [names[pair.first], names[pair.second]],
                "distance": pair.distance,
                "fmr": pair.fmr,
                "expected": pair.expected,
                "expected_upper95": pair.expected_upper95,
                "found": pair.found,
                "false_share": pair.false_share,
                "chance": pair.chance,
                "likely": pair.likely,
            }
            for pair in result.duplicates
        ],
        "groups": [[names[label] for label in group] for group in result.groups],
        "mislabels": {
            "judged_images": result.judged_images,
            "note": None if judged else _ONE_IMAGE_EACH,
            "swapped": [
                {
                    "image": file_of(one.image),
                    "identity": names[one.label],
                    "nearest": names[one.nearest],
                    "own_distance": one.own_distance,
                    "distance": one.distance,
                    "expected": one.expected,
                    "false_share": one.false_share,
                    "chance": one.chance,
                }
                for one in result.swapped
            ],
            "strangers": [
                {
                    "image": file_of(one.image),
                    "identity": names[one.label],
                    "own_distance": one.own_distance,
                    "probability": one.probability,
                }
                for one in result.strangers
            ],
            "mixed": [
                {"identity": names[one.label], "images": one.images, "distance": one.distance}
                for one in result.mixed
            ],
        },
        "look_alikes": {
            "operating_point": result.look_alike_point.name,
            "found": [
                {
                    "identity": names[one.label],
                    "matches": one.matches,
                    "expected": one.expected,
                    "p": one.p,
                    "false_share": one.false_share,
                }
                for one in result.look_alikes
            ],
        },
    }


def as_lines(result: AuditResult, sample: Sample) -> list[str]:
    """Return the findings as a table of text."""
    names, images = sample.names, sample.images
    revision = "" if sample.revision is None else f", revision {sample.revision}"
    lines = [
        f"{result.images:,} images of {result.identities:,} identities{revision}; "
        f"{result.compared:,} comparisons of different identities"
    ]
    if sample.unusable:
        first, reason = sample.unusable[0]
        lines.append(f"{len(sample.unusable):,} images could not be used, such as {first}: {reason}")
    for total in result.totals:
        expected = "unknown" if total.expected is None else f"{total.expected:,.1f}"
        upper = "" if total.expected_upper95 is None else f" (at most {total.expected_upper95:,.1f})"
        lines.append(f"  {total.point.name}: {total.seen:,} match, {expected} expected by chance{upper}")
    lines += _listed(
        "likely duplicates",
        [
            f"{names[pair.first]} = {names[pair.second]}  distance {pair.distance:.4f}, "
            f"{pair.expected:.2g} expected by chance, chance {pair.chance:.2g}"
            for pair in result.duplicates
            if pair.likely
        ],
    )
    larger = [group for group in result.groups if len(group) > 2]
    lines += [f"  one person: {' = '.join(names[label] for label in group)}" for group in larger[:_LINES]]
    if not result.judged_images:
        lines.append(_ONE_IMAGE_EACH)
    else:
        lines += _listed(
            "images of another identity",
            [
                f"{images[one.image] or 'the reference'} of {names[one.label]} is probably "
                f"{names[one.nearest]}  distance {one.distance:.4f}, to its own {one.own_distance:.4f}, "
                f"chance {one.chance:.2g}"
                for one in result.swapped
            ],
        )
        lines += _listed(
            "images of a stranger, or unusable",
            [
                f"{images[one.image] or 'the reference'} of {names[one.label]}  distance to its own "
                f"{one.own_distance:.4f}, probability {one.probability:.2g}"
                for one in result.strangers
            ],
        )
        lines += _listed(
            "identities that hold several people",
            [
                f"{names[one.label]}  {one.images} images, typical distance {one.distance:.4f}"
                for one in result.mixed
            ],
        )
    lines += _listed(
        f"look-alikes at {result.look_alike_point.name}",
        [
            f"{names[one.label]}  matches {one.matches:.3g} others, {one.expected:.3g} expected, "
            f"chance {one.p:.2g}"
            for one in result.look_alikes
        ],
    )
    return lines


def _listed(title: str, findings: Sequence[str]) -> list[str]:
    lines = [f"{title}: {len(findings):,}" if findings else f"{title}: none"]
    lines += [f"  {finding}" for finding in findings[:_LINES]]
    if len(findings) > _LINES:
        lines.append(f"  and {len(findings) - _LINES:,} more; --json and --html have them")
    return lines
