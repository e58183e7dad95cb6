"""On Ray: two simulated machines, one of them killed in the middle; the same files to the byte."""

import shutil
import socket
import time
from types import SimpleNamespace

import pytest
import ray
import torch

from tests.helpers.annotated_images import write_masks
from tests.helpers.machines import lose_a_machine, two_machines
from tests.helpers.models import small
from tests.helpers.pictures import photograph
from tests.helpers.small_studies import write_images
from whyfooled.attacks import FMN
from whyfooled.attacks.many import attack_files
from whyfooled.errors import ModelError, ParameterError, WhyfooledError, WhyfooledWarning
from whyfooled.running import engines
from whyfooled.running.engines import ModelRecipe
from whyfooled.studies import run_study
from whyfooled.units import dissect, open_concepts
from whyfooled.units.dissection import passes, unfinished
from whyfooled.universal import UPIPCA, UPIGrad

MODEL = """
from tests.helpers.models import small


def make():
    return small()
"""
STUDY = "filtering-effect(top=2)"


@pytest.fixture(scope="module")
def world(tmp_path_factory):
    folder = tmp_path_factory.mktemp("ray")
    (folder / "nets.py").write_text(MODEL)
    images = write_images(folder / "images.npz", count=24)
    options = {"model": f"{folder / 'nets.py'}:make", "shard_size": 2, "batch_size": 2, "workers": 1}
    whole = run_study(STUDY, images, folder / "local", **options).table.path.read_bytes()
    return folder, images, options, whole


@pytest.fixture(scope="module")
def machines():
    with two_machines() as cluster:
        yield cluster


@pytest.fixture
def cluster(machines):
    """Two machines, whatever an earlier test did to one of them."""
    if len(machines.list_all_nodes()) < 2:
        machines.add_node(num_cpus=1)
    return machines


