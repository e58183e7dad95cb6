"""Damaged files and killed commands, by the thousand and by the hundred: what must never happen is counted."""

from __future__ import annotations

import hashlib
import json
import shutil
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import chdir
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow.parquet as pq
import torch
from PIL import Image
from rich.console import Console
from rich.table import Table
from safetensors.torch import load_file, save_file

from benchmarks._kills import Job, Tally, collect_bytes, collect_report, kill
from benchmarks._mutations import Outcome, Subject, damage, find_json
from tests.helpers.forked import CommandProcess
from whyfooled import load_adversaries, load_classifier
from whyfooled.errors import ImageError
from whyfooled.images import read_adversarial, read_photograph
from whyfooled.images.seals import is_whole_file
from whyfooled.sources import open_source, read_labels
from whyfooled.studies import Table as Rows
from whyfooled.studies import redraw
from whyfooled.studies.run.write import read_study
from whyfooled.studies.table import read_about
from whyfooled.units import load_dissection, open_concepts
from whyfooled.universal import UniversalPerturbation

FILES, KILLS = 2400, 120
"""How many files are damaged and how often commands are killed; fewer where there is no time."""
IMAGES, SIDE, CLASSES = 6, 32, 4

NETS = f"""
import torch
from torch import nn

from whyfooled import Classifier


class Net(nn.Module):
    def __init__(self):
        super().__init__()
        torch.manual_seed(0)
        self.conv = nn.Conv2d(3, 8, 3, stride=2)
        self.deep = nn.Conv2d(8, 8, 3, stride=2)
        self.head = nn.Linear(8, {CLASSES})

    def forward(self, x):
        return 50 * self.head(torch.relu(self.deep(torch.relu(self.conv(x)))).mean((2, 3)))


def Tiny():
    return Classifier(Net(), size=({SIDE}, {SIDE}), name="tiny")
"""
MODEL = ("--model", "nets.py:Tiny", "--quiet")
MASKS = "masks:photographs,labels,names.txt"
JOBS = (
    Job(
        "attack",
        ("attack", "photographs", "--attack", "fmn(steps=10)", "--batch-size", "2", *MODEL, "-o", "out"),
        collect_bytes("out/**/*"),
    ),
    Job(
        "study",
        (
            *("study", "filtering-effect(methods=[gradient, guided])", "--images", "photographs", "--maps"),
            *("--shard-size", "2", "--batch-size", "1", "--workers", "1", "--device", "cpu", *MODEL, "-o", "out"),
        ),
        collect_bytes("out/**/*"),
    ),
    Job(
        "universal fit",
        (
            *("universal", "fit", "--method", "grad(passes=5, images_per_step=2)", "--epsilon", "2"),
            *("--images", "photographs", "--device", "cpu", *MODEL, "-o", "out/delta.safetensors"),
        ),
        collect_bytes("out/**/*"),
    ),
    Job(
        "dissect",
        ("dissect", "--concepts", MASKS, "--layer", "deep", "--device", "cpu", *MODEL, "-o", "out"),
        collect_report,
        "index.html",
    ),
    Job(
        "explain",
        (
            *("explain", "photographs/0.png", "--attack", "fmn(steps=10)", "--methods", "gradient"),
            *(*MODEL, "-o", "out"),
        ),
        collect_report,
        "report.html",
    ),
)


