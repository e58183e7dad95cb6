"""Explaining many photographs: a report each, an index of all of them, resumed where it stopped."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from threading import Lock
from typing import Any, Literal, final

import pandas as pd

from whyfooled.attacks.adversaries import find_name_fault
from whyfooled.classifier import Classifier
from whyfooled.classifier.borrowing import one_thread
from whyfooled.classifier.workers import share_out
from whyfooled.defences import Calibration
from whyfooled.errors import ImageError, MethodError, OutputError, WhyfooledError, bad_parameter
from whyfooled.explanations.case import choose_attack
from whyfooled.explanations.explanation import Explanation
from whyfooled.explanations.of_image import explain, open_universal
from whyfooled.explanations.question import check_no_target
from whyfooled.explanations.report.folder import write_files
from whyfooled.explanations.report.index import COLUMNS, IndexEntry, make_entry, make_failed_entry, write_index
from whyfooled.explanations.shown_maps import make_methods
from whyfooled.images import common_folder, output_folder, photographs_in, write_whole
from whyfooled.images.seals import digest_content, digest_file
from whyfooled.registry import describe_value
from whyfooled.running.kept import (
    DamagedError,
    FileKind,
    is_text,
    list_of,
    parts_of,
    read_record,
    record_of,
    storable_text,
    write_record,
)
from whyfooled.running.provenance import versions
from whyfooled.running.publishing import hide_all_folders, hide_folders
from whyfooled.running.runs import claim, digest_run, identify_computation
from whyfooled.sources import match_labels, read_labels
from whyfooled.tensors.randomness import choose
from whyfooled.types import Progress
from whyfooled.units import Dissection
from whyfooled.units.changes import open_dissection
from whyfooled.universal import UniversalPerturbation

PAGE_FILE = "index.html"
TABLE_FILE = "index.csv"
RUN_FILE = "explanations.json"
ENTRY_FILE = "entry.json"
_OWN = {PAGE_FILE, TABLE_FILE, RUN_FILE}
_REPORT = (
    *("report.html", "explanation.json", "tensors.safetensors", "regions.csv", "units.csv"),
    *("pictures", "figures", ENTRY_FILE),
)
"""What may lie in a photograph's folder, and is replaced when it is explained anew."""

_RUN = FileKind("folder of explanations", 1, "whyfooled explain", {"images": list_of(is_text)})
_ENTRY = FileKind(
    "entry of an explained photograph",
    1,
    "whyfooled explain",
    {
        "photograph": is_text,
        "run": is_text,
        "files": record_of(is_text),
        "row": parts_of({"file": is_text}),
        "thumbnails": list_of(is_text),
    },
)


@final
@dataclass(frozen=True)
class ExplainStanding:
    """How a run stands.

    Parameters
    ----------
    done, total
        Photographs that are finished, and all; the first time, those that were finished already.
    photograph
        The one that was just finished, or is in work; "" the first time.
    said
        What is said of the one that was just finished, in a few words.
    doing
        The stage that the one in work is in.
    """

    done: int
    total: int
    photograph: str = ""
    said: str = ""
    doing: str = ""


