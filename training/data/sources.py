"""The public data sets: their files with pinned digests, where they come from, on what terms, for what use.

A file may have several accepted digests: the first is of the file as its public home serves it, the others of
the same contents packed again (gzip and zip keep no canonical form; texts travel with other line ends).
"""

from __future__ import annotations

import difflib
from dataclasses import dataclass
from typing import Final

from training.data.errors import DataError


@dataclass(frozen=True)
class PinnedFile:
    """One file of a set.

    Attributes:
        path: Below the folder of data sets.
        sha256: Accepted digests, hex; at least one.
        urls: Where it can be downloaded, in the order to try.
        unpack: Folder beside the file that a tar archive is unpacked into; None keeps it packed.
    """

    path: str
    sha256: tuple[str, ...]
    urls: tuple[str, ...] = ()
    unpack: str | None = None

    @property
    def name(self) -> str:
        """Name of the file without its folder."""
        return self.path.rpartition("/")[2]


@dataclass(frozen=True)
class PinnedFolder:
    """A folder of many files, pinned as a whole.

    Attributes:
        path: Below the folder of data sets.
        pattern: Regular expression that the paths of its files match, below that folder; others do not count.
        files: How many there are.
        sha256: Hex digest of the lines ``<sha256 of a file>  <its path>``, sorted by path, as ``sha256sum``
            prints them.
        archive: Name of a zip file that holds them; None when there is no such file.
        urls: Where that archive can be downloaded.
    """

    path: str
    pattern: str
    files: int
    sha256: str
    archive: str | None = None
    urls: tuple[str, ...] = ()

    @property
    def name(self) -> str:
        """Name of the folder without those above it."""
        return self.path.rpartition("/")[2]


@dataclass(frozen=True)
class DataSet:
    """A data set.

    Attributes:
        name: What ``visavis data fetch`` takes.
        title: One line.
        files: Its files.
        folders: Its folders.
        licence: Terms, as far as known.
        use: What it may and should be used for.
        home: Page that describes it.
        by_hand: What to do where there is no download; empty otherwise.
        origin: Where the digests come from.
    """

    name: str
    title: str
    licence: str
    use: str
    home: str
    origin: str
    files: tuple[PinnedFile, ...] = ()
    folders: tuple[PinnedFolder, ...] = ()
    by_hand: str = ""


_MNIST: Final = "https://storage.googleapis.com/cvdf-datasets/mnist/"
_OMNIGLOT: Final = "https://github.com/brendenlake/omniglot/raw/master/python/"
_FIGSHARE: Final = "https://ndownloader.figshare.com/files/"
_QUESTIONS: Final = "https://raw.githubusercontent.com/songys/Question_pair/master/"
_STSB: Final = "https://raw.githubusercontent.com/PhilipMay/stsb-multi-mt/main/data/"
_CELEBA_BY_HAND: Final = (
    "CelebA is handed out by its authors, for non-commercial research only; this selection of it has no "
    "public home. With a copy: visavis data fetch {name} --from FOLDER"
)

MNIST: Final = DataSet(
    name="mnist",
    title="MNIST: 60,000 + 10,000 handwritten digits, 28 x 28, white on black",
    licence="usually quoted as CC BY-SA 3.0",
    use="train, calibrate and test `digits` and the recipes of the texts",
    home="https://yann.lecun.com/exdb/mnist/",
    origin="published by TensorFlow Datasets; the second digest is of the same bytes compressed again",
    files=tuple(
        PinnedFile(f"mnist/{name}", digests, (_MNIST + name,))
        for name, digests in {
            "train-images-idx3-ubyte.gz": (
                "440fcabf73cc546fa21475e81ea370265605f56be210a4024d2ca8f203523609",
                "7ff28fd295f802eefc6d40e461175dfe4b969b1842b2abc8c6dc8c20711cf79f",
            ),
            "train-labels-idx1-ubyte.gz": (
                "3552534a0a558bbed6aed32b30c495cca23d567ec52cac8be1a0730e8010255c",
                "81a978ae83d39ffdba0db3ce2fcaf80a8921e9629e874428996a2b03242d4b2a",
            ),
            "t10k-images-idx3-ubyte.gz": (
                "8d422c7b0a1c1c79245a5bcf07fe86e33eeafee792b84584aec276f5a2dbc4e6",
                "197e111ae341b0770be9011ac5e622d0e6cd1c640b32eb0de5dc1dd26cc6e182",
            ),
            "t10k-labels-idx1-ubyte.gz": (
                "f7ae60f92e00ec6debd23a6088c31dbd2371eca3ffa0defaefb259924204aec6",
                "b91679a0acfe4ba0e50a2437a903084cba1f5f92592b016a25a7dfd00455798b",
            ),
        }.items()
    ),
)

