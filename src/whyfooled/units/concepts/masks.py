"""Concepts from any folder of images, a folder of label maps and a list of what their numbers mean."""

from __future__ import annotations

from pathlib import Path

from whyfooled.errors import ImageError, bad_parameter
from whyfooled.images import is_file
from whyfooled.images.folders import existing_folder
from whyfooled.units.concepts.concepts import Concepts
from whyfooled.units.concepts.paired import CATEGORY, MOST_LABELS, Labels, PairedReader, pair_up
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
        where the list does not reach that far.
    title
        What was opened, as it was written.

    Raises
    ------
    ImageError
        If a folder or the list cannot be read, or images and label maps do not pair up; later, if a label map has
        another number, or is of other proportions than its image.
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
    labels = Labels.of(_read_names(names), str(names))
    return PairedReader(images, maps, pair_up(images, maps), labels, (names,)).open(title)


def _read_names(path: Path) -> list[tuple[int, str, str]]:
    """Read which label has which name, empty if it says that nothing is shown, and which category."""
    rows = _read_table(path) if path.suffix.lower() == ".csv" else _read_lines(path)
    if len(rows) > MOST_LABELS:
        raise ImageError(f"{path} must name at most {MOST_LABELS} labels; got {len(rows)}.")
    return [(label, "" if name.lower() in _NO_CONCEPT else name, category) for label, name, category in rows]


def _read_lines(path: Path) -> list[tuple[int, str, str]]:
    try:
        lines = path.read_text(encoding="utf-8-sig").splitlines()
    except (OSError, UnicodeDecodeError) as error:
        raise ImageError(f"{path} cannot be read: {getattr(error, 'strerror', None) or error}.") from None
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
