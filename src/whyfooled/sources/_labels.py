"""What photographs show, from a CSV file."""

from __future__ import annotations

import csv
import re
from collections import Counter
from collections.abc import Mapping, Sequence
from pathlib import Path, PurePath

from whyfooled.errors import bad_parameter, warn
from whyfooled.images import compose_accents
from whyfooled.sources.text_files import open_table, read_text


def read_labels(path: Path, argument: str = "labels") -> dict[str, tuple[str, ...]]:
    """Read the columns ``file`` and ``label`` of a CSV file.

    Several labels of a file are separated by ``;``, or stand in several rows. Rows without a label are left out.
    Columns may be separated by commas, semicolons or tabs.

    Parameters
    ----------
    path
        The CSV file, in UTF-8 or UTF-16.
    argument
        What the file is called in an error message.

    Returns
    -------
    dict
        For each file, its labels (class names or indices, as text), each once.

    Raises
    ------
    ParameterError
        If it cannot be read, or has no such columns.
    """
    rule = "must be a CSV file with the columns file and label"
    labels_of: dict[str, dict[str, None]] = {}
    try:
        table, separator = open_table(read_text(path), _COLUMNS)
        rows = csv.DictReader(table, delimiter=separator)
        rows.fieldnames = [name.strip() for name in rows.fieldnames or ()]
        for row in rows:
            if None in row:
                raise bad_parameter(
                    argument, rule, f"{path}: line {rows.line_num} has more columns", _QUOTED[separator]
                )
            labels = [label.strip() for label in row["label"].split(";")]
            # As Path writes it, so that ./cat.jpg is cat.jpg.
            labels_of.setdefault(PurePath(row["file"]).as_posix(), {}).update(dict.fromkeys(filter(None, labels)))
    except OSError as error:
        raise bad_parameter(argument, "must be a CSV file that can be read", f"{path}: {error.strerror}") from None
    except UnicodeError:
        fix = "Save it in UTF-8."
        raise bad_parameter(argument, rule, f"{path}, which is not text in UTF-8 or UTF-16", fix) from None
    except (KeyError, AttributeError, TypeError, csv.Error):
        raise bad_parameter(argument, rule, path) from None
    return {name: tuple(labels) for name, labels in labels_of.items() if labels}


_COLUMNS = ("file", "label")
_QUOTED = {
    ",": 'Put a label with a comma into quotation marks: cat.jpg,"tabby, tabby cat".',
    ";": 'Put several labels into quotation marks: cat.jpg;"tabby;lynx".',
    "\t": "Put a label with a tab into quotation marks.",
}


def match_labels(labels: Mapping[str, tuple[str, ...]], folder: Path, names: Sequence[str]) -> list[tuple[str, ...]]:
    """Find the labels of each photograph: by its path, or as much of the path's end as the file gives.

    Accents may be written in either of Unicode's forms: file systems differ in that.

    Raises
    ------
    ParameterError
        If a photograph has no label, or one name stands for several photographs.

    Warns
    -----
    WhyfooledWarning
        If labels belong to no photograph.
    """
    spellings = {compose_accents(key): key for key in labels}
    keys = [_find_key(labels, spellings, folder / name) for name in names]
    unlabelled = [name for name, key in zip(names, keys, strict=True) if key is None]
    if unlabelled:
        raise bad_parameter(
            "labels",
            "must say what every photograph shows",
            f"nothing for {len(unlabelled)} of {len(names)}, such as {unlabelled[0]}",
            "Give paths below the photographs' folder, or bare file names.",
        )
    used = Counter(key for key in keys if key is not None)
    shared = next((key for key, count in used.items() if count > 1), None)
    if shared is not None:
        several = [name for name, key in zip(names, keys, strict=True) if key == shared]
        raise bad_parameter(
            "labels", "must tell photographs of one name apart", f"{shared} for {' and '.join(several[:2])}"
        )
    unused = sorted(labels.keys() - used.keys())
    if unused:
        warn(
            f"{len(unused)} of the {len(labels)} labels belong to no photograph, such as {unused[0]}.",
            stacklevel=3,
        )
    return [labels[key] for key in keys if key is not None]


def _find_key(labels: Mapping[str, tuple[str, ...]], spellings: Mapping[str, str], path: Path) -> str | None:
    """Find a photograph's key, the longest first: the whole path, without its first folder, and so on.

    First as the file writes it; `spellings` are the keys in Unicode's compose_accents form.
    """
    ends = [PurePath(*path.parts[start:]).as_posix() for start in range(len(path.parts))]
    written = next((end for end in ends if end in labels), None)
    return written or next((spellings[compose_accents(end)] for end in ends if compose_accents(end) in spellings), None)


def as_indices(shown: Sequence[tuple[str, ...]]) -> tuple[tuple[tuple[int, ...], ...], tuple[str, ...] | None]:
    """Turn labels as text into indices, and the class names that they index; no names if all are indices already."""
    texts = sorted({text for labels in shown for text in labels})
    if all(re.fullmatch(r"[0-9]{1,100}", text) for text in texts):
        return tuple(tuple(int(text) for text in labels) for labels in shown), None
    index = {text: number for number, text in enumerate(texts)}
    return tuple(tuple(index[text] for text in labels) for labels in shown), tuple(texts)
