"""Where shards are measured: here, or on the machines of a Ray cluster."""

from __future__ import annotations

import contextlib
import importlib
import logging
import os
import re
import socket
from collections import Counter, deque
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any, Protocol, final, runtime_checkable

import torch

from whyfooled.classifier import Classifier
from whyfooled.errors import ParameterError, WhyfooledError, bad_parameter
from whyfooled.studies._job import Finished, Job, Model, measure_shard

ENGINES = ("local", "ray")
MOST_DEATHS = 3
"""How many workers a shard may outlive before it is held to be what kills them. [ours]"""


_PATIENCE = 600
"""Seconds in which a worker should find a place and load the model."""


@runtime_checkable
class Engine(Protocol):
    """Measures shards, in any order."""

    def run(self, job: Job, model: Model, shards: Sequence[int], tick: Callable[[int], None]) -> Iterator[Finished]:
        """Yield each shard as it is finished; `tick` is told how many more images are done."""
        ...


@final
@dataclass(frozen=True)
class Local:
    """Measures shards in this process, one after the other.

    Parameters
    ----------
    classifier
        The classifier, loaded.
    threads
        Cores to compute with.
    """

    classifier: Classifier
    threads: int

    def run(self, job: Job, model: Model, shards: Sequence[int], tick: Callable[[int], None]) -> Iterator[Finished]:
        """Yield each shard as it is finished."""
        with _threads(self.threads):
            for shard in shards:
                yield measure_shard(job, self.classifier, shard, tick)


@final
@dataclass(frozen=True)
class Ray:
    """Measures shards on a Ray cluster: one worker on each GPU, or where there is none as many as there are cores for.

    Workers load the model once. A shard whose worker dies is given to another one.

    Parameters
    ----------
    address
        The cluster's address, such as ``"10.0.0.1:6379"`` or ``"ray://10.0.0.1:10001"``; a cluster of this machine
        alone is started if None.
    threads
        Cores of each worker, the same as on one machine, because with another number the last digits differ.
    """

    address: str | None
    threads: int

    def run(self, job: Job, model: Model, shards: Sequence[int], tick: Callable[[int], None]) -> Iterator[Finished]:
        """Yield each shard as it is finished, in any order."""
        ray = _import_ray()
        with _connected(ray, self.address):
            yield from _Crew(ray, job, model, self.threads, len(shards)).measure(shards, tick)


def _import_ray() -> Any:
    # Read when Ray is imported; nothing about its use is sent anywhere.
    os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")
    try:
        return importlib.import_module("ray")
    except ImportError:
        raise ParameterError("`engine` ray needs the package ray. Run: pip install 'whyfooled[ray]'") from None


@contextlib.contextmanager
def _connected(ray: Any, address: str | None) -> Iterator[None]:
    """Connect to a cluster, and leave it afterwards unless the caller was connected before."""
    if ray.is_initialized():
        yield
        return
    with _only_errors(logging.getLogger("ray")):
        try:
            _knock(address)
            ray.init(address=address or "local", log_to_driver=False, configure_logging=False, include_dashboard=False)
        except Exception as error:  # each kind of address fails in its own way
            reason = _first_line(error)
            if address is None:
                raise WhyfooledError(f"Ray cannot be started on this machine: {reason}.") from None
            raise ParameterError(
                f"`address` must be that of a running Ray cluster; got {address}, which cannot be reached: {reason}. "
                "Start one with: ray start --head"
            ) from None
        try:
            yield
        finally:
            ray.shutdown()


@contextlib.contextmanager
def _only_errors(logger: logging.Logger) -> Iterator[None]:
    """Silence what would stand between the lines of the progress."""
    usual = logger.level
    logger.setLevel(logging.ERROR)
    try:
        yield
    finally:
        logger.setLevel(usual)


def _knock(address: str | None) -> None:
    """Raise `OSError` if nobody answers: Ray itself would try for minutes."""
    found = re.fullmatch(r"(?:ray://)?(.+):(\d+)", address or "")
    if found is not None:
        socket.create_connection((found[1], int(found[2])), timeout=10).close()


@contextlib.contextmanager
def _threads(count: int) -> Iterator[None]:
    usual = torch.get_num_threads()
    torch.set_num_threads(count)
    try:
        yield
    finally:
        torch.set_num_threads(usual)


class _Worker:
    """Lives on the cluster: loads the model once, measures shards."""

    def __init__(self, job: Job, model: Model, threads: int, gpu: bool) -> None:
        torch.set_num_threads(threads)
        self.job, self.model, self.device = job, model, "cuda" if gpu else "cpu"

    def load(self) -> None:
        """Load the model. Not in the constructor, whose errors Ray reports as a death without a reason."""
        self.classifier = self.model.load(self.device)

    def measure(self, shard: int) -> Finished:
        """Measure a shard."""
        return measure_shard(self.job, self.classifier, shard)