@one_thread()
def explain_files(
    classifier: Classifier,
    images: Sequence[str | Path],
    folder: str | Path,
    *,
    attack: Any = None,
    label: str | int | None = None,
    labels: str | Path | None = None,
    target: str | int | None = None,
    methods: Sequence[Any] | None = None,
    trust: UniversalPerturbation | str | Path | None = None,
    units: Dissection | str | Path | None = None,
    checks: bool | None = None,
    forge: bool = False,
    detector: Calibration | None = None,
    figures: Literal["pdf", "svg", "png"] | None = None,
    count: int | None = None,
    seed: int = 0,
    about: Mapping[str, Any] | None = None,
    run_as: Mapping[str, str] | None = None,
    notes: Sequence[str] = (),
    report: Callable[[ExplainStanding], None] = lambda standing: None,
) -> pd.DataFrame:
    """Explain photographs: a report of each, as `explain` makes it, and an index of them all.

    Each report is written as soon as it is made, and the index with it. Run again with the same arguments, it goes on
    where it stopped: a photograph is explained again where a file of its report is missing or not as it was written,
    or where it is another photograph now.

    Parameters
    ----------
    classifier
        The classifier to fool.
    images
        Files and folders of photographs; folders are searched through, but for what lies in `folder`.
    folder
        Where to write: ``index.html``, ``index.csv`` and, for each photograph, a folder of its name (its path below the
        folder that all have in common) with what `Explanation.save` writes.
    attack, methods, trust, units, checks, forge, detector, seed
        As for `explain`.
    label
        The true class of all (name or index); what the classifier sees in each if None.
    labels
        A CSV file with the columns ``file`` and ``label``, for photographs of several classes; in place of `label`.
    target
        The class that is to be reached with all; any wrong one if None.
    figures
        As for `Explanation.save`.
    count
        How many of the photographs to draw at random, with `seed`; all if None.
    about
        What else makes a run another run, such as the model's weights.
    run_as
        How the command line was used, for the reports to show: the ``command`` that does it again, and the ``options of
        the model`` alone.
    notes
        What readers of every report should know first, such as that the model is untrained.
    report
        Called as the run goes on.

    Returns
    -------
    DataFrame
        What ``index.csv`` holds: a row for each photograph, with classes, verdicts, norms, and where it could not be
        explained the reason, in the column ``error``.

    Raises
    ------
    ImageError
        If there is no photograph, or none could be explained.
    MethodError
        If a method that was asked for does not work on this model.
    OutputError
        If the folder holds another run, or cannot be written.
    ParameterError
        If an argument has a value that it must not have.
    """
    folder = Path(folder)
    for name, value in {"label": label, "target": target}.items():
        if value is not None:
            classifier.class_index(value, classifier.class_count(), name)
    check_no_target(classifier, target)
    if label is not None and labels is not None:
        raise bad_parameter("labels", "take the place of `label`", labels, "Give one.")
    universal = open_universal(classifier, trust)
    dissection = None if units is None else open_dissection(classifier, units, "units")
    files = _list_photographs(images, folder, count, seed)
    true = dict.fromkeys(files, label) if labels is None else _read_true_classes(classifier, Path(labels), files)
    run = hide_all_folders(
        {
            **identify_computation(classifier),
            "attack": describe_value(choose_attack(attack, seed)),
            "label": label if labels is None else true,
            "target": target,
            "methods": None if methods is None else [describe_value(method) for method in make_methods(methods, seed)],
            "trust": None if universal is None else digest_content(universal.delta.cpu().numpy().tobytes()),
            "units": None if dissection is None else digest_content(dissection.to_frame().to_csv().encode()),
            "checks": checks,
            **({"forge": True} if forge else {}),
            **(
                {}
                if detector is None
                else {"detector": describe_value(detector.asked), "clean": _digest_clean(detector)}
            ),
            **({"several_labels": True} if classifier.several_labels else {}),
            "figures": figures,
            "count": count,
            "seed": seed,
            **(about or {}),
            "images": list(files),
        }
    )
    given = {"trust": trust, "units": units}
    named = {name: str(value) for name, value in given.items() if isinstance(value, (str, Path))}

    def explain_one(name: str, progress: Progress) -> Explanation:
        explanation = explain(
            classifier,
            files[name],
            attack=attack,
            label=true[name],
            target=target,
            methods=methods,
            trust=universal,
            units=dissection,
            checks=checks,
            forge=forge,
            detector=detector,
            seed=seed,
            progress=progress,
        )
        added = {**named, "image": name, **(run_as or {})}
        explanation = replace(explanation, notes=(*notes, *explanation.notes))
        return replace(explanation, parameters={**explanation.parameters, **hide_all_folders(added)})

    place = _Place(folder, run, figures)
    with claim(folder / RUN_FILE, _RUN, run, results=lambda: _list_runs(folder)):
        entries = _explain_missing(classifier, files, explain_one, place, report)
        _check_some_explained(entries)
        return _write_index(place, entries)


