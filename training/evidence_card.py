"""The part of a model card that follows from the evidence, between two markers.

Whoever measures anew replaces that part and leaves the rest of the card as it is.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, Final

from app.encoding.manifest import EvidenceSummary
from training.measurement import GALLERIES

BEGIN: Final = "<!-- evidence -->"
END: Final = "<!-- /evidence -->"

PLOTS: Final = {
    "evidence-det.png": "FNMR against FMR of these trials, with the operating points",
    "evidence-distances.png": "Distances of mated and of non-mated trials, with the thresholds",
    "reliability.png": "Stated probability against the share that is mated, on trials it was not fitted on",
}
"""Files that may stand beside the card, with what they show."""


class CardError(ValueError):
    """A model card has one marker of the evidence without the other."""


def with_evidence(card: str, section: str) -> str:
    r"""Return the card with its part about the evidence replaced.

    Args:
        card: Text of ``MODEL_CARD.md``; may be empty.
        section: What ``evidence_section`` returned.

    Raises:
        CardError: One marker stands without the other, or they stand in the wrong order.

    >>> with_evidence("a\n<!-- evidence -->\nold\n<!-- /evidence -->\nb\n", "S")
    'a\nS\nb\n'
    """
    begin, end = card.find(BEGIN), card.find(END)
    if (begin < 0) != (end < 0) or end < begin:
        raise CardError(f"the model card must have both {BEGIN} and {END}, in this order, or neither")
    if begin >= 0:
        return card[:begin] + section + card[end + len(END) :]
    part = f"## Thresholds and evidence\n\n{section}\n"
    before, heading, after = card.partition("\n## Plots")
    if heading:
        return f"{before}\n{part}{heading}{after}"
    return f"{card.rstrip()}\n\n{part}".lstrip()


def evidence_section(
    summary: EvidenceSummary,
    results: Mapping[str, Any],
    *,
    metric: str,
    plots: Sequence[str] = (),
    about: str = "",
    unit: str = "subjects",
    how: str = "with the exported graph",
) -> str:
    """Return the part of the card, markers included.

    Args:
        summary: Of ``evidence.npz``.
        results: See ``training.measurement``.
        metric: Of the model.
        plots: Files among ``PLOTS`` that stand beside the card.
        about: What the images are, in words; a paragraph or more.
        unit: What bounds count as independent.
        how: The trials were run, in words.
    """
    paragraphs = [
        *([about] if about else []),
        _measured(summary, results, how),
        _points(results["operating_points"]),
        f"Thresholds are {metric} distances. Bounds and intervals are of 95 % and take {unit}, not pairs, "
        "for independent. Other images than these will have other rates.",
    ]
    if "label_errors" in results:
        paragraphs += _label_errors(results)
    if "galleries" in results:
        paragraphs += _galleries(results["galleries"])
    if "probability" in results:
        paragraphs.append(_probability(results["probability"], unit))
    if "cohorts" in results:
        paragraphs += _cohorts(results["cohorts"])
    paragraphs += [f"![{PLOTS[name]}]({name})" for name in PLOTS if name in plots]
    return "\n\n".join([BEGIN, *paragraphs, END])


def _measured(summary: EvidenceSummary, results: Mapping[str, Any], how: str) -> str:
    failed = f"{summary.failures_to_acquire:,} of {summary.images:,} images"
    reasons = ", ".join(f"{code} {count:,}" for code, count in results["failures_to_acquire"].items())
    return (
        f"Thresholds: {summary.source}, {how}. "
        f"{summary.mated:,} mated and {summary.nonmated:,} non-mated trials. Failures to acquire: {failed}"
        + (f" ({reasons})." if reasons else ".")
    )


def _points(points: Sequence[Mapping[str, Any]]) -> str:
    rows = [
        [
            f"`{point['name']}`",
            f"{point['threshold']:.4f}",
            _small(point["fmr"]),
            _small(point["fmr_upper95"]),
            _rate(point["fnmr"]),
            _span(point),
        ]
        for point in points
    ]
    return _table(["operating point", "threshold", "FMR", "95 % upper bound", "FNMR", "95 % interval"], rows)


def _label_errors(results: Mapping[str, Any]) -> list[str]:
    found = results["label_errors"]
    how = (
        "Likely label errors are found by the rule of `visavis audit`, which asks how close different people "
        "come by chance and does not look at these rates. The thresholds above come from all labels as they "
        "are."
    )
    if "subjects_without" not in found:
        return [f"{how} None were found."]
    kinds = [
        f"{found['subjects_taken_as_one']} subject names whose subject has another name as well",
        f"{found['images_of_another_subject']} images of another subject",
        f"{found['copies_under_two_subjects']} photos that occur under two subjects",
    ]
    rows = []
    for point in results["operating_points"]:
        without = point["without_label_errors"]
        same = without["same_threshold"]
        own = without["threshold"]
        rows.append(
            [
                f"`{point['name']}`",
                f"{_small(same['fmr'])} ({_small(same['fmr_upper95'])})",
                f"{_rate(same['fnmr'])} {_span(same)}",
                "not supported" if own is None else f"{own:.4f}",
                "" if own is None else f"{_rate(without['fnmr'])} {_span(without)}",
            ]
        )
    return [
        f"{how} Found: {', '.join(kinds)}. Without them ({found['images_left_out']} images left out, "
        f"{found['subjects_without']} subjects):",
        _table(
            [
                "operating point",
                "FMR at its threshold (upper bound)",
                "FNMR there",
                "threshold would be",
                "FNMR there",
            ],
            rows,
        ),
    ]


def _galleries(galleries: Mapping[str, Mapping[str, Mapping[str, Any]]]) -> list[str]:
    rows = [
        [f"`max_fpir` {max_fpir}", *(_gallery(sizes[str(size)]) for size in GALLERIES)]
        for max_fpir, sizes in galleries.items()
    ]
    return [
        "Identification: the threshold by number of identities enrolled, and in brackets the 95 % upper "
        "bound of the false positive identification rate there.",
        _table(["asked for", *(f"{size:,} enrolled" for size in GALLERIES)], rows),
    ]


def _gallery(point: Mapping[str, Any]) -> str:
    if not point["supported"]:
        return f"not supported (smallest {point['smallest_supported']:.2g})"
    return f"{point['threshold']:.4f} ({_rate(point['fpir_upper95'], 3)})"


def _probability(error: Mapping[str, Any], unit: str) -> str:
    def mean_and_range(name: str) -> str:
        low, high = error[f"{name}_range"]
        return f"{error[name]:.4f} ({low:.4f} to {high:.4f})"

    return (
        f"Probabilities: likelihood ratios fitted on half of the {unit} and checked on the other half, "
        f"{error['splits']} times, at prior 0.5: expected calibration error {mean_and_range('ece')}, Brier "
        f"score {mean_and_range('brier')}, Cllr {mean_and_range('cllr')} bits (0.25 and 1 for knowing "
        "nothing). In brackets the smallest and the largest."
    )


def _cohorts(report: Mapping[str, Any]) -> list[str]:
    rows = [
        [
            str(cohort["cohort"]).replace("|", "\\|"),
            f"{cohort['subjects']:,}",
            *(_share(cohort[name]) for name in ("fnmr", "fmr_within", "fmr_others")),
        ]
        for cohort in [*report["cohorts"], report["suppressed_together"]]
        if cohort is not None
    ]
    hidden = [str(cohort["cohort"]) for cohort in report["suppressed"]]
    return [
        f"By cohort, at the threshold {report['threshold']:.4f}"
        + (f"; not shown one by one: {', '.join(hidden)}." if hidden else "."),
        _table(["cohort", "subjects", "FNMR", "FMR within", "FMR against others"], rows),
    ]


def _share(share: Mapping[str, Any]) -> str:
    span = "" if share["lower95"] is None else f" [{share['lower95']:.2g}, {share['upper95']:.2g}]"
    return f"{share['rate']:.2g}{span}" if share["supported"] else f"withheld{span}"


def _table(heads: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    lines = [heads, ["---"] * len(heads), *rows]
    return "\n".join(f"| {' | '.join(line)} |" for line in lines)


def _small(rate: float | None) -> str:
    return "" if rate is None else f"{rate:.2e}"


def _rate(rate: float | None, digits: int = 4) -> str:
    return "" if rate is None else f"{rate:.{digits}f}"


def _span(rates: Mapping[str, float | None]) -> str:
    lower, upper = rates["fnmr_lower95"], rates["fnmr_upper95"]
    return "" if lower is None or upper is None else f"[{lower:.4f}, {upper:.4f}]"
