"""What a training run is made of: one frozen ``RunConfig``, read from a recipe in ``recipes/*.toml``.

A recipe's file opens with its command, data, seed, wall time and measured result as a comment; the rest is
this schema. The table ``[smoke]`` holds what ``--smoke`` replaces: a minute on two cores, with data that need
no download.
"""

from __future__ import annotations

import hashlib
import json
import tomllib
from collections.abc import Mapping
from importlib import resources
from pathlib import Path
from typing import Annotated, Any, Literal, Self

from pydantic import BaseModel, ConfigDict, Field, ValidationError, model_validator

from app.encoding.manifest import InputSpec, WholeImage
from app.errors import VisavisError
from app.matching.distances import Metric
from training.config_fit import misfit
from training.data.augmentation import Augmentation


class RecipeError(VisavisError):
    """A recipe does not exist or contradicts the schema."""

    code = "invalid_recipe"


class Spec(BaseModel):
    """Base of every table of a recipe: nothing unknown, nothing changed later."""

    model_config = ConfigDict(extra="forbid", frozen=True)


Positive = Annotated[int, Field(ge=1)]
Share = Annotated[float, Field(ge=0, le=1)]
Decay = Annotated[float, Field(ge=0)]

# --- data
# ----------------------------------------------------------------------------------------------------


class DigitsData(Spec):
    """MNIST: 60,000 digits to train on, 10,000 to test; the subject is the digit."""

    source: Literal["mnist", "smoke-digits"]
    held_out: Positive = 5000
    """Training digits kept back: best weights and thresholds are chosen on them."""
    test_pairs: Positive = 20_000
    """Half mated, half non-mated, of the test digits; the same for every recipe with the same seed."""
    pairs_seed: int = 20_000


class CharactersData(Spec):
    """Omniglot: train on the background set; calibrate and test on alphabets of the evaluation set."""

    source: Literal["omniglot", "smoke-characters"]
    input: InputSpec
    turns: Annotated[int, Field(ge=1, le=4)] = 1
    """Quarter turns of a character that count as characters of their own."""
    validation_alphabets: Annotated[int, Field(ge=0, le=29)] = 0
    """Background alphabets kept back to choose the best weights; 0 keeps the last weights instead."""


class FolderData(Spec):
    """``<subject>/<image>`` files, split by subject; whom no other part has is trained on."""

    source: Literal["folder", "smoke-faces"]
    adapt: bool = False
    """Input, parts, batches, steps and augmentation follow from what the folder holds
    (``training.folder_defaults``) where no option sets them."""
    path: str | None = None
    """The folder; names below the data directory (``faces/celeba_wild``) or a path of its own."""
    input: InputSpec
    preprocess: WholeImage | Literal["face-5pt"] = WholeImage(mode="pad")
    """``face-5pt`` takes detector and alignment from the ``faces`` bundle."""
    leave_out: tuple[str, ...] = ()
    """Subjects to pass over, such as one whose pictures are known to be of several people."""
    validation: Share = 0.1
    calibration: Share = 0.2
    test: Share = 0.2


class AlignedFacesData(Spec):
    """CelebA's small aligned crops: ``images.zip`` and ``identity.txt``."""

    source: Literal["celeba_small", "smoke-aligned"]
    input: InputSpec
    least_images: Annotated[int, Field(ge=2)] = 2
    """Subjects with fewer are left out."""
    validation: Share = 0.1
    calibration: Share = 0.15
    test: Share = 0.25


class TextPairsData(Spec):
    """Pairs of texts, labelled same or different."""

    source: Literal["questions", "stsb", "pairs", "smoke-paraphrases"]
    path: str | None = None
    """A CSV or TSV file, for ``pairs``."""
    length: Positive = 40
    """Tokens a text; longer ones are cut."""
    vocabulary: Positive = 4000
    tokens: Literal["words", "characters", "bigrams"] = "words"
    """See ``training.data.text.Unit``."""
    convention: Literal["1 = same", "1 = different"] | None = None
    """What the label 1 of ``pairs`` says; not needed for a column called ``same`` or ``different``."""
    same_from: float | None = None
    """Score from which two texts of ``pairs`` are the same, where the file has scores, not labels."""
    validation: Share = 0.1
    """Pairs kept back to choose the best weights and the threshold; ``stsb`` brings its own."""
    test: Share = 0.2
    """Of a single file; the public sets bring their own test part."""


