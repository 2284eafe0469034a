"""How often the stated 95 % bounds hold: evidence drawn from a law whose error rates are known.

    python -m benchmarks.coverage --out runs/coverage.json --table FILE.md

A set of evidence is 300 subjects with two images each, all compared with all. The score of two images is
normal; part of its variance belongs to the subjects (some resemble many others), part to the images, the
rest to the pair. So people differ in how often they false-match, and the true rates follow from the normal
distribution. The law ``few wolves`` gives 3 % of the subjects a shift instead, which is harder: a set of 300
may hold four of them or fifteen.

For each set the bound is asked for at a given threshold and at the one that ``threshold_for`` chooses on
that same set, and held against the true rate there. Beside it stand the bound that takes pairs for
independent, and an oracle's, which knows how much the estimate varies from set to set. FPIR likewise, in
galleries of 50 and, beyond the subjects measured, of 1,000.
"""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path
from statistics import NormalDist
from typing import Any

import click
import numpy as np

from app.cli.common import progress_bar
from app.matching.bounds import wilson_upper
from app.matching.evidence import Evidence
from app.matching.open_set import open_set_curve

SUBJECTS, IMAGES = 300, 2
TAIL_SHARE = 0.03
TARGETS = (1e-2, 1e-3)
GALLERIES = (50, 1000)
FPIR_TARGET = 0.1
FAR = 10.0
"""Distance is this less the score."""
NORMAL = NormalDist()


@dataclass(frozen=True)
class Law:
    """How scores come about.

    Attributes:
        name: For the table.
        subject: Share of the score's variance that each of the two subjects brings.
        image: Share that each of the two images brings.
        wolves: Share of subjects whose scores are shifted.
        shift: By how much.
    """

    name: str
    subject: float
    image: float
    wolves: float = 0.0
    shift: float = 0.0

    def draw(self, rng: np.random.Generator) -> Evidence:
        """Return a set of evidence."""
        subject = rng.standard_normal(SUBJECTS) * np.sqrt(self.subject)
        subject += (rng.random(SUBJECTS) < self.wolves) * self.shift
        labels = np.repeat(np.arange(SUBJECTS), IMAGES)
        of_image = subject[labels] + rng.standard_normal(labels.size) * np.sqrt(self.image)
        first, second = np.triu_indices(labels.size, 1)
        others = labels[first] != labels[second]
        first, second = first[others], second[others]
        rest = np.sqrt(1.0 - 2.0 * self.subject - 2.0 * self.image)
        score = of_image[first] + of_image[second] + rest * rng.standard_normal(first.size)
        keep = int(score.size * TAIL_SHARE)
        nearest = np.argpartition(-score, keep - 1)[:keep]
        nearest = nearest[np.argsort(-score[nearest], kind="stable")]
        distance = FAR - score[nearest]
        images = np.stack([first[nearest], second[nearest]], axis=1)
        return Evidence(
            mated_distance=np.empty(0),
            mated_subject=np.empty(0, np.int32),
            nonmated_distance=distance,
            nonmated_subjects=labels[images].astype(np.int32),
            nonmated_total=int(score.size),
            subjects=SUBJECTS,
            open_set=open_set_curve(distance, images, labels),
        )

    def fmr(self, threshold: float) -> float:
        """Return the true false match rate."""
        return self._mixed(threshold, both=True)

    def fpir(self, threshold: float, size: int) -> float:
        """Return the true false positive identification rate of galleries of a size."""
        # Over what a probe brings, by Gauss and Hermite; the gallery's images are independent given it.
        node, weight = np.polynomial.hermite_e.hermegauss(80)
        weight = weight / weight.sum()
        own = np.sqrt(self.subject + self.image)
        total = 0.0
        for shift, share in ((0.0, 1.0 - self.wolves), (self.shift, self.wolves)):
            if share:
                match = np.array([self._mixed(threshold + own * x + shift, both=False) for x in node])
                total += share * float(weight @ -np.expm1(size * np.log1p(-match)))
        return total

    def _mixed(self, threshold: float, *, both: bool) -> float:
        """Return the chance of a score of ``FAR - threshold`` or more, over wolves on both sides or one."""
        left = 1.0 if both else 1.0 - self.subject - self.image
        weights = [(0.0, 1.0 - self.wolves), (self.shift, self.wolves)]
        sides = [(a + b, p * q) for a, p in weights for b, q in weights] if both else weights
        wanted = FAR - threshold
        return sum(p * NORMAL.cdf((shift - wanted) / np.sqrt(left)) for shift, p in sides if p)

    def threshold(self, fmr: float) -> float:
        """Return the threshold with a true false match rate, by bisection."""
        return bisected(self.fmr, fmr)


