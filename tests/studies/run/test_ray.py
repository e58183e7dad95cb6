"""Studies on Ray: two simulated machines, one of them killed in the middle; the same table to the byte."""

import socket
import time

import pytest
import ray

from tests.helpers.machines import two_machines
from tests.helpers.small_studies import write_images
from whyfooled.errors import ModelError, ParameterError, WhyfooledError
from whyfooled.running import engines
from whyfooled.studies import run_study

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
def cluster():
    with two_machines() as cluster:
        yield cluster


def test_a_killed_machine_costs_nothing_but_time_and_the_table_is_the_same(world, cluster):
    folder, images, options, whole = world
    second = next(node for node in cluster.worker_nodes if node is not cluster.head_node)
    killed = []

    def kill(progress):
        if progress.done >= 4 and not killed:
            killed.append(progress.done)
            cluster.remove_node(second, allow_graceful=False)

    result = run_study(STUDY, images, folder / "killed", engine="ray", report=kill, **options)
    assert killed
    assert killed[0] < 24
    assert result.table.path.read_bytes() == whole
    assert result.about["engine"] == "ray"


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
