"""Opening a source: its kind is told by a prefix, or seen from what the place is."""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import final

from whyfooled.attacks.adversaries import is_run
from whyfooled.errors import ImageError, bad_parameter, did_you_mean
from whyfooled.images import is_file, is_folder
from whyfooled.sources._files import open_photographs, open_tree
from whyfooled.sources._npz import open_npz
from whyfooled.sources._saved import open_saved
from whyfooled.sources._source import Source
from whyfooled.sources._torchvision import open_cifar10, open_fashion_mnist, open_mnist
from whyfooled.sources.published import open_imagenet, open_tiny_imagenet, open_voc2012, open_voc2012_train


@final
@dataclass(frozen=True)
class SourceCard:
    """What a kind of source says of itself.

    Parameters
    ----------
    form
        How it is written.
    summary
        One line: what it is, and what its labels are.
    open
        Opens it, from what follows the prefix and the title.
    """

    form: str
    summary: str
    open: Callable[[str, str], Source]


def _photographs(place: str, title: str) -> Source:
    return open_photographs([place], None, title)


def _adversaries(place: str, title: str) -> Source:
    return open_saved([place], title)


SOURCES: dict[str, SourceCard] = {
    "photographs": SourceCard(
        "PHOTOGRAPHS", "files and folders of photographs; labels from a CSV file, if there is one", _photographs
    ),
    "folder": SourceCard("folder:ROOT", "a folder with a folder of photographs for each class", open_tree),
    "npz": SourceCard("FILE.npz[:PREFIX]", "arrays images (n,h,w,3 or 1) and labels (n,), or PREFIX_images", open_npz),
    "adversaries": SourceCard(
        "ADVERSARIES", "a folder that `whyfooled attack` wrote; several: the photographs that are in all", _adversaries
    ),
    "imagenet": SourceCard("imagenet:ROOT", "ImageNet's validation images, in folders named by synset", open_imagenet),
    "tiny-imagenet": SourceCard("tiny-imagenet:ROOT", "Tiny ImageNet's validation images", open_tiny_imagenet),
    "voc2012": SourceCard(
        "voc2012:ROOT",
        "PASCAL VOC 2012, validation images, several labels each, without difficult objects",
        open_voc2012,
    ),
    "voc2012-train": SourceCard("voc2012-train:ROOT", "the same, training images", open_voc2012_train),
    "cifar10": SourceCard("cifar10:ROOT", "CIFAR-10's test images; downloaded if missing", open_cifar10),
    "mnist": SourceCard("mnist:ROOT", "MNIST's test images, grey; downloaded if missing", open_mnist),
    "fashion-mnist": SourceCard(
        "fashion-mnist:ROOT", "Fashion-MNIST's test images, grey; downloaded if missing", open_fashion_mnist
    ),
}
"""The kinds of sources, by prefix. The first and those without a prefix in their form are known without it."""


def open_source(place: str | Path | Sequence[str | Path], labels: Path | None = None) -> Source:
    """Open a source of images: it is listed, and no image is read.

    Parameters
    ----------
    place
        * Files and folders of photographs, one or several; folders are searched through, links to folders too, hidden
          files and folders left out.
        * An ``.npz`` file, or ``"file.npz:eval"`` for its arrays ``eval_images`` and ``eval_labels``.
        * A folder that ``whyfooled attack`` wrote; or several, for the photographs that every attack has finished.
        * ``"folder:ROOT"``, a folder with a folder for each class; a published data set: ``"imagenet:ROOT"``,
          ``"tiny-imagenet:ROOT"``, ``"voc2012:ROOT"``, ``"voc2012-train:ROOT"``, ``"cifar10:ROOT"``, ``"mnist:ROOT"``,
          ``"fashion-mnist:ROOT"``. See `SOURCES`.
    labels
        For photographs: a CSV file with the columns ``file`` (a path below their folder, or a bare file name) and
        ``label`` (class names or indices, ``7`` or ``7.0``, several separated by ``;``). In UTF-8 or UTF-16, with
        commas, semicolons or tabs between the columns.

    Returns
    -------
    Source
        Its labels are indices into its class names, or of the classifier, if it has no class names: see `class_map`.

    Raises
    ------
    ImageError
        If there is nothing of that kind at the place; if several folders of adversarial images have no photograph in
        common, or do not agree about what one shows.
    ParameterError
        If there is no such kind, places of several kinds are mixed, or the labels do not fit.

    Warns
    -----
    WhyfooledWarning
        If labels belong to no photograph, or photographs to no class; if a photograph is not in every folder of
        adversarial images.
    """
    places = [place] if isinstance(place, str | Path) else list(place)
    title = ", ".join(map(str, places))
    kinds = [_split_kind(one) for one in places]
    rest = [rest for _, rest in kinds]
    other = next((kind for kind, _ in kinds if kind != "photographs"), None)
    if other is None:
        return open_photographs(rest, labels, title)
    alike = all(kind == other for kind, _ in kinds)
    if len(places) > 1 and not (alike and other == "adversaries"):
        missing = [one for kind, one in kinds if kind == "photographs" and not Path(one).exists()]
        if missing:
            raise ImageError(f"There is no file or folder {missing[0]}.")
        rule = "must be all photographs, or all folders of adversarial images, or one source of another kind"
        raise bad_parameter("images", rule, title)
    if labels is not None:
        raise bad_parameter("labels", "are for files and folders of photographs", labels, f"{title} has its own.")
    return open_saved(rest, title) if other == "adversaries" else SOURCES[other].open(rest[0], title)


def takes_labels(place: str | Path) -> bool:
    """Tell whether a place holds photographs, whose labels a CSV file may give; other sources have their own."""
    return _split_kind(place)[0] == "photographs"


def _split_kind(place: str | Path) -> tuple[str, str]:
    """Tell a source's kind, and what follows the prefix."""
    text = str(place)
    prefix, colon, rest = text.partition(":")
    if colon and isinstance(place, str) and prefix in SOURCES:
        if not rest:
            raise ImageError(f"{text} must name a place: {prefix}:ROOT.")
        # The shell leaves ~ alone after a colon.
        return prefix, str(Path(rest).expanduser())
    if text.endswith(".npz") or ".npz:" in text:
        return "npz", text
    path = Path(text)
    if is_run(path):
        return "adversaries", text
    if re.fullmatch(r"[A-Za-z][\w-]+", prefix) and colon and not is_file(path) and not is_folder(path):
        prefixes = [name for name, card in SOURCES.items() if card.form.startswith(f"{name}:")]
        fix = did_you_mean(prefix, prefixes)
        raise bad_parameter("images", "must be photographs or a known kind of source", repr(text), fix)
    return "photographs", text