class DigitNamesData(Spec):
    """Two kinds of input: a picture of a digit and a spelled digit name."""

    source: Literal["mnist-and-names", "smoke-digits-and-names"]
    languages: tuple[Literal["en", "de", "es", "fr", "it", "nl"], ...] = ("en", "de", "es", "fr", "it", "nl")
    length: Annotated[int, Field(ge=6)] = 12
    """Letters of a name; the longest has six."""
    held_out: Positive = 5000
    test_pairs: Positive = 20_000
    pairs_seed: int = 20_000


Data = Annotated[
    DigitsData | CharactersData | FolderData | AlignedFacesData | TextPairsData | DigitNamesData,
    Field(discriminator="source"),
]

# --- encoders
# ------------------------------------------------------------------------------------------------


class Mlp(Spec):
    """The texts' multilayer perceptrons."""

    kind: Literal["mlp"]
    widths: tuple[Positive, ...]
    dropout: Share = 0.0
    last_linear: bool = False
    unit_length: bool = False


class Koch(Spec):
    """Koch's convolutional net."""

    kind: Literal["koch"]
    filters: tuple[Positive, Positive, Positive, Positive] = (64, 128, 128, 256)
    kernels: tuple[Positive, Positive, Positive, Positive] = (10, 7, 4, 4)
    initialisation: Literal["koch", "he"] = "koch"
    l2_convolution: Decay | tuple[Decay, Decay, Decay, Decay] = 2e-4
    """One for all four convolutions, or one for each."""
    l2_dense: Annotated[float, Field(ge=0)] = 1e-4
    units: Positive = 4096
    batch_norm: bool = False
    """Normalise before each activation in training; what is exported is still the paper's net."""


class Residual(Spec):
    """A small residual net."""

    kind: Literal["residual"]
    ink: bool = True
    """For drawings of either polarity; off scales pixels to -1..1."""
    stem: Positive = 32
    widths: tuple[Positive, ...] = (48, 96, 192, 256)
    blocks: tuple[Positive, ...] = (1, 1, 1, 1)
    dimensions: Positive = 256
    dropout: Share = 0.2


class MobileFaceNet(Spec):
    """The face encoder that the ``faces`` weights fit."""

    kind: Literal["mobilefacenet"]
    start: Literal["faces"] | None = "faces"
    trainable_stages: Annotated[int, Field(ge=1, le=6)] = 2
    """How many of the last stages learn; the rest keep their weights."""
    dropout: Share = 0.0


class SmallFace(Spec):
    """A small face encoder with depthwise convolutions, from scratch."""

    kind: Literal["small-face"]
    width: Annotated[float, Field(gt=0)] = 1.0
    dimensions: Positive = 128
    dropout: Share = 0.0


class AveragePooling(Spec):
    """Embedding, average over the tokens, dense layers."""

    kind: Literal["average-pooling"]
    embedding: Positive = 64
    widths: tuple[Positive, ...] = (32, 16)
    """Units of the dense layers; none leaves the average as it is."""
    dropout: Share = 0.0
    token_dropout: Share = 0.0
    """Share of a text's tokens left out in training."""
    unit_length: bool = False
    start: Literal["random", "idf"] = "random"
    """``idf`` makes the vectors of rare tokens longer, so that an untrained encoder compares about as TF-IDF
    does."""


class LstmMean(Spec):
    """Embedding, LSTM, mean over the tokens, length 1."""

    kind: Literal["lstm-mean"]
    embedding: Positive = 128
    units: Positive = 128
    dropout: Share = 0.0
    token_dropout: Share = 0.0
    start: Literal["random", "idf"] = "random"


Encoder = Annotated[
    Mlp | Koch | Residual | MobileFaceNet | SmallFace | AveragePooling | LstmMean, Field(discriminator="kind")
]

# --- objectives
# ----------------------------------------------------------------------------------------------