LAWS = (
    Law("alike", 0.0, 0.05),
    Law("subjects differ", 0.05, 0.05),
    Law("subjects differ much", 0.1, 0.05),
    Law("subjects differ very much", 0.2, 0.05),
    Law("few wolves", 0.03, 0.05, wolves=0.03, shift=0.7),
)


def bisected(rate: Any, target: float) -> float:  # noqa: ANN401 - float to float
    """Return where a rising rate reaches a target."""
    low, high = 0.0, FAR
    for _ in range(60):
        middle = (low + high) / 2.0
        low, high = (middle, high) if rate(middle) < target else (low, middle)
    return (low + high) / 2.0


def pair_bound(rate: float, trials: int) -> float:
    """Return the bound that takes every trial for independent."""
    return wilson_upper(rate, trials) if rate else 3.0 / trials


def simulate(law: Law, sets: int, seed: int) -> dict[str, Any]:
    """Draw sets of evidence and return how often the bounds hold, and how wide they are."""
    rng = np.random.default_rng(seed)
    given = {f"FMR {target:g}": law.threshold(target) for target in TARGETS}
    given |= {
        f"FPIR {FPIR_TARGET:g} at {size}": bisected(lambda t, n=size: law.fpir(t, n), FPIR_TARGET)
        for size in GALLERIES
    }
    seen: dict[str, list[tuple[float, float, float, bool]]] = {name: [] for name in given}
    with progress_bar(sets, law.name) as progress:
        for _ in range(sets):
            evidence = law.draw(rng)
            for target in TARGETS:
                name = f"FMR {target:g}"
                rate, bound = evidence.fmr(given[name]), evidence.fmr_upper95(given[name])
                if rate is None or bound is None:
                    continue  # the tail ends before this threshold in this set
                chosen = evidence.threshold_for(target)
                at_chosen = evidence.fmr_upper95(chosen)
                held = at_chosen is not None and at_chosen >= law.fmr(chosen)
                seen[name].append((rate, bound, pair_bound(rate, evidence.nonmated_total), held))
            for size in GALLERIES:
                name = f"FPIR {FPIR_TARGET:g} at {size}"
                both = evidence.fpir(given[name], size)
                if both is None:
                    continue
                point = evidence.point_for_fpir(FPIR_TARGET, size)
                again = evidence.fpir(point.threshold, size)
                held = again is not None and again[1] >= law.fpir(point.threshold, size)
                seen[name].append((*both, pair_bound(both[0], SUBJECTS * IMAGES), held))
            progress(1)
    return {name: summary(rows, _truth(name)) for name, rows in seen.items()}


def _truth(name: str) -> float:
    return float(name.split()[1])


def summary(rows: list[tuple[float, float, float, bool]], truth: float) -> dict[str, float]:
    """Return coverage and width of the bounds over the sets."""
    rate, bound, pairs = (np.array([row[i] for row in rows]) for i in range(3))
    oracle = 1.645 * float(rate.std())
    return {
        "sets": len(rows),
        "mean_rate": float(rate.mean()),
        "coverage": float((bound >= truth).mean()),
        "coverage_at_chosen_threshold": float(np.mean([row[3] for row in rows])),
        "coverage_by_pairs": float((pairs >= truth).mean()),
        "width_over_oracle": float(np.median(bound - rate)) / oracle,
    }


@click.command(help=__doc__)
@click.option("--sets", default=1000, show_default=True)
@click.option("--seed", default=0, show_default=True)
@click.option("--out", type=click.Path(path_type=Path), default=Path("runs/coverage.json"))
@click.option("--table", "page", type=click.Path(path_type=Path), help="page to write")
def main(sets: int, seed: int, out: Path, page: Path | None) -> None:
    """Simulate every law and write the table."""
    results = {law.name: simulate(law, sets, seed) for law in LAWS}
    out.parent.mkdir(parents=True, exist_ok=True)
    out.write_text(json.dumps(results, indent=1) + "\n", encoding="utf-8")
    lines = [
        "| law | true rate | bound held | at the threshold chosen on the set | bound by pairs held | "
        "width / oracle |",
        "|---|---|---|---|---|---|",
    ]
    for law, by_rate in results.items():
        for name, of in by_rate.items():
            lines.append(
                f"| {law} | {name} | {of['coverage']:.3f} | {of['coverage_at_chosen_threshold']:.3f} | "
                f"{of['coverage_by_pairs']:.3f} | {of['width_over_oracle']:.2f} |"
            )
    text = "\n".join(lines) + "\n"
    click.echo(text)
    if page is not None:
        page.write_text(text, encoding="utf-8")


if __name__ == "__main__":
    main()