def run(minutes: float, seed: int) -> None:
    torch.set_num_threads(1)
    started = time.monotonic()
    with tempfile.TemporaryDirectory() as place, chdir(place):
        world = Path(place) / "world"
        _make_world(world)
        kills = {}
        for number, job in enumerate(JOBS, 1):
            deadline = started + 60 * minutes * 0.7 * number / len(JOBS)
            kills[job.name] = kill(job, world, KILLS // len(JOBS), seed, deadline)
        outcomes = _damage_all(world, seed, started + 60 * minutes)
    _print(kills, outcomes)
    print(f"Seed {seed}, {time.monotonic() - started:.0f} seconds.")
    if sum(tally.bad for tally in kills.values()) + sum(outcome.bad for outcome in outcomes.values()):
        sys.exit(1)


def _make_world(world: Path) -> None:
    """Write a model, photographs, labels and masks into a folder."""
    for name in ("photographs", "labels"):
        (world / name).mkdir(parents=True)
    (world / "nets.py").write_text(NETS)
    (world / "names.txt").write_text("left\nright\nunlabelled\n")
    draw = np.random.default_rng(0)
    for number in range(IMAGES):
        pixels = draw.integers(0, 255, (8, 8, 3), dtype=np.uint8)
        Image.fromarray(pixels).resize((SIDE, SIDE)).save(world / "photographs" / f"{number}.png")
        Image.fromarray(draw.integers(0, 3, (8, 8), dtype=np.uint8)).save(world / "labels" / f"{number}.png")


def _damage_all(world: Path, seed: int, deadline: float) -> dict[str, Outcome]:
    """Damage files of all formats, a share of each in turn, so that none is left out where there is no time."""
    outcomes: dict[str, Outcome] = {}
    with chdir(world):
        subjects = list(_list_subjects(world))
        share = FILES // len(subjects) // 4
        for turn in range(4):
            for subject in subjects:
                if time.monotonic() < deadline:
                    first = seed + turn * share
                    outcomes.setdefault(subject.name, Outcome()).add(damage(subject, range(first, first + share)))
    return outcomes


def _list_subjects(world: Path) -> Iterator[Subject]:
    """Make a file of every format that is read, each with what reads it."""
    yield from _photographs(world)
    yield from _tables(world)
    yield from _tensors(world)
    yield from _adversaries(world / "adversaries")
    yield from _study(world / "study")
    yield from _perturbations(world)
    yield from _dissections(world / "dissection")
    yield from _masks(world)


def _photographs(world: Path) -> Iterator[Subject]:
    image = Image.open(world / "photographs" / "0.png")
    for suffix in ("png", "jpg", "webp", "bmp", "tiff"):
        path = world / f"photograph.{suffix}"
        image.save(path)
        yield Subject(f"photograph, {suffix}", path, partial(_read_photograph, path))


def _read_photograph(path: Path) -> str:
    return _digest(np.asarray(read_photograph(path)))


def _tables(world: Path) -> Iterator[Subject]:
    labels = world / "labels.csv"
    labels.write_text("file,label\n" + "".join(f"{number}.png,{number % CLASSES}\n" for number in range(IMAGES)))
    yield Subject("labels, csv", labels, lambda: str(read_labels(labels, "--labels")))
    arrays = world / "images.npz"
    images = np.random.default_rng(0).integers(0, 255, (3, SIDE, SIDE, 3), dtype=np.uint8)
    np.savez_compressed(arrays, images=images, labels=np.arange(3))

    def read_arrays() -> str:
        source = open_source(str(arrays))
        return f"{[_digest(np.asarray(one.image)) for one in source]} {source.digest()}"

    yield Subject("images, npz", arrays, read_arrays)


def _tensors(world: Path) -> Iterator[Subject]:
    module = load_classifier(f"{world}/nets.py:Net").module
    state = {name: tensor.contiguous() for name, tensor in module.state_dict().items()}
    image = torch.rand(3, SIDE, SIDE, generator=torch.Generator().manual_seed(0))
    torch.save(state, world / "weights.pt")
    save_file(state, world / "weights.safetensors")
    for suffix in ("pt", "safetensors"):
        path = world / f"weights.{suffix}"
        yield Subject(f"weights, {suffix}", path, partial(_read_weights, world, path))
    torch.save(image, world / "image.pt")
    np.save(world / "image.npy", image.numpy())
    save_file({"image": image}, world / "image.safetensors")
    for suffix in ("pt", "npy", "safetensors"):
        path = world / f"image.{suffix}"
        yield Subject(f"tensor, {suffix}", path, partial(_read_tensor, path))


def _read_tensor(path: Path) -> str:
    return _digest(read_adversarial(path, (3, SIDE, SIDE)).numpy())


def _read_weights(world: Path, path: Path) -> str:
    return load_classifier(f"{world}/nets.py:Net", weights=path).digest()


def _adversaries(folder: Path) -> Iterator[Subject]:
    _do("attack", folder)
    first = folder / "0.png.safetensors"

    def read(folder: Path = folder) -> str:
        result = load_adversaries(folder)["0.png"]
        source = open_source(str(folder))
        tensors = (result.clean, result.adversarial, result.attempted, result.clean_logits, result.logits)
        plain = (result.success.tolist(), result.goal, result.forwards.tolist(), source.names, source.labels(0))
        return f"{[_digest(tensor.numpy()) for tensor in tensors]} {plain} {source.digest()}"

    yield Subject("adversarial image", first, read, sealed=True)
    yield Subject("adversarial images, run.json", folder / "run.json", read, sealed=True)
    old = folder.with_name("adversaries of the first version")
    shutil.copytree(folder, old)
    for name in ("0.png.safetensors", "run.json"):
        _unseal(old / name)
        yield Subject(f"{name.partition('.')[2]} of the first version", old / name, lambda: read(old))


def _study(folder: Path) -> Iterator[Subject]:
    _do("study", folder)
    shard, maps = folder / "shards" / "000001.parquet", folder / "maps" / "000001.safetensors"
    table = folder / "table.parquet"

    def read_shard() -> str:
        about = read_about(shard)
        if about is None:
            raise ImageError("It is measured again.")
        return f"{about} {pq.read_table(shard).to_pydict()}"

    def read_maps() -> str:
        if not is_whole_file(maps):
            raise ImageError("They are made again.")
        return str({name: _digest(one.numpy()) for name, one in load_file(maps).items()})

    yield Subject("shard", shard, read_shard, sealed=True)
    yield Subject("maps of a shard", maps, read_maps, sealed=True)
    yield Subject(
        "table.parquet", table, lambda: f"{Rows(table).read().to_csv()} {Rows(table).errors().to_csv()}", sealed=True
    )
    yield Subject("study.json", folder / "study.json", lambda: str(read_study(folder)[0]), sealed=True)
    old = folder.with_name("study of the first version")
    shutil.copytree(folder, old)
    _unseal(old / "study.json")
    pq.write_table(pq.read_table(table).replace_schema_metadata(None), old / "table.parquet")
    for name in ("study.json", "table.parquet"):
        yield Subject(f"{name} of the first version", old / name, lambda: str(redraw(old)))


def _perturbations(world: Path) -> Iterator[Subject]:
    path = world / "delta.safetensors"
    _do("universal fit", world / "fit")
    shutil.copy(world / "fit" / "delta.safetensors", path)

    def read(path: Path) -> str:
        made = UniversalPerturbation.load(path)
        return f"{_digest(made.delta.numpy())} {made.size_text()} {made.history} {made.fitted_to} {made.versions}"

    yield Subject("universal perturbation", path, lambda: read(path), sealed=True)
    old = path.with_name("delta of the first version.safetensors")
    shutil.copy(path, old)
    _unseal(old)
    yield Subject("universal perturbation of the first version", old, lambda: read(old))


def _dissections(folder: Path) -> Iterator[Subject]:
    _do("dissect", folder)

    def read(folder: Path = folder) -> str:
        dissection = load_dissection(folder)
        return f"{dissection.to_frame().to_csv()} {dissection.overlaps().to_csv()} {dissection.parameters}"

    for name in ("dissection.json", "tensors.safetensors"):
        yield Subject(f"dissection, {name}", folder / name, read, sealed=True)
    old = folder.with_name("dissection of the first version")
    shutil.copytree(folder, old)
    _unseal(old / "dissection.json")
    yield Subject("dissection.json of the first version", old / "dissection.json", lambda: read(old))


def _masks(world: Path) -> Iterator[Subject]:
    def read() -> str:
        concepts = open_concepts(MASKS)
        return str([_digest(concepts[place].maps.numpy()) for place in range(len(concepts))])

    for path in (world / "labels" / "0.png", world / "names.txt"):
        yield Subject(f"masks, {path.suffix[1:]}", path, read)


def _do(name: str, folder: Path) -> None:
    """Run one of the commands here, and give its output another name."""
    job = next(job for job in JOBS if job.name == name)
    code, _, said = CommandProcess(folder.parent, *job.arguments).end()
    if code:
        raise RuntimeError(said)
    (folder.parent / "out").rename(folder)


def _unseal(path: Path) -> None:
    """Rewrite a file as the first version wrote it: without its seal."""
    content = path.read_bytes()
    start, end = find_json(content) or (0, 0)
    values = json.loads(content[start:end])
    inside: dict[str, Any] = json.loads(values["__metadata__"]["whyfooled"]) if start else values
    inside.pop("seal")
    inside["format"] = 1
    if start:
        values["__metadata__"]["whyfooled"] = json.dumps(inside)
    text = json.dumps(values).encode()
    path.write_bytes(text if not start else len(text).to_bytes(8, "little") + text + content[end:])


def _digest(values: np.ndarray[Any, Any]) -> str:
    return f"{values.dtype}{values.shape}{hashlib.blake2b(values.tobytes(), digest_size=8).hexdigest()}"


def _print(kills: dict[str, Tally], outcomes: dict[str, Outcome]) -> None:
    damaged = Table("damaged file", "files", "refused or done again", "tracebacks", "hangs", "silent changes")
    for name, one in outcomes.items():
        damaged.add_row(name, *map(str, (one.files, one.refused, one.tracebacks, one.hangs, one.silent)))
    every = list(outcomes.values())
    sums = [sum(getattr(one, key) for one in every) for key in ("files", "refused", "tracebacks", "hangs", "silent")]
    damaged.add_row("all", *map(str, sums), style="bold")
    killed = Table("killed command", "kills", "before its end", "blocked", "lost", "left behind")
    for name, tally in kills.items():
        counts = (tally.kills, tally.before_the_end, tally.blocked, tally.lost, tally.leftovers)
        killed.add_row(name, *map(str, counts))
    for table in (damaged, killed):
        Console().print(table)
    found = {name: one.examples for name, one in outcomes.items()} | {name: one.examples for name, one in kills.items()}
    for name, examples in found.items():
        for example in examples[:5]:
            print(f"{name}: {example}")
