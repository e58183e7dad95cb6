"""A Ray cluster of two simulated machines."""

from __future__ import annotations

import os
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import ray
from ray.cluster_utils import Cluster

ROOT = Path(__file__).resolve().parents[2]


def lose_a_machine(cluster: Cluster) -> None:
    """Kill the machine that is not the first, with everything that runs there."""
    second = next(node for node in cluster.worker_nodes if node is not cluster.head_node)
    cluster.remove_node(second, allow_graceful=False)


@contextmanager
def two_machines() -> Iterator[Cluster]:
    """Start two machines of one core each, and connect to them for as long as the block lasts."""
    # Ray lets every other process go before its workers, which beside the rest of the tests would hardly ever run.
    os.environ.update(RAY_worker_niceness="0")
    # Workers of the simulated machines import what this process can.
    paths = {"env_vars": {"PYTHONPATH": ":".join([str(ROOT), *filter(None, sys.path)])}}
    cluster = Cluster(initialize_head=True, head_node_args={"num_cpus": 1})
    cluster.add_node(num_cpus=1)
    ray.init(address=cluster.address, log_to_driver=False, runtime_env=paths)
    yield cluster
    ray.shutdown()
    cluster.shutdown()