class Contrastive(Spec):
    """Contrastive loss on Euclidean distance."""

    kind: Literal["contrastive"]
    margin: Annotated[float, Field(gt=0)] = 1.0


class Triplet(Spec):
    """Triplet loss with mining in the batch."""

    kind: Literal["triplet"]
    mining: Literal["batch_all", "semi_hard", "batch_hard"] = "semi_hard"
    margin: Annotated[float, Field(gt=0)] = 1.0
    squared: bool = True


class ClosestNegatives(Spec):
    """Mean negative and closest negative over the in-batch cosine matrix."""

    kind: Literal["closest-negatives"]
    margin: Annotated[float, Field(gt=0)] = 0.25


class WeightedL1(Spec):
    """Koch's head: binary cross-entropy over the sigmoid of a weighted L1 distance."""

    kind: Literal["weighted-l1"]
    mining: Literal["all", "batch_hard"] = "all"
    """Of the pairs of a ``pk`` batch: all, or of the non-mated ones the hardest of each sample."""


class SigmoidDistance(Spec):
    """Binary cross-entropy over the sigmoid of a distance."""

    kind: Literal["sigmoid-distance"]


class PairFeatures(Spec):
    """The pair-feature head on pooled feature maps."""

    kind: Literal["pair-features"]
    units: Positive = 128
    dropout: Share = 0.3
    distance_weight: Annotated[float, Field(ge=0)] = 1.0
    """Weight of a contrastive term on the embeddings, so that the bundle's distance learns too."""


class MarginSoftmax(Spec):
    """Additive-margin softmax over the training subjects."""

    kind: Literal["margin-softmax"]
    scale: Annotated[float, Field(gt=0)] = 30.0
    margin: Annotated[float, Field(ge=0)] = 0.3


Objective = Annotated[
    Contrastive | Triplet | ClosestNegatives | WeightedL1 | SigmoidDistance | PairFeatures | MarginSoftmax,
    Field(discriminator="kind"),
]

# --- batches
# -------------------------------------------------------------------------------------------------


class PKBatches(Spec):
    """P subjects with K samples each; pair losses take all pairs of the batch."""

    kind: Literal["pk"]
    subjects: Annotated[int, Field(ge=2)]
    samples: Annotated[int, Field(ge=1)]


class PairBatches(Spec):
    """Pairs, half mated and half not: fresh ones each step, or an array made once as the texts do."""

    kind: Literal["pairs"]
    size: Annotated[int, Field(ge=2)]
    array: Positive | None = None
    """Pairs of the array made once (half of them mated); None draws fresh ones."""


Batches = Annotated[PKBatches | PairBatches, Field(discriminator="kind")]

# --- loop
# ----------------------------------------------------------------------------------------------------


class Optimiser(Spec):
    """How weights move."""

    kind: Literal["adam", "adamw", "sgd"] = "adam"
    learning_rate: Annotated[float, Field(gt=0)] = 1e-3
    schedule: Literal["constant", "cosine", "exponential"] = "constant"
    warmup_steps: Annotated[int, Field(ge=0)] = 0
    decay_an_epoch: Annotated[float, Field(gt=0, le=1)] = 0.99
    """Factor of ``exponential``; Koch lowers the rate by 1 % an epoch."""
    weight_decay: Annotated[float, Field(ge=0)] = 0.0
    momentum: tuple[Share, Share] = (0.5, 0.9)
    """Of ``sgd``: rises linearly from the first to the second over the run."""
    clip_norm: Annotated[float, Field(gt=0)] | None = None


class Loop(Spec):
    """How long, and how often to look."""

    steps: Positive
    epoch: Positive = 500
    """Steps between two validations and checkpoints."""
    precision: Literal["float32", "mixed_bfloat16", "mixed_float16"] = "float32"
    best_by: Literal["last", "eer", "oneshot"] = "last"
    """Which weights the run keeps: the last ones, or the best in validation."""
    stop_on_collapse: bool = True


class Export(Spec):
    """What the exported graph does beside the encoder."""

    shifts: tuple[tuple[int, int], ...] = ()
    """Drawings alone: soften the ink and average the embeddings of copies moved by so many pixels down and
    right (``training.encoders.views``)."""


