"""Running a study: shard after shard, each written whole; resumed where it stopped; the same tables on any engine."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any, final

from whyfooled.classifier import Classifier
from whyfooled.classifier.borrowing import one_thread
from whyfooled.classifier.classifier import check_one_answer
from whyfooled.classifier.memory import batch_size_for
from whyfooled.errors import ImageError, OutputError, at_least, bad_parameter, check_seed
from whyfooled.images import is_file, is_folder, write_whole
from whyfooled.images.seals import is_whole_file
from whyfooled.registry import describe, parameters, parse, with_seed
from whyfooled.running.engines import Engine, ModelRecipe, choose_engine
from whyfooled.running.kept import DamagedError, read_record
from whyfooled.running.provenance import versions
from whyfooled.running.publishing import hide_all_folders
from whyfooled.running.runs import claim, digest_run, identify_computation
from whyfooled.sources import Source, class_map, open_source
from whyfooled.studies.prepare import PERTURBATIONS, Prepared, Setting
from whyfooled.studies.run.job import Finished, Job
from whyfooled.studies.run.write import STUDY, STUDY_FILE, TABLE_FILE, write_results
from whyfooled.studies.study import Study
from whyfooled.studies.table import Table, join, read_about
from whyfooled.tensors.randomness import choose

SHARDS, MAPS = "shards", "maps"
ONE_BY_ONE, TOGETHER = 2, 16
"""Images in a shard where each is measured by itself, which takes long, and where several are together. [ours]"""
THREADS = 1
"""With how many threads an operation is computed. Earlier versions let it be more, which gave other last digits."""


@final
@dataclass(frozen=True)
class Progress:
    """How a running study stands.

    Parameters
    ----------
    done, total
        Images that are finished, and all.
    rate
        Images finished a second since the run was (last) started; 0 before the first.
    headline
        What the number is, in a few words.
    value
        Its mean so far; None before the first.
    doing
        What is done before images are measured, as a fit is; "" while they are.
    shards
        How many shards are finished.
    """

    done: int
    total: int
    rate: float
    headline: str
    value: float | None
    doing: str = ""
    shards: int = 0


@final
@dataclass(frozen=True)
class StudyResult:
    """A finished study.

    Parameters
    ----------
    folder
        Where everything was written.
    table
        The rows; ``table.read()`` gives a DataFrame.
    about
        What the run was and what it came to, as in ``study.json``.
    """

    folder: Path
    table: Table
    about: dict[str, Any]

    @property
    def summary(self) -> str:
        """The summary, in Markdown."""
        return (self.folder / "summary.md").read_text(encoding="utf-8")

    def __repr__(self) -> str:
        return f"StudyResult({self.about['study']} on {self.about['images_measured']} images, in {self.folder})"


@one_thread()
def run_study(
    study: Study | str,
    images: Source | str | Path | Sequence[str | Path],
    folder: str | Path,
    *,
    model: str | Classifier | ModelRecipe | None = None,
    classifier: Classifier | None = None,
    weights: str | Path | None = None,
    float32: bool = False,
    labels: str | Path | None = None,
    count: int | None = None,
    seed: int = 0,
    batch_size: int | None = None,
    shard_size: int | None = None,
    workers: int | None = None,
    keep_maps: bool = False,
    engine: str = "local",
    address: str | None = None,
    device: str = "auto",
    report: Callable[[Progress], None] = lambda progress: None,
) -> StudyResult:
    """Run a study on many images, and write its table, summary and figure into a folder.

    Run again with the same arguments, it goes on where it stopped, whenever that was, and ends in the same table to the
    byte. An image that fails is recorded with its error, and the run goes on.

    Parameters
    ----------
    study
        A study, or its name as on the command line.
    images
        Where the images come from: files, folders, ``"imagenet:ROOT"`` and so on; see `whyfooled.sources.open_source`.
    folder
        Where to write.
    model
        The classifier's name, as `load_classifier` takes it, how to load it, or the classifier itself; the bundled one
        if neither this nor `classifier` is given.
    classifier
        The same as `model`, for a classifier that is there already.
    weights
        As `load_classifier` takes them.
    float32
        Whether to run a model of another precision in single precision, on a copy.
    labels
        A CSV file with the columns ``file`` and ``label``, for files and folders of photographs.
    count
        How many images to draw at random, by the seed; all if None.
    seed
        Seed of everything random, given to methods and attacks whose own was left alone.
    batch_size
        Images measured together; as many as fit into memory if None, on a CPU 8 at most.
        Large images go one at a time there, whatever is given.
    shard_size
        Images in a shard, the unit in which work is written, resumed and shared out; if None, 2 where images are
        measured one by one, 16 where they are not, or a batch, if that is more.
    workers
        Over how many cores shards are shared out, on a GPU none; if None, as many as the threads that PyTorch is set
        to, and with Ray all of the cluster's. The results do not depend on it.
    keep_maps
        Whether to keep the saliency maps too, as safetensors, in ``maps/``.
    engine
        ``"local"``: in this process. ``"ray"``: on the machines of a Ray cluster, which need the images and the weights
        under the same paths.
    address
        The Ray cluster's address; one of this machine alone if None.
    device
        ``"auto"``: the GPU if there is one. Ignored by Ray, which uses the GPUs that the cluster has.
    report
        Called as the run goes on.

    Returns
    -------
    StudyResult

    Raises
    ------
    ParameterError
        If an argument has a value that it must not have, labels do not fit the classifier, or Ray cannot be reached.
    ImageError
        If there are no images, or none could be measured.
    OutputError
        If the folder holds another run, or cannot be written. Finished shards stay.
    """
    check_seed(seed)
    for name, given in {"batch_size": batch_size, "shard_size": shard_size}.items():
        if given is not None:
            at_least(name, given, 1)
    if isinstance(images, Source) and labels is not None:
        raise bad_parameter("labels", "are for files and folders of photographs", labels, "The source has its own.")
    made: Study = parse("studies", study) if isinstance(study, str) else study
    made = with_seed(made, seed)
    source = images if isinstance(images, Source) else open_source(images, None if labels is None else Path(labels))
    _check_attacks(made, source)
    recipe = _choose_recipe(model, classifier, weights, seed, float32)
    classifier = recipe.load(device)
    if {"attack", "attacks"} & set(parameters(type(made))):
        check_one_answer(classifier)
    folder = Path(folder)
    size = _decided(batch_size, folder, "batch_size", lambda: batch_size_for(classifier))
    shard_size = _decided(shard_size, folder, "shard_size", lambda: ONE_BY_ONE if size == 1 else max(TOGETHER, size))
    chosen_engine = choose_engine(engine, address, classifier, workers)
    indices = choose(len(source), count, seed)
    classes = class_map(source, classifier)
    setting = Setting(
        classifier=classifier,
        source=source,
        places=indices,
        labels=None if labels is None else Path(labels),
        folder=folder,
        seed=seed,
        batch_size=size,
        engine=engine,
        address=address,
        workers=workers,
        progress=lambda done, total, doing: report(Progress(done, total, 0.0, made.headline, None, doing)),
    )
    run = hide_all_folders(
        {
            **identify_computation(classifier),
            "study": describe(made),
            "fit": str(classifier.fit),
            **recipe.identity(),
            "images_digest": source.digest(),
            "class_map": classes,
            "attacked_with": ", ".join(source.attacks) or None,
            "count": count,
            "seed": seed,
            "batch_size": size,
            "shard_size": shard_size,
            "threads": THREADS,
            "keep_maps": keep_maps,
            **made.identity(setting),
        }
    )
    _check_free(folder)
    with claim(folder / STUDY_FILE, STUDY, run, results=lambda: _list_runs(folder), partial=_PARTIAL):
        prepared = made.prepare(setting)
        job = Job(
            study=made,
            source=source,
            indices=prepared.places,
            class_map=classes,
            run=digest_run(run),
            seed=seed,
            batch_size=size,
            shard_size=shard_size,
            keep_maps=keep_maps,
            prepared=prepared.carried,
        )
        abouts = _measure(job, recipe, chosen_engine, folder, report)
        about = {
            **run,
            "source": source.title,
            "images_in_source": len(source),
            "true_classes": _truth(source, labels),
            "engine": engine,
        }
        return _finish(job, prepared, about, folder, abouts)


def _choose_recipe(
    model: str | Classifier | ModelRecipe | None,
    classifier: Classifier | None,
    weights: str | Path | None,
    seed: int,
    float32: bool,
) -> ModelRecipe:
    if isinstance(model, ModelRecipe):
        if classifier is not None or weights is not None or float32:
            raise bad_parameter("model", "says all of how it is loaded", "weights, float32 or classifier beside it")
        return model
    return ModelRecipe(_choose_model(model, classifier), weights, seed, float32)


def _choose_model(model: str | Classifier | None, classifier: Classifier | None) -> str | Classifier:
    if model is not None and classifier is not None:
        raise bad_parameter("classifier", "must be left out where `model` is given", classifier.name)
    if classifier is not None:
        return classifier
    return "lite0" if model is None else model


def _check_attacks(study: Study, source: Source) -> None:
    """Raise `ParameterError` if images are saved adversarial ones of several attacks, and a study is about one."""
    if len(source.attacks) > 1 and "attack" in parameters(type(study)):
        rule = f"must be adversarial images of one attack for {study.card.name}"
        raise bad_parameter("images", rule, ", ".join(source.attacks), "Give one folder.")


def _truth(source: Source, labels: str | Path | None) -> str:
    if labels is not None:
        return f"from {labels}"
    known = any(source.labels(index) for index in range(len(source)))
    return "the source's own" if known else "what the model sees in the clean image"


def _decided(given: int | None, folder: Path, key: str, choose: Callable[[], int]) -> int:
    """Return a number that is a part of a run's identity: as given, as this folder's run was begun with, or chosen."""
    if given is not None:
        return given
    with suppress(OSError, ValueError, DamagedError, ImageError):
        begun_with = read_record(folder / STUDY_FILE, STUDY).get(key)
        if type(begun_with) is int and begun_with >= 1:
            return begun_with
    return choose()


def _check_free(folder: Path) -> None:
    """Raise `OutputError` if a folder holds something else than a study: its files would lie among the study's."""
    if not is_folder(folder) or is_file(folder / STUDY_FILE):
        return
    try:
        names = [path.name for path in folder.iterdir()]
    except OSError as error:
        raise OutputError(f"The output folder {folder} cannot be used: {error.strerror or error}.") from None
    # What a killed process left is no file of somebody else.
    ours = {SHARDS, MAPS, PERTURBATIONS, *_PARTIAL}
    other = next((name for name in sorted(names) if name not in ours and name[0] != "."), None)
    if other is not None:
        raise OutputError(f"{folder} holds other files, such as {other}, and no study. Give a folder of its own.")


