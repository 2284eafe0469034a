"""Whether the tables of a recipe fit one another: data, encoders, objective, batches, metric."""

from __future__ import annotations

from collections.abc import Iterator
from itertools import chain
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from training.config import RunConfig

TEXT_SOURCES = {"questions", "stsb", "pairs", "smoke-paraphrases"}
TWO_KIND_SOURCES = {"mnist-and-names", "smoke-digits-and-names"}
TEXT_ENCODERS = {"average-pooling", "lstm-mean"}


def misfit(config: RunConfig) -> str | None:
    """Return what does not fit and what would, or None."""
    return next(chain(_encoders(config), _batches(config), _measures(config)), None)


def _encoders(config: RunConfig) -> Iterator[str]:
    source, kind = config.data.source, config.encoder.kind
    text = source in TEXT_SOURCES
    if text != (kind in TEXT_ENCODERS):
        wanted = " or ".join(sorted(TEXT_ENCODERS)) if text else "one for images"
        yield f"encoder {kind} does not take the data of {source}; {wanted} does"
    if source not in TWO_KIND_SOURCES:
        if config.right_encoder is not None:
            yield f"data {source} has one kind of input, for which right_encoder is one too many"
    elif config.right_encoder is None or config.right_encoder.kind not in TEXT_ENCODERS:
        yield f"data {source} needs a right_encoder: {' or '.join(sorted(TEXT_ENCODERS))}"


def _batches(config: RunConfig) -> Iterator[str]:
    objective, batches, source = config.objective.kind, config.batches, config.data.source
    if batches.kind == "pairs":
        if objective in {"margin-softmax", "triplet", "closest-negatives"}:
            yield f"objective {objective} needs batches of kind pk, which say who is whom"
        if batches.array is not None and source in TEXT_SOURCES | TWO_KIND_SOURCES:
            yield f"batches.array is for images alone, not for {source}"
        return
    if config.right_encoder is not None:
        yield "two encoders need batches of kind pairs"
    if objective == "pair-features":
        yield "objective pair-features needs batches of kind pairs"
    if objective == "closest-negatives" and batches.samples != 2:
        yield f"objective closest-negatives needs batches.samples = 2, one a view, not {batches.samples}"
    if objective != "margin-softmax" and batches.samples < 2:
        yield f"objective {objective} needs batches.samples of 2 at least: mated pairs come from the batch"
    if objective == "margin-softmax" and source in TEXT_SOURCES:
        yield "objective margin-softmax classifies subjects, which pairs of texts do not have"


def _measures(config: RunConfig) -> Iterator[str]:
    if config.export.shifts and not getattr(config.encoder, "ink", False):
        yield f"export.shifts are for encoders of drawings (residual with ink), not for {config.encoder.kind}"
    if config.objective.kind == "weighted-l1" and config.metric != "l1":
        yield f'objective weighted-l1 needs metric = "l1", not "{config.metric}": its weights are folded in'
    if config.loop.best_by == "oneshot" and config.data.source in TEXT_SOURCES | TWO_KIND_SOURCES:
        yield f'loop.best_by: {config.data.source} has no one-shot trials; "eer" or "last"'
