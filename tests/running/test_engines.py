"""How work is handed out on a cluster whose workers die at chosen moments; the cluster is a fake, so nothing waits."""

from __future__ import annotations

import signal
from contextlib import closing
from dataclasses import dataclass, field
from types import SimpleNamespace
from typing import Any

import pytest

from tests.helpers.models import small
from tests.helpers.small_studies import Brightness
from whyfooled.errors import ParameterError, WhyfooledError, WhyfooledWarning
from whyfooled.running.engines import Local, ModelRecipe, _connected, _Crew, choose_engine, in_order
from whyfooled.sources import Source
from whyfooled.studies.run.job import Finished, Job


class ActorDied(Exception):
    pass


class ObjectLost(Exception):
    pass


class TaskFailed(Exception):
    cause = ValueError("no")


@dataclass(eq=False)
class FakeWorker:
    ray: FakeRay
    alive: bool = True

    def __getattr__(self, name: str) -> Any:
        return SimpleNamespace(remote=lambda *shard: (self, name, *shard))


@dataclass(eq=False)
class FakeRay:
    """A cluster with so many places; what befalls a shard's next measurements is written down beforehand."""

    places: int
    gpus: int = 0
    fates: dict[int, list[type[Exception]]] = field(default_factory=dict)
    workers: list[FakeWorker] = field(default_factory=list)
    heard: tuple[str, ...] = ()
    exceptions = SimpleNamespace(RayActorError=ActorDied, ObjectLostError=ObjectLost, RayTaskError=TaskFailed)

    def cluster_resources(self):
        return {"CPU": float(self.places)} | ({"GPU": float(self.gpus)} if self.gpus else {})

    def available_resources(self):
        return {}

    def nodes(self):
        return [{"Alive": True, "Resources": {"CPU": 1.0}}]

    def put(self, value):
        return value

    def remote(self, **resources):
        return lambda cls: SimpleNamespace(remote=lambda work, model, device, folder: self._start(device, resources))

    def _start(self, device, resources):
        assert resources == {"num_cpus": 1, "num_gpus": int(device == "cuda")}
        self.workers.append(FakeWorker(self))
        return self.workers[-1]

    def _placed(self, worker):
        return worker in [one for one in self.workers if one.alive][: self.places]

    def wait(self, refs, num_returns, timeout):
        ready = [ref for ref in refs if self._placed(ref[0]) or not ref[0].alive]
        return ready[:1], [ref for ref in refs if ref not in ready[:1]]

    def get(self, ref):
        worker, name, *shard = ref
        if name == "load":
            return None
        fates = self.fates.get(shard[0], [])
        if fates:
            fate = fates.pop(0)
            if fate is not TaskFailed:
                # The machine is gone, and with it the place.
                worker.alive, self.places = False, self.places - 1
            raise fate
        return Finished(shard[0], {}, b"", None), self.heard

    def kill(self, worker):
        worker.alive = False


class Nothing:
    def read(self, index):
        raise AssertionError

    def files(self):
        return ()


def crew_of(ray, shards, device="cpu"):
    names = tuple(map(str, shards))
    source = Source("nothing", names, ((),) * len(names), Nothing())
    job = Job(Brightness(), source, shards, None, run="r", seed=0, batch_size=1, shard_size=1, keep_maps=False)
    return _Crew(ray, job, ModelRecipe("lite0", None, 0), len(shards), device)


def measured(ray, shards):
    ticks = []
    with closing(crew_of(ray, shards)) as crew:
        found = sorted(finished.shard for _, finished in crew.run({shard: shard for shard in shards}, ticks.append))
    return found, sum(ticks)


@pytest.mark.parametrize("fate", [ActorDied, ObjectLost])
@pytest.mark.parametrize("shard", [0, 1, 4, 5])
def test_a_shard_whose_machine_is_lost_is_measured_by_a_worker_that_is_left(fate, shard):
    ray = FakeRay(places=2, fates={shard: [fate]})
    assert measured(ray, range(6)) == ([0, 1, 2, 3, 4, 5], 6)
    assert not any(worker.alive for worker in ray.workers)