class RunConfig(Spec):
    """One training run."""

    name: Annotated[str, Field(pattern=r"^[a-z0-9][a-z0-9-]{0,63}$")]
    summary: str
    """One line for ``visavis train --list``."""
    seed: int = 1
    data: Data
    encoder: Encoder
    right_encoder: Encoder | None = None
    """A tower of its own for the right side; None makes twins."""
    objective: Objective
    batches: Batches
    augmentation: Augmentation | None = None
    optimiser: Optimiser = Optimiser()
    loop: Loop
    export: Export = Export()
    metric: Metric = "euclidean"
    """Distance of the exported embeddings."""
    fixed_threshold: float | None = None
    """Distance at which the pair accuracy is also stated, where a text fixes one."""
    shipped: bool = False
    """Its bundle is part of the distribution."""

    @model_validator(mode="after")
    def _fits(self) -> Self:
        if problem := misfit(self):
            raise ValueError(problem)
        return self

    @property
    def digest(self) -> str:
        """Hex SHA-256 of what decides the weights: a checkpoint goes on only with what it began with."""
        text = json.dumps(self.model_dump(mode="json", exclude={"export"}), sort_keys=True)
        return hashlib.sha256(text.encode()).hexdigest()


def recipe_names() -> list[str]:
    """Return the names of the recipes that come with Visavis."""
    folder = resources.files("training") / "recipes"
    return sorted(
        entry.name.removesuffix(".toml") for entry in folder.iterdir() if entry.name.endswith(".toml")
    )


def recipe_text(recipe: str) -> str:
    """Return the text of a recipe, by its name or by the path of a file.

    Raises:
        RecipeError: There is none.
    """
    if recipe in recipe_names():
        return (resources.files("training") / "recipes" / f"{recipe}.toml").read_text(encoding="utf-8")
    path = Path(recipe)
    if path.suffix == ".toml" and path.is_file():
        return path.read_text(encoding="utf-8")
    raise RecipeError(
        f"there is no recipe {recipe!r}; known: {', '.join(recipe_names())}, or the path of a .toml file"
    )


def load_recipe(recipe: str, *, smoke: bool = False, changes: Mapping[str, Any] | None = None) -> RunConfig:
    """Read a recipe.

    Args:
        recipe: Name of one that comes with Visavis, or the path of a ``.toml`` file.
        smoke: Apply its ``[smoke]`` table.
        changes: Values by dotted name that replace those of the file, such as ``{"loop.steps": 100}``.

    Raises:
        RecipeError: It does not exist, or what comes out contradicts the schema; the field is named.
    """
    try:
        tables = tomllib.loads(recipe_text(recipe))
    except tomllib.TOMLDecodeError as error:
        raise RecipeError(f"{recipe}: {error}") from error
    smoke_tables = tables.pop("smoke", {})
    if smoke:
        tables = _merged(tables, smoke_tables)
    for dotted, value in (changes or {}).items():
        tables = _merged(tables, _nested(dotted.split("."), value))
    try:
        return RunConfig.model_validate(tables)
    except ValidationError as error:
        problems = "; ".join(
            ": ".join([*([".".join(map(str, item["loc"]))] if item["loc"] else []), item["msg"]])
            for item in error.errors()
        )
        raise RecipeError(f"{recipe}: {problems}") from error


def _nested(path: list[str], value: object) -> dict[str, Any]:
    return {path[0]: value if len(path) == 1 else _nested(path[1:], value)}


def _merged(base: Mapping[str, Any], changes: Mapping[str, Any]) -> dict[str, Any]:
    """Lay one table over another; a table of another ``kind`` replaces the whole."""
    out = dict(base)
    for key, value in changes.items():
        old = out.get(key)
        if isinstance(old, Mapping) and isinstance(value, Mapping) and not _other_kind(old, value):
            out[key] = _merged(old, value)
        else:
            out[key] = value
    return out


def _other_kind(old: Mapping[str, Any], new: Mapping[str, Any]) -> bool:
    return "kind" in new and new["kind"] != old.get("kind")