def _digest_clean(detector: Calibration) -> str:
    """Return a digest of the clean images that a detector was calibrated on."""
    return digest_content("\n".join(detector.clean_digests).encode())


def _list_photographs(images: Sequence[str | Path], folder: Path, count: int | None, seed: int) -> dict[str, Path]:
    """Return the photographs by their names; the pictures of reports that were written into the folder are none."""
    given = set(map(Path, images))
    whole = folder.resolve()
    photographs = [path for path in photographs_in(images) if path in given or whole not in path.resolve().parents]
    if not photographs:
        raise ImageError(f"No photographs were found but those in the output folder {folder}. Give another folder.")
    root, names = common_folder(photographs)
    chosen = [names[index] for index in choose(len(names), count, seed)]
    taken = next((name for name in chosen if (folder / name).is_file()), None)
    if taken is not None and taken not in _OWN:
        raise OutputError(
            f"The output folder {folder} cannot be used: the report of {taken} would go to a folder of that name, and "
            "there is a file of it. Give another folder."
        )
    return {name: root / name for name in chosen}


def _read_true_classes(classifier: Classifier, path: Path, files: Mapping[str, Path]) -> dict[str, str | int | None]:
    """Read what each photograph shows; there must be one class for each."""
    name, first = next(iter(files.items()))
    root = first.parents[len(Path(name).parts) - 1]
    matched = match_labels(read_labels(path, "labels"), root, list(files))
    several = next((name for name, shown in zip(files, matched, strict=True) if len(shown) > 1), None)
    if several is not None:
        raise bad_parameter("labels", "must have one label for each photograph", f"several for {several}")
    count = classifier.class_count()
    for (shown,) in matched:
        classifier.class_index(shown, count, "labels")
    return {name: shown for name, (shown,) in zip(files, matched, strict=True)}


@dataclass(frozen=True)
class _Place:
    """The folder that reports go to, the run that they belong to, and how figures are written once more."""

    folder: Path
    run: Mapping[str, Any]
    figures: str | None


def _explain_missing(
    classifier: Classifier,
    files: Mapping[str, Path],
    explain_one: Callable[[str, Progress], Explanation],
    place: _Place,
    report: Callable[[ExplainStanding], None],
) -> list[IndexEntry]:
    """Explain the photographs that are not finished, one on each worker; return the entries of all, in order."""
    contents = {name: digest_file(path) for name, path in files.items()}
    kept = {name: _read_entry(place, name, contents[name]) for name in files}
    entries = {name: entry for name, entry in kept.items() if entry is not None}
    report(ExplainStanding(len(entries), len(files)))
    telling = Lock()

    def attempt(name: str) -> Explanation | WhyfooledError:
        fault = _find_fault(place.folder, name)
        if fault:
            return _FaultyName(fault)

        def say(step: int, steps: int, doing: str) -> None:
            with telling:
                report(ExplainStanding(len(entries), len(files), name, doing=doing))

        try:
            return explain_one(name, say)
        except OutputError:
            raise
        except WhyfooledError as error:
            return error

    missing = [name for name in files if name not in entries]
    for name, made in zip(missing, share_out(classifier, attempt, missing), strict=True):
        works = any(not entry.row.get("error") for entry in entries.values())
        # What works on no photograph is to be said at once, and not after an attack on each.
        if isinstance(made, MethodError) and not works:
            raise made
        entry = _finish_photograph(name, made, place, contents[name])
        entries[name] = entry
        finished = [entries[other] for other in files if other in entries]
        if len(finished) < len(files):
            _write_page(place, finished)
        with telling:
            report(ExplainStanding(len(entries), len(files), name, _say_outcome(entry)))
    return [entries[name] for name in files]


class _FaultyName(WhyfooledError):
    """A photograph cannot have a folder of its name."""