class _Crew:
    """The workers of one run, and what each is doing. Lives inside one run."""

    def __init__(self, ray: Any, job: Job, model: Model, threads: int, most: int) -> None:
        self.ray, self.job = ray, job
        resources = ray.cluster_resources()
        gpus, cores = int(resources.get("GPU", 0)), int(resources.get("CPU", 1))
        largest = max(int(node["Resources"].get("CPU", 0)) for node in ray.nodes() if node["Alive"])
        if threads > largest:
            raise bad_parameter(
                "threads", f"must be at most {largest}, the cores of the cluster's largest machine", threads
            )
        remote = ray.remote(num_cpus=threads, num_gpus=1 if gpus else 0)(_Worker)
        self.worker, self.arguments = remote, (ray.put(job), ray.put(model), threads, bool(gpus))
        self.workers: list[Any] = []
        self.size = max(1, min(gpus or cores // threads, most))

    def measure(self, shards: Sequence[int], tick: Callable[[int], None]) -> Iterator[Finished]:
        try:
            yield from self._measure(shards, tick)
        finally:
            # On a cluster that others use too, their cores must be free at once.
            for worker in self.workers:
                self.ray.kill(worker)

    def _measure(self, shards: Sequence[int], tick: Callable[[int], None]) -> Iterator[Finished]:
        waiting = deque(shards)
        deaths: Counter[int] = Counter()
        idle: list[Any] = []
        # What each pending answer is about: its worker, and the shard (None: whether the model is loaded). A worker
        # that has no place yet, because a machine is gone, is never given work, so nothing waits for it.
        pending: dict[Any, tuple[Any, int | None]] = {}
        for _ in range(self.size):
            self._hire(pending)
        left = len(waiting)
        lost = (self.ray.exceptions.RayActorError, self.ray.exceptions.ObjectLostError)
        while left:
            worker, shard, done = self._next(pending)
            try:
                finished = self.ray.get(done)
            except lost as error:
                # With its machine, before its answer was fetched, or while it worked.
                self.ray.kill(worker)
                self._hire(pending)
                self._count_death(deaths, shard, error)
                if shard is not None:
                    waiting.appendleft(shard)
            except self.ray.exceptions.RayTaskError as error:
                raise _own_error(error) from None
            else:
                idle.append(worker)
                if finished is not None:
                    left -= 1
                    tick(len(self.job.images_of(finished.shard)))
                    yield finished
            while waiting and idle:
                free, following = idle.pop(), waiting.popleft()
                pending[free.measure.remote(following)] = (free, following)

    def _next(self, pending: dict[Any, tuple[Any, int | None]]) -> tuple[Any, int | None, Any]:
        """Wait for an answer; in vain only if every worker waits for a place."""
        while True:
            done, _ = self.ray.wait(list(pending), num_returns=1, timeout=_PATIENCE)
            if done:
                return (*pending.pop(done[0]), done[0])
            if all(shard is None for _, shard in pending.values()):
                raise WhyfooledError(
                    f"No Ray worker could be started within {_PATIENCE // 60} minutes: the cluster has no free place "
                    f"for one. It has {self.ray.available_resources()}."
                )

    def _hire(self, pending: dict[Any, tuple[Any, int | None]]) -> None:
        worker = self.worker.remote(*self.arguments)
        self.workers.append(worker)
        pending[worker.load.remote()] = (worker, None)

    @staticmethod
    def _count_death(deaths: Counter[int], shard: int | None, error: Exception) -> None:
        number = -1 if shard is None else shard
        deaths[number] += 1
        if deaths[number] < MOST_DEATHS:
            return
        reason = _first_line(error)
        what = "starting" if shard is None else f"measuring shard {shard}"
        raise WhyfooledError(
            f"A Ray worker died while {what}, {MOST_DEATHS} times. Is there memory enough on every machine, and are "
            f"the model and the "
            f"images there under the same paths? Ray says: {reason}."
        )


def _first_line(error: Exception) -> str:
    return (str(error).strip() or type(error).__name__).splitlines()[0].rstrip(".")


def _own_error(error: Any) -> Exception:
    """Return an error of ours as it was raised on the worker, and anything else in one sentence."""
    cause = error.cause
    if isinstance(cause, WhyfooledError):
        return cause
    return WhyfooledError(f"A Ray worker failed: {type(cause).__name__}: {cause}")
