"""Concepts from any folder of images, a folder of label maps and a list of what their numbers mean."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from whyfooled.errors import ImageError, bad_parameter
from whyfooled.images import is_file
from whyfooled.images.folders import existing_folder
from whyfooled.images.label_maps import read_label_map
from whyfooled.sources.text_files import read_text
from whyfooled.units.concepts.concepts import Concepts
from whyfooled.units.concepts.paired import CATEGORY, MOST_LABELS, VOID, Labels, PairedReader, pair_up
from whyfooled.units.concepts.rows import Damage, read_rows, whole_number

_FORM = "masks:IMAGES,LABELS,NAMES"
_PARTS = ("IMAGES (a folder of images)", "LABELS (a folder of label maps)", "NAMES (a list of the labels' names)")
_NO_CONCEPT = ("unlabelled", "unlabeled", "void", "ignore", "-", "")


def open_masks(place: str, title: str) -> Concepts:
    """List images with label maps: pictures or arrays with one number for every pixel.

    Images and label maps pair up by their paths below their folders, without the suffix. They may be of different
    sizes, of about the same proportions. Every category is annotated in every image.

    Parameters
    ----------
    place
        ``IMAGES,LABELS,NAMES``: a folder of images, a folder of label maps as
        `whyfooled.images.label_maps.read_label_map` reads them, and a list: a text file whose first line names label 0,
        and so on; or a CSV file with the columns ``label``, ``name`` and, if need be, ``category`` (``object`` where it
        is empty). A label may have several rows, of different categories. Labels of one name and category are one
        concept. The names unlabelled, void, ignore, ``-`` and none at all say that nothing is shown; 255 says the same
        where the list does not reach that far and the label maps have other numbers than 0 and 255. Label maps are read
        until one has, which is mostly the first.
    title
        What was opened, as it was written.

    Raises
    ------
    ImageError
        If a folder or the list cannot be read, images and label maps do not pair up, or label maps have 0 and 255
        alone, and the list names others; later, if a label map has another number, or is of other proportions than its
        image.
    ParameterError
        If there are not three parts.
    """
    parts = [part.strip() for part in place.split(",")]
    missing = [part for part, given in zip(_PARTS, [*parts, "", ""], strict=False) if not given]
    if missing:
        raise bad_parameter("concepts", f"must be {_FORM}", repr(title), f"Add {' and '.join(missing)}.")
    if len(parts) > len(_PARTS):
        fix = "A path with a comma in it cannot be given: rename it, or link to it."
        raise bad_parameter("concepts", f"must be {_FORM}, of three parts", f"{len(parts)} in {title!r}", fix)
    images, maps = (existing_folder(Path(part).expanduser()) for part in parts[:2])
    names = Path(parts[2]).expanduser().absolute()
    if not is_file(names):
        raise ImageError(f"There is no file {names} with the labels' names.")
    pairs, rows = pair_up(images, maps), read_names(names)
    labels = Labels.of(rows, str(names), void=_is_left_out([maps / label_map for _, label_map in pairs], rows, names))
    return PairedReader(images, maps, pairs, labels, (names,)).open(title)


def _is_left_out(label_maps: Sequence[Path], rows: Sequence[tuple[int, str, str]], names: Path) -> bool:
    """Tell whether `VOID` marks what was left out: the list ends before it, and other numbers are in use.

    In a binary mask it is the object: that would be lost without a word.
    """
    last = max((label for label, _, _ in rows), default=0)
    if last >= VOID:
        return False
    alone = False
    for path in label_maps:
        try:
            values = read_label_map(path)
        except ImageError:
            # It is named when it is read for what it shows.
            continue
        if ((values != 0) & (values != VOID)).any():
            return True
        alone = alone or bool((values == VOID).any())
    if alone and any(label and name for label, name, _ in rows):
        raise ImageError(
            f"The label maps have 0 and {VOID} alone, and {names} names labels up to {last}: is {VOID} the object of a "
            f"mask, or what was left out? Divide such masks by {VOID}, or say it in a CSV file with the columns label "
            f"and name: {VOID},object or {VOID},void."
        )
    return True


def read_names(path: Path) -> list[tuple[int, str, str]]:
    """Read which label has which name, empty if it says that nothing is shown, and which category.

    Raises
    ------
    ImageError
        If the file cannot be read, or names too many labels.
    """
    rows = _read_table(path) if path.suffix.lower() == ".csv" else _read_lines(path)
    if len(rows) > MOST_LABELS:
        raise ImageError(f"{path} must name at most {MOST_LABELS} labels; got {len(rows)}.")
    return [(label, "" if name.lower() in _NO_CONCEPT else name, category) for label, name, category in rows]


def _read_lines(path: Path) -> list[tuple[int, str, str]]:
    try:
        lines = read_text(path).splitlines()
    except (OSError, UnicodeError) as error:
        reason = getattr(error, "strerror", None) or "it is not text in UTF-8"
        raise ImageError(f"{path} cannot be read: {reason}.") from None
    return [(label, line.strip(), CATEGORY) for label, line in enumerate(lines)]


def _read_table(path: Path) -> list[tuple[int, str, str]]:
    damage = Damage(path)
    names: dict[tuple[int, str], str] = {}
    for line, row in read_rows(path, ("label", "name"), damage):
        label, category = whole_number(row["label"]), row.get("category") or CATEGORY
        if label is None or label >= MOST_LABELS:
            damage.add(line, f"label must be a whole number from 0 to {MOST_LABELS - 1}; got {row['label']!r}")
        elif (label, category) in names:
            other = names[label, category]
            damage.add(line, f"label {label} has a name in the category {category} already: {other!r}")
        else:
            names[label, category] = row["name"]
    damage.check()
    return [(label, name, category) for (label, category), name in names.items()]
