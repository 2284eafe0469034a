"""Compare the losses on Omniglot: one encoder, one budget, several seeds; writes a table and JSON.

    python -m benchmarks.losses --data data --out runs/losses --table FILE.md

Everything but the objective is the same for all: a small residual encoder of 28 x 28 pixels with unit
embeddings, batches of 64 characters with 2 samples each, the same steps, optimiser and augmentation. Each
objective has the margin that its source or common use suggests; none was tuned here. Trained on Omniglot's
background set; measured, with the exported graph, on ten alphabets of the evaluation set.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import click
import numpy as np

from app.cli.common import progress_bar
from training.config import RunConfig

OBJECTIVES: dict[str, dict[str, Any]] = {
    "contrastive": {"objective": {"kind": "contrastive", "margin": 1.0}},
    "triplet, semi-hard": {"objective": {"kind": "triplet", "mining": "semi_hard", "margin": 0.2}},
    "triplet, batch-hard": {
        "objective": {"kind": "triplet", "mining": "batch_hard", "margin": 0.2, "squared": False}
    },
    "mean + closest negatives": {"objective": {"kind": "closest-negatives", "margin": 0.25}},
    "Koch (weighted L1)": {"objective": {"kind": "weighted-l1"}, "metric": "l1"},
    "margin softmax": {"objective": {"kind": "margin-softmax", "scale": 30.0, "margin": 0.3}},
}

STEPS = 1000


def configuration(name: str, seed: int, steps: int) -> RunConfig:
    """Return the run of one objective and seed."""
    return RunConfig.model_validate(
        {
            "name": "losses",
            "summary": name,
            "seed": seed,
            "data": {
                "source": "omniglot",
                "input": {"height": 28, "width": 28, "channels": 1},
                "turns": 4,
            },
            "encoder": {
                "kind": "residual",
                "stem": 16,
                "widths": (32, 64, 128),
                "blocks": (1, 1, 1),
                "dimensions": 128,
                "dropout": 0.0,
            },
            "batches": {"kind": "pk", "subjects": 64, "samples": 2},
            "augmentation": {
                "fill": 255,
                "affine": {"rotation_deg": 12, "zoom": 0.15, "shear": 0.2, "shift": 0.06},
            },
            "optimiser": {
                "kind": "adamw",
                "learning_rate": 0.002,
                "weight_decay": 0.01,
                "schedule": "cosine",
                "warmup_steps": 50,
            },
            "loop": {"steps": steps, "epoch": steps // 4},
            **OBJECTIVES[name],
        }
    )


def measure(config: RunConfig, parts: Any, data_dir: Path, folder: Path) -> dict[str, float]:  # noqa: ANN401
    """Train one encoder and return its figures, as ``name``, ``name_lower95`` and ``name_upper95``."""
    from app.encoding.onnx_session import Graph  # noqa: PLC0415
    from training import export  # noqa: PLC0415
    from training.embedding import embed_images  # noqa: PLC0415
    from training.runs.image_results import measure_images  # noqa: PLC0415
    from training.runs.images import batches, build_learner, exportable  # noqa: PLC0415
    from training.train import train  # noqa: PLC0415

    learner = build_learner(config, parts)
    with progress_bar(config.loop.steps, f"{config.summary}, seed {config.seed}") as progress:
        trained = train(
            learner, lambda first: batches(config, parts, first), config, folder, progress=progress
        )
    export.write_encoder(exportable(learner), folder, parts.test.images.images[:64])
    graph = Graph(folder / "encoder.onnx", "cpu")
    measured = measure_images(
        config,
        lambda images: embed_images(graph, images),
        parts.test,
        validation=None,
        train=parts.train,
        threshold=0.0,
        data_dir=data_dir,
    )
    values = measured.values
    one_shot = values["oneshot"]["model, within alphabets"][-1]
    at = values["verification"]["fnmr_at_fmr"]["0.01"]
    return {
        "oneshot": one_shot["error_rate"],
        "oneshot_lower95": one_shot["error_rate_lower95"],
        "oneshot_upper95": one_shot["error_rate_upper95"],
        "eer": values["verification"]["eer"],
        "eer_lower95": values["verification"]["eer_lower95"],
        "eer_upper95": values["verification"]["eer_upper95"],
        "fnmr": at["fnmr"],
        "fnmr_lower95": at["fnmr_lower95"],
        "fnmr_upper95": at["fnmr_upper95"],
        "official_runs": values["official_runs"]["error_rate"],
        "seconds": trained.seconds,
    }


def table(results: dict[str, list[dict[str, float]]], steps: int) -> str:
    """Return the page of the comparison."""
    seeds = len(next(iter(results.values())))
    lines = [
        "# Losses compared",
        "",
        "Written by `python -m benchmarks.losses`, which says what is held equal. One small encoder, "
        f"{steps} steps of 128 images, {seeds} seeds; each figure is the mean over the seeds, with the range "
        "of the seeds' 95 % intervals (by alphabet for one-shot, by resampling characters for the others). "
        "Smaller is better everywhere.",
        "",
        "| loss | 20-way one-shot error, within alphabets | EER | FNMR at FMR 1e-2 | official 20 runs |",
        "|---|---|---|---|---|",
    ]
    for name, runs in sorted(results.items(), key=lambda item: np.mean([r["oneshot"] for r in item[1]])):
        cells = [_cell(runs, key) for key in ("oneshot", "eer", "fnmr")]
        official = np.mean([run["official_runs"] for run in runs])
        lines.append(f"| {name} | {' | '.join(cells)} | {official:.3f} |")
    return "\n".join(lines) + "\n"


def _cell(runs: list[dict[str, float]], key: str) -> str:
    mean = np.mean([run[key] for run in runs])
    low, high = min(run[f"{key}_lower95"] for run in runs), max(run[f"{key}_upper95"] for run in runs)
    return f"{mean:.3f} [{low:.3f}, {high:.3f}]"


@click.command(help=__doc__)
@click.option("--data", type=click.Path(path_type=Path, exists=True), default=Path("data"))
@click.option("--out", type=click.Path(path_type=Path), default=Path("runs/losses"))
@click.option("--table", "page", type=click.Path(path_type=Path), help="page to write")
@click.option("--seeds", default=3, show_default=True)
@click.option("--steps", default=STEPS, show_default=True)
def main(data: Path, out: Path, page: Path | None, seeds: int, steps: int) -> None:
    """Run what is missing in the folder, then write the table."""
    from training.data.parts import load_image_parts  # noqa: PLC0415

    results: dict[str, list[dict[str, float]]] = {name: [] for name in OBJECTIVES}
    parts = None
    for seed in range(1, seeds + 1):
        for name in OBJECTIVES:
            folder = out / f"{'-'.join(name.replace(',', '').split())}-{seed}"
            known = folder / "figures.json"
            if not known.is_file():
                config = configuration(name, seed, steps)
                # The split belongs to the first seed: all runs are measured on the same alphabets.
                parts = parts or load_image_parts(configuration(name, 1, steps), data)
                figures = measure(config, parts, data, folder)
                known.write_text(json.dumps(figures, indent=1) + "\n", encoding="utf-8")
                click.echo(f"{name}, seed {seed}: {figures['oneshot']:.4f} {figures['eer']:.4f}")
            results[name].append(json.loads(known.read_text(encoding="utf-8")))
    (out / "results.json").write_text(json.dumps(results, indent=1) + "\n", encoding="utf-8")
    text = table(results, steps)
    click.echo(text)
    if page is not None:
        page.write_text(text, encoding="utf-8")


if __name__ == "__main__":
    main()