OMNIGLOT: Final = DataSet(
    name="omniglot",
    title="Omniglot: 1,623 characters of 50 alphabets, 20 drawings each, 105 x 105; the 20 one-shot runs",
    licence="MIT",
    use="train on the background set only; the evaluation set and the runs are for calibration and results",
    home="https://github.com/brendenlake/omniglot",
    origin="of the images: published by TensorFlow Datasets; the second digest, and that of the runs, of a "
    "copy that was not compared with the public file",
    files=(
        PinnedFile(
            "omniglot/images_background.zip",
            (
                "ad41ab679c8b5d90b271ef46be6987cc81211774a695c29dcc5367b2b26ee640",
                "596ae6dad7c919ddfba12545fff16d0508144e2a5dd4b2886097ffeb0673cf40",
            ),
            (_OMNIGLOT + "images_background.zip",),
        ),
        PinnedFile(
            "omniglot/images_evaluation.zip",
            (
                "1f61a8f3366785b057fc117d9228e78a16e3d976c8953b2a10fcc74cf0609cee",
                "5306f40768ec1cc89b75c9533c999cf5fbc31d80c2a2c7a86759a306e738beda",
            ),
            (_OMNIGLOT + "images_evaluation.zip",),
        ),
        PinnedFile(
            "omniglot/all_runs.zip",
            ("437c1eeab0af8484112e1b4cc0f3d541ec727f7c47b9b202da738af9dfd6c325",),
            (_OMNIGLOT + "one-shot-classification/all_runs.zip",),
        ),
    ),
)

LFW: Final = DataSet(
    name="lfw",
    title="Labeled Faces in the Wild: 13,233 photos of 5,749 people, and View 2 (6,000 pairs)",
    licence="none stated; photographs from news, for research",
    use="an outside examination of face models; never to train or calibrate",
    home="https://vis-www.cs.umass.edu/lfw/",
    origin="published by scikit-learn; no copy was compared",
    files=(
        PinnedFile(
            "faces/lfw/lfw.tgz",
            ("055f7d9c632d7370e6fb4afc7468d40f970c34a80d4c6f50ffec63f5a8d536c0",),
            (_FIGSHARE + "5976018", "https://vis-www.cs.umass.edu/lfw/lfw.tgz"),
            unpack="lfw",
        ),
        PinnedFile(
            "faces/lfw/pairs.txt",
            ("ea42330c62c92989f9d7c03237ed5d591365e89b3e649747777b70e692dc1592",),
            (_FIGSHARE + "5976006", "https://vis-www.cs.umass.edu/lfw/pairs.txt"),
        ),
    ),
)

QUESTIONS: Final = DataSet(
    name="questions",
    title="Korean question pairs: 6,888 to train, 688 to test (is_duplicate 1 means different)",
    licence="MIT",
    use="the text recipes",
    home="https://github.com/songys/Question_pair",
    origin="of a copy that was not compared with the public file; the second digest is of the same text with "
    "plain line feeds",
    files=tuple(
        PinnedFile(f"text/question_pairs_ko/{name}", digests, (_QUESTIONS + name,))
        for name, digests in {
            "kor_pair_train.csv": (
                "b0fa4fa4e6fccb9b77f4e4d69c97c558b32d1356ee9041f5faf68fc0446b6fd7",
                "ba8d30e62c650a6a019611293e4801bb131564db3bd2c8c82f1bcc3b3365005d",
            ),
            "kor_Pair_test.csv": (
                "6e25fc564778bbec695ad3b1d0db7cb8956adabb2186e9c0d582c7346a90a073",
                "f1dcecd792316eca657e71d726826520dec72b119c44240f96044efda45b2780",
            ),
        }.items()
    ),
)