def _list_runs(folder: Path) -> Iterator[str | None]:
    """Give the run that each shard in a folder is of; None if it does not say. One of nothing but errors is no loss."""
    for path in (folder / SHARDS).glob("*.parquet"):
        about = read_about(path)
        if about is None or about["good"]:
            yield None if about is None else about["run"]


_PARTIAL = tuple(
    f"{name}.partial"
    for name in (
        *(STUDY_FILE, TABLE_FILE, "summary.md", "summary.tex", "figure.png", "figure.pdf", "units.json"),
        *(f"{SHARDS}/*.parquet", f"{MAPS}/*.safetensors", f"{PERTURBATIONS}/*.safetensors"),
    )
)
"""What earlier versions wrote to at first."""


def _measure(
    job: Job, model: ModelRecipe, engine: Engine, folder: Path, report: Callable[[Progress], None]
) -> list[Mapping[str, Any]]:
    """Measure the shards that are not there yet, write each as it is finished, and return what is kept beside all."""
    clock = _Clock(job, report)
    abouts: list[Mapping[str, Any]] = []
    waiting = []
    for shard in job.shards:
        about = read_about(_shard_file(folder, shard))
        if about is not None and about["run"] == job.run and _has_maps(job, folder, shard):
            clock.done += job.count(shard)
            clock.take(about)
            abouts.append(about)
        else:
            waiting.append(shard)
    clock.started = time.perf_counter()
    clock.say()
    if waiting:
        with engine.start(job, model, len(waiting)) as crew:
            for _, finished in crew.run({shard: shard for shard in waiting}, clock.tick):
                _write(finished, folder)
                clock.take(finished.about)
                clock.say()
                abouts.append(finished.about)
    return abouts


