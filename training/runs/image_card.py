"""The model card of a trained bundle: what it is for, what it was measured on, what to beware of."""

from __future__ import annotations

from collections.abc import Sequence

from training.config import CharactersData, DigitsData, RunConfig
from training.data.parts import ImageParts
from training.evidence_card import evidence_section
from training.measured_evidence import MeasuredEvidence, summary_of
from training.runs.image_results import Measured
from training.train import Trained


def model_card(
    config: RunConfig,
    parts: ImageParts,
    trained: Trained,
    evidence: MeasuredEvidence,
    measured: Measured,
    *,
    plots: Sequence[str] = (),
) -> str:
    """Return ``MODEL_CARD.md``.

    Args:
        config: Of the run.
        parts: Its data.
        trained: Its weights.
        evidence: Of the calibration part.
        measured: On the test part.
        plots: Of the evidence, that lie beside the card.
    """
    size = parts.input
    rates = measured.values["verification"]
    sections = [
        f"# Model card: `{config.name}`",
        f"{config.summary}. An image, brought to {size.width} x {size.height} pixels and "
        f"{'colour' if size.channels > 1 else 'grey'}, becomes {measured.embeddings.shape[1]} numbers; two "
        f"images are compared by the {config.metric} distance of theirs, smaller is closer.",
        "## What it is for, and what not",
        _purpose(config),
        "## Where the weights come from",
        f"{_start(config)} ({trained.step} steps, seed {config.seed}, recipe `{config.name}`).",
        "\n".join(
            f"- {item['name']}: {item.get('role', 'trained on')}; licence {item['licence']}"
            for item in parts.datasets
        ),
        "## What was measured",
        evidence_section(
            summary_of(evidence),
            evidence.results,
            metric=config.metric,
            plots=plots,
            unit="images" if parts.closed else "subjects",
        ),
        f"On {_tested_on(parts)} (`results` in `manifest.json`): EER {rates['eer']:.4f} "
        f"[{rates['eer_lower95']:.4f}, {rates['eer_upper95']:.4f}]." + _one_shot(measured),
        "Its interval is of 95 %, by resampling subjects.",
        "## Plots of the test part",
        "![FNMR against FMR, with the operating points](det.png)",
        "![Distances of mated and of non-mated trials, with the thresholds](distances.png)",
        "![Embeddings before and after training, two principal components](pca.png)",
    ]
    return "\n\n".join(sections) + "\n"


def _start(config: RunConfig) -> str:
    if config.encoder.kind == "mobilefacenet":
        return "Fine-tuned by Visavis from the `faces` weights"
    return "Trained by Visavis from random weights"


def _purpose(config: RunConfig) -> str:
    if isinstance(config.data, DigitsData):
        return (
            "For trying Visavis, for teaching, and for single handwritten digits as in MNIST: 28 x 28 "
            "pixels, the digit centred, of either polarity. Not for photos of whole numbers, not for printed "
            "digits: nothing was measured there."
        )
    if isinstance(config.data, CharactersData):
        return (
            "For one-shot recognition of single handwritten characters or simple drawn symbols that fill the "
            "image, of any alphabet and either polarity. Not for words, not for photographs, and not for "
            "telling writers apart."
        )
    return "For images like those it was trained on. Measure it on your own before you rely on it."


def _tested_on(parts: ImageParts) -> str:
    if parts.closed:
        return "pairs of the same test part"
    return "the test part, which chose nothing"


def _one_shot(measured: Measured) -> str:
    text = "".join(
        f" {curve[-1]['ways']}-way one-shot error of {name}: {curve[-1]['error_rate']:.4f} "
        f"over {curve[-1]['trials']} trials."
        for name, curve in measured.values.get("oneshot", {}).items()
    )
    runs = measured.values.get("official_runs")
    if runs:
        text += (
            f" Omniglot's official 20 runs: error {runs['error_rate']:.4f} "
            f"({runs['errors']} of {runs['trials']})."
        )
    return text