STSB: Final = DataSet(
    name="stsb",
    title="STS benchmark: 8,628 pairs of English sentences with scores from 0 to 5",
    licence="scores CC BY-SA 4.0; the sentences are under the terms of their sources",
    use="the text recipes; research",
    home="https://github.com/PhilipMay/stsb-multi-mt",
    origin="of a copy that was not compared with the public file; the second digest is of the same text with "
    "plain line feeds",
    files=tuple(
        PinnedFile(f"text/stsb/{name}", digests, (_STSB + name,))
        for name, digests in {
            "stsb-en-train.csv": (
                "e1e84fec60bbb598735552f54a35f4949904a484750fd2cb11e2720e49f63da6",
                "0c0da3b0263eb1383bf10466fa97d4d5c0b249de56dffd165b695c1d7e8538e3",
            ),
            "stsb-en-dev.csv": (
                "d29586e96558c4eb52cf5ea5d14e9c24d3bf0e44f111b017caba43a5adc33226",
                "6fc69837090c83a679d45c1a9537037f5b67c96523b2e998a99ec5d87c2016f5",
            ),
            "stsb-en-test.csv": (
                "11523b625219e94e9ca05d2816b5f02cac1614c5894fe657376fa0806378d053",
                "8d53cd71c3fbb4b51130a9a3519d0a223df61ac1a41c942f3d9de2e02023fb6d",
            ),
        }.items()
    ),
)

CELEBA_SMALL: Final = DataSet(
    name="celeba_small",
    title="CelebA, a selection: 10,000 aligned crops of 5,429 people, 89 x 109",
    licence="non-commercial research only",
    use="the recipe faces-triplet; weights trained on it are not given away",
    home="https://mmlab.ie.cuhk.edu.hk/projects/CelebA.html",
    origin="of the selection that the recipe was measured on",
    files=(
        PinnedFile(
            "faces/celeba_small/images.zip",
            ("5ba0af39dab2d9552bbecebaaa4c4c1fdd1f937e711247fb0a5045b72487a11d",),
        ),
        PinnedFile(
            "faces/celeba_small/identity.txt",
            ("6cd54c9b599f7a9d45292e44fea130dfa18937a013858601471bbb57e3b11c8e",),
        ),
    ),
    by_hand=_CELEBA_BY_HAND.format(name="celeba_small"),
)

CELEBA_WILD: Final = DataSet(
    name="celeba_wild",
    title="CelebA, a selection: 6,290 loose crops of 299 people, unaligned, up to 240 pixels",
    licence="non-commercial research only",
    use="evidence, calibration and the recipe faces-finetune; weights trained on it are not given away",
    home="https://mmlab.ie.cuhk.edu.hk/projects/CelebA.html",
    origin="of the selection that the recipe was measured on",
    folders=(
        PinnedFolder(
            "faces/celeba_wild",
            r"\d+/\d+\.jpg",
            6290,
            "f9a6c9a9ad0193d6f48ee203c35460968ace6f7976695539ccf8116751138c82",
        ),
    ),
    by_hand=_CELEBA_BY_HAND.format(name="celeba_wild"),
)

ORL: Final = DataSet(
    name="orl",
    title="ORL faces: 40 people, 10 grey portraits each, 92 x 112",
    licence="free with credit to AT&T Laboratories Cambridge (Olivetti Research Laboratory)",
    use="small experiments with faces",
    home="https://www.cl.cam.ac.uk/research/dtg/attarchive/facedatabase.html",
    origin="of a copy that was not compared with the public archive",
    folders=(
        PinnedFolder(
            "faces/orl",
            r"s\d+/\d+\.pgm",
            400,
            "6ed153ff46fa026cdbfa0eed846b6ec0be19e006b3547ff5d19c26a082b3b97b",
            archive="att_faces.zip",
            urls=("https://www.cl.cam.ac.uk/research/dtg/attarchive/pub/data/att_faces.zip",),
        ),
    ),
)

SETS: Final = {
    known.name: known for known in (MNIST, OMNIGLOT, LFW, QUESTIONS, STSB, CELEBA_SMALL, CELEBA_WILD, ORL)
}
"""Every set by its name."""


def find_set(name: str) -> DataSet:
    """Return the set of that name.

    Raises:
        DataError: There is none; a similar name is suggested.
    """
    if name in SETS:
        return SETS[name]
    close = difflib.get_close_matches(name, SETS, n=1)
    hint = f"; did you mean {close[0]}?" if close else ""
    raise DataError(f"there is no data set {name!r}{hint} (there are {', '.join(SETS)})")