def contents(folder):
    return {path.relative_to(folder).as_posix(): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


class Stopped(Exception):
    """Stands for whatever ends a process."""


def once(act, condition=lambda standing: True):
    """Do something the first time that a condition holds of what is reported."""
    done = []

    def report(standing):
        if not done and condition(standing):
            done.append(standing)
            act()

    return report, done


def stop():
    raise Stopped


def test_a_killed_machine_costs_nothing_but_time_and_the_table_is_the_same(world, cluster):
    folder, images, options, whole = world
    kill, killed = once(lambda: lose_a_machine(cluster), lambda progress: progress.done >= 4)
    result = run_study(STUDY, images, folder / "killed", engine="ray", report=kill, **options)
    assert killed[0].done < 24
    assert result.table.path.read_bytes() == whole
    assert result.about["engine"] == "ray"


def test_an_attack_that_was_begun_here_ends_there_in_the_same_files(world, cluster, tmp_path, monkeypatch):
    _, _, options, _ = world
    for number in range(14):
        photograph(tmp_path / "photographs" / f"{number:02d}.png", number)
    # Neither a picture, nor the folder that it is in, as seen from a worker's own.
    (tmp_path / "photographs" / "07.png").write_bytes(b"no picture")
    monkeypatch.chdir(tmp_path)
    recipe = ModelRecipe(options["model"])

    def attack(folder, **where):
        loaded = recipe.load("cpu")
        return attack_files(loaded, ["photographs"], FMN(steps=5), folder, batch_size=2, model=recipe, **where)

    attack("here")
    stopping, _ = once(stop, lambda standing: standing.finished >= 4)
    with pytest.raises(Stopped):
        attack("there", report=stopping)
    kill, killed = once(lambda: lose_a_machine(cluster), lambda standing: standing.finished >= 6)
    _, errors = attack("there", engine="ray", report=kill)
    assert killed[0].finished < 14
    assert list(errors) == ["07.png"]
    assert contents(tmp_path / "there") == contents(tmp_path / "here")


@pytest.mark.parametrize(
    "memory", [pytest.param(1, id="one pass"), pytest.param(0, id="two passes", marks=pytest.mark.nightly)]
)
def test_a_dissection_that_was_begun_here_ends_there_in_the_same_files(memory, world, cluster, tmp_path, monkeypatch):
    _, _, options, _ = world
    masks = write_masks(tmp_path)
    for number in range(11):
        photograph(tmp_path / "images" / f"{number}.jpg", number)
        shutil.copy(tmp_path / "labels" / "b" / "one.png", tmp_path / "labels" / f"{number}.png")
    # How long it took is the only thing that may differ.
    monkeypatch.setattr(passes, "time", SimpleNamespace(perf_counter=lambda: 0.0))
    for module, name, value in ((passes, "_MOST_IMAGES", 2), (unfinished, "SECONDS", 0), (unfinished, "_SHARE", 0)):
        monkeypatch.setattr(module, name, value)
    recipe = ModelRecipe(options["model"])
    more = {"top": 0.05, "permutations": 2, "batch_size": 2, "memory": memory, "model": recipe}

    def run(folder, **where):
        loaded, concepts = recipe.load("cpu"), open_concepts(masks)
        found = dissect(loaded, ["first", "second"], concepts, **more, unfinished=folder, **where)
        return found.save(folder)

    run(tmp_path / "here")
    stopping, _ = once(stop, lambda done: done > 4)
    with pytest.raises(Stopped):
        run(tmp_path / "there", progress=lambda done, total, doing: stopping(done))
    kill, killed = once(lambda: lose_a_machine(cluster), lambda step: step[1] == "overlaps")
    run(tmp_path / "there", engine="ray", progress=lambda done, total, doing: kill((done, doing)))
    assert killed
    assert contents(tmp_path / "there") == contents(tmp_path / "here")
    assert {"index.html", "dissection.json", "tensors.safetensors"} <= set(contents(tmp_path / "there"))


@pytest.mark.parametrize(
    "method",
    [UPIPCA(epsilon=1, passes=2, samples=2), UPIGrad(epsilon=1, passes=1, images_per_step=4, penalty=0.1)],
    ids=["pca", "grad"],
)
def test_machines_share_the_images_of_a_fit_and_find_the_same(method, cluster, tmp_path):
    images = write_images(tmp_path / "images.npz", count=11, side=8)
    classifier = small(side=8)
    here = method.fit(classifier, images, batch_size=2, workers=1)
    there = method.fit(classifier, images, batch_size=2, workers=1, engine="ray")
    assert torch.equal(there.delta, here.delta)
    assert there.passes == here.passes
    assert there.fitted_to == here.fitted_to
    assert there.history == here.history


def test_a_run_on_cpus_is_on_cpus_where_the_cluster_has_gpus(world, cluster):
    folder, images, options, whole = world
    node = cluster.add_node(num_cpus=1, num_gpus=1)
    try:
        with pytest.warns(WhyfooledWarning, match="leaves the cluster's GPUs idle"):
            result = run_study(STUDY, images, folder / "beside", engine="ray", **options)
    finally:
        cluster.remove_node(node)
    assert result.table.path.read_bytes() == whole


def test_a_shard_that_kills_its_workers_is_named(world, cluster, monkeypatch):
    folder, images, options, _ = world
    source = (folder / "nets.py").read_text()
    (folder / "deadly.py").write_text(
        source
        + """

def deadly():
    import os

    classifier = make()
    classifier.module.register_forward_pre_hook(lambda module, inputs: os._exit(1) if len(inputs[0]) == 2 else None)
    return classifier
"""
    )
    options = {**options, "model": f"{folder / 'deadly.py'}:deadly"}
    monkeypatch.setattr(engines, "MOST_DEATHS", 1)
    # The driver's own passes have one image; those of the shards have two.
    with pytest.raises(WhyfooledError, match=r"A Ray worker died while working on shard \d+, 1 times"):
        run_study(STUDY, images, folder / "deadly", engine="ray", **options)


def test_an_error_on_a_worker_is_the_same_sentence_as_here(world, cluster, tmp_path):
    folder, images, options, _ = world
    model = tmp_path / "gone.py"
    model.write_text((folder / "nets.py").read_text())
    seen = []

    def remove(progress):
        seen.append(progress)
        model.unlink(missing_ok=True)

    with pytest.raises(ModelError, match=r"There is no file .*gone\.py with a model"):
        run_study(STUDY, images, folder / "gone", engine="ray", report=remove, **{**options, "model": f"{model}:make"})


def test_an_address_that_nobody_answers_at_is_one_sentence_and_quick(world, tmp_path, monkeypatch):
    _, images, options, _ = world
    monkeypatch.setattr(ray, "is_initialized", lambda: False)
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        address = f"127.0.0.1:{free.getsockname()[1]}"
    started = time.monotonic()
    with pytest.raises(ParameterError, match=f"`address` must be that of a running Ray cluster; got {address}"):
        run_study(STUDY, images, tmp_path / "out", engine="ray", address=address, **options)
    assert time.monotonic() - started < 30