def _has_maps(job: Job, folder: Path, shard: int) -> bool:
    """Tell whether a shard's maps are there, undamaged, if they are kept."""
    try:
        return not job.keep_maps or is_whole_file(_maps_file(folder, shard)) is True
    except OSError:
        return False


def _maps_file(folder: Path, shard: int) -> Path:
    return folder / MAPS / f"{shard:06d}.safetensors"


def _shard_file(folder: Path, shard: int) -> Path:
    return folder / SHARDS / f"{shard:06d}.parquet"


def _write(finished: Finished, folder: Path) -> None:
    # The table last: a shard counts as finished when its table is there.
    if finished.maps is not None:
        write_whole(_maps_file(folder, finished.shard), finished.maps)
    write_whole(_shard_file(folder, finished.shard), finished.table)


class _Clock:
    """Counts what is finished, and reports it. Lives inside one run."""

    def __init__(self, job: Job, report: Callable[[Progress], None]) -> None:
        self.job, self.report = job, report
        self.done = self.now = self.values = self.shards = 0
        self.sum = 0.0
        self.started = time.perf_counter()

    def tick(self, images: int) -> None:
        self.done += images
        self.now += images
        self.say()

    def take(self, about: Mapping[str, Any]) -> None:
        total, count = about["headline"]
        self.sum, self.values = self.sum + total, self.values + count
        self.shards += 1

    def say(self) -> None:
        seconds = time.perf_counter() - self.started
        value = self.sum / self.values if self.values else None
        rate = self.now / seconds if self.now else 0.0
        headline = self.job.study.headline
        self.report(Progress(self.done, len(self.job.indices), rate, headline, value, shards=self.shards))


