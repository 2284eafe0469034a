"""Error rates by cohort, as a table in text."""

from __future__ import annotations

from collections.abc import Iterator

from app.cli.common import span
from app.matching.cohorts import CohortReport, Share


def cohort_lines(report: CohortReport, name: str) -> Iterator[str]:
    """Yield the lines of the table.

    Args:
        report: At one threshold.
        name: What the threshold is called.
    """
    every = [*report.cohorts, *([report.together] if report.together else [])]
    width = max([*(len(cohort.name) for cohort in every), 8]) + 2
    yield f"{f'at {name}':<{width}}{'subjects':<10}{'FNMR':<26}{'FMR within':<31}FMR against others"
    for cohort in every:
        yield (
            f"{cohort.name:<{width}}{cohort.subjects:<10}{_cell(cohort.fnmr, '.4f'):<26}"
            f"{_cell(cohort.fmr_within, '.2e'):<31}{_cell(cohort.fmr_others, '.2e')}"
        )
    for hidden in report.suppressed:
        yield f"{hidden.name}: not shown on its own; {hidden.reason}"
    for cohort in every:
        for title, share in (("FMR within", cohort.fmr_within), ("FMR against others", cohort.fmr_others)):
            if share.rate is None:
                yield f"{cohort.name}: {title} withheld; {share.reason}"
    yield f"largest to smallest FNMR: {report.fnmr_ratio.in_words}"
    yield f"largest to smallest FMR within: {report.fmr_ratio.in_words}"


def _cell(share: Share, style: str) -> str:
    rate = "withheld" if share.rate is None else f"{share.rate:{style}}"
    if share.lower95 is None or share.upper95 is None:
        return rate
    return f"{rate}  {span((share.lower95, share.upper95), style)}"