def test_the_last_shard_does_not_wait_for_a_place_while_a_worker_is_idle():
    assert measured(FakeRay(places=2, fates={1: [ActorDied]}), range(2)) == ([0, 1], 2)


def test_a_cluster_without_any_place_left_is_said():
    with pytest.raises(WhyfooledError, match="No Ray worker could be started within 10 minutes"):
        measured(FakeRay(places=1, fates={0: [ActorDied]}), range(2))


def test_a_shard_that_kills_one_worker_after_the_other_ends_the_run():
    with pytest.raises(WhyfooledError, match="died while working on shard 3, 3 times"):
        measured(FakeRay(places=9, fates={3: [ActorDied] * 5}), range(6))


def test_an_error_of_a_worker_ends_the_run_and_frees_the_cluster():
    ray = FakeRay(places=2, fates={2: [TaskFailed]})
    with pytest.raises(WhyfooledError, match="A Ray worker failed: ValueError: no"):
        measured(ray, range(4))
    assert not any(worker.alive for worker in ray.workers)


def test_a_run_that_is_given_up_frees_the_cluster():
    ray = FakeRay(places=2)
    with closing(crew_of(ray, range(4))) as crew:
        next(crew.run({shard: shard for shard in range(4)}))
    assert ray.workers
    assert not any(worker.alive for worker in ray.workers)


def test_what_a_worker_is_warned_of_is_said_here():
    ray = FakeRay(places=2, heard=("A worker sees something that its user should know.",))
    with pytest.warns(WhyfooledWarning, match="A worker sees something that its user should know"):
        assert measured(ray, range(4)) == ([0, 1, 2, 3], 4)


def test_gpus_are_left_idle_with_a_warning_where_the_run_is_on_cpus():
    ray = FakeRay(places=3, gpus=2)
    with pytest.warns(WhyfooledWarning, match=r"is on CPUs, .* leaves the cluster's GPUs idle \(2 of them\)"):
        assert measured(ray, range(4)) == ([0, 1, 2, 3], 4)
    assert len(ray.workers) == 3


def test_there_is_a_worker_for_each_gpu_where_the_run_is_on_gpus():
    ray = FakeRay(places=3, gpus=2)
    with closing(crew_of(ray, range(4), "cuda")):
        assert len(ray.workers) == 2
    with pytest.raises(ParameterError, match=r"of a kind that the Ray cluster has; got cuda\. Give cpu: it has no GPU"):
        crew_of(FakeRay(places=3), range(4), "cuda")


def test_an_address_without_a_cluster_is_refused():
    with pytest.raises(
        ParameterError, match=r"`address` must be left out, or `engine` must be ray; got 10\.0\.0\.1:6379"
    ):
        choose_engine("local", "10.0.0.1:6379", small(), None)


def test_a_device_that_workers_have_no_name_for_is_refused():
    elsewhere = small().to("meta")
    assert choose_engine("local", None, elsewhere, 2) == Local(elsewhere, 2)
    with pytest.raises(ParameterError, match=r"`device` must be .*cpu.*cuda.*; got meta"):
        choose_engine("ray", None, elsewhere, 2)


def test_what_finishes_early_waits_for_its_turn():
    arrived = []

    def finish():
        for number in (2, 0, 3, 1):
            arrived.append(number)
            yield number, f"result {number}"

    given = [(number, result, len(arrived)) for number, result in in_order(finish(), range(4))]
    assert given == [(0, "result 0", 2), (1, "result 1", 4), (2, "result 2", 4), (3, "result 3", 4)]


def test_what_happens_on_sigterm_stays_what_it_was():
    def start(**_):
        signal.signal(signal.SIGTERM, lambda number, frame: None)

    usual = signal.getsignal(signal.SIGTERM)
    ray = SimpleNamespace(is_initialized=lambda: False, init=start, shutdown=lambda: None)
    with _connected(ray, None):
        assert signal.getsignal(signal.SIGTERM) == usual