def _finish(
    job: Job, prepared: Prepared, about: dict[str, Any], folder: Path, abouts: Sequence[Mapping[str, Any]]
) -> StudyResult:
    """Join the shards, write the study up, and say what the run was."""
    join([_shard_file(folder, shard) for shard in job.shards], folder / TABLE_FILE)
    table = Table(folder / TABLE_FILE)
    failed = table.errors()
    measured = table.read(["index"])["index"].nunique()
    if not measured:
        first = failed.iloc[0]
        raise ImageError(f"None of the {len(job.indices)} images could be measured. {first['image']}: {first['error']}")
    about |= {
        "images_measured": measured,
        "images_given": len(job.indices),
        "failed": [f"{row.image}: {row.error}" for row in failed.head(_NAMED).itertuples()],
        "failures": len(failed),
        "forwards": prepared.passes.forwards + sum(shard["forwards"] for shard in abouts),
        "backwards": prepared.passes.backwards + sum(shard["backwards"] for shard in abouts),
        "notes": [*prepared.notes, *sorted({note for shard in abouts for note in shard["notes"]})],
        "versions": versions(),
    }
    return StudyResult(folder, table, write_results(type(job.study), table, folder, hide_all_folders(about)))


_NAMED = 100
"""How many failures are named in ``study.json``; the table has all."""