def _finish_photograph(name: str, made: Explanation | WhyfooledError, place: _Place, content: str) -> IndexEntry:
    """Write the report of a photograph, or why there is none."""
    if isinstance(made, _FaultyName):
        # Nothing can be kept of it, and finding it out costs nothing.
        return make_failed_entry(storable_text(name), str(made))
    with output_folder(place.folder / name, _REPORT, ("*.html", ENTRY_FILE)) as staging:
        if isinstance(made, WhyfooledError):
            entry = make_failed_entry(name, hide_folders(str(made)))
        else:
            write_files(made, made.to_dict(), staging, place.figures)
            entry = make_entry(name, made, made.to_dict())
        written = {path.relative_to(staging).as_posix(): digest_file(path) for path in _list_files(staging)}
        record = {
            "photograph": content,
            "run": digest_run(place.run),
            "files": written,
            "row": dict(entry.row),
            "thumbnails": [entry.clean, entry.adversarial],
        }
        write_record(staging / ENTRY_FILE, _ENTRY, record)
    return entry


def _find_fault(folder: Path, name: str) -> str:
    """Say why a photograph cannot have a folder of its name; "" if it can."""
    if name in _OWN:
        return "Its name is that of a file of the index. Rename it."
    return find_name_fault(folder, name, "/report.html")


def _list_files(folder: Path) -> list[Path]:
    return sorted(path for path in folder.rglob("*") if path.is_file())


def _read_entry(place: _Place, name: str, content: str) -> IndexEntry | None:
    """Read the entry of a photograph that is finished: of this run, of its content now, and with its report whole."""
    folder = place.folder / name
    try:
        record = read_record(folder / ENTRY_FILE, _ENTRY)
    except (OSError, ValueError, DamagedError, ImageError):
        return None
    same = (record["photograph"], record["run"]) == (content, digest_run(place.run))
    if not same or any(digest_file(folder / file) != digest for file, digest in record["files"].items()):
        return None
    return IndexEntry(record["row"], *record["thumbnails"])


def _list_runs(folder: Path) -> Iterator[str | None]:
    """Give, for each photograph that is finished, the digest of the run that it belongs to; None if it is damaged."""
    for path in folder.rglob(ENTRY_FILE):
        try:
            yield read_record(path, _ENTRY)["run"]
        except (OSError, DamagedError, ImageError):
            yield None


def _say_outcome(entry: IndexEntry) -> str:
    return str(
        entry.row.get("error") or " ".join(entry.row[key] for key in ("happened", "trusted") if key in entry.row)
    )


def _check_some_explained(entries: Sequence[IndexEntry]) -> None:
    if all(entry.row.get("error") for entry in entries):
        first = entries[0].row
        which = f"None of the {len(entries)} photographs" if len(entries) > 1 else "The photograph"
        could = "could be explained" if len(entries) > 1 else "could not be explained"
        raise ImageError(f"{which} {could}. {first['file']}: {first['error']}")


def _write_index(place: _Place, entries: Sequence[IndexEntry]) -> pd.DataFrame:
    """Write the page and the table of a finished run."""
    table = pd.DataFrame([dict(entry.row) for entry in entries], columns=list(COLUMNS))
    # Whole numbers that may be missing: without this they would become floats.
    whole = [key for key in COLUMNS if any(type(entry.row.get(key)) is int for entry in entries)]
    table = table.astype(dict.fromkeys(whole, "Int64"))
    table["error"] = [entry.row.get("error", "") for entry in entries]
    _write_page(place, entries)
    write_whole(place.folder / TABLE_FILE, table.to_csv(index=False).encode())
    return table


def _write_page(place: _Place, entries: Sequence[IndexEntry]) -> None:
    about = {key: value for key, value in place.run.items() if key not in ("images", "version")}
    page = write_index(entries, len(place.run["images"]), {**about, "versions": versions()})
    write_whole(place.folder / PAGE_FILE, page.encode())
