"""A fit on two simulated machines is the fit in one process."""

import sys
from pathlib import Path

import pytest
import ray
import torch
from ray.cluster_utils import Cluster

from tests.models import small
from tests.studies.worlds import write_images
from whyfooled.universal import UPIPCA, UPIGrad

ROOT = Path(__file__).resolve().parents[2]


@pytest.fixture(scope="module")
def cluster():
    # Workers of the simulated machines import what this process can.
    paths = {"env_vars": {"PYTHONPATH": ":".join([str(ROOT), *filter(None, sys.path)])}}
    cluster = Cluster(initialize_head=True, head_node_args={"num_cpus": 1})
    cluster.add_node(num_cpus=1)
    ray.init(address=cluster.address, log_to_driver=False, runtime_env=paths)
    yield cluster
    ray.shutdown()
    cluster.shutdown()


@pytest.mark.parametrize(
    "method",
    [UPIPCA(epsilon=1, passes=2, samples=2), UPIGrad(epsilon=1, passes=1, images_per_step=4, penalty=0.1)],
    ids=["pca", "grad"],
)
def test_machines_share_the_images_and_find_the_same(method, cluster, tmp_path):
    images = write_images(tmp_path / "images.npz", count=11, side=8)
    classifier = small(side=8)
    here = method.fit(classifier, images, batch_size=2, threads=1)
    there = method.fit(classifier, images, batch_size=2, threads=1, engine="ray")
    torch.testing.assert_close(there.delta, here.delta, rtol=0, atol=1e-5)
    assert there.passes == here.passes
    assert there.fitted_to == here.fitted_to
    assert [set(step) for step in there.history] == [set(step) for step in here.history]
