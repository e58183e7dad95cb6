"""Where the work on many images is done: in this process, or on the machines of a Ray cluster.

Work comes in shards: a study measures each once, and an attack makes the files of each; a fit goes over all of them in
every step, and a dissection once or twice, and they put together what the shards give. Which shards there are depends
neither on the engine nor on the number of workers, so neither does the result.
"""

from __future__ import annotations

import contextlib
import importlib
import logging
import os
import re
import signal
import socket
import threading
from collections import Counter, deque
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import AbstractContextManager
from copy import deepcopy
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Generic, Protocol, TypeVar, final, runtime_checkable

import torch

from whyfooled.classifier import Classifier, Fit
from whyfooled.classifier.borrowing import one_thread
from whyfooled.classifier.extras import advise_extra
from whyfooled.classifier.inputs import NOTHING_SAID, InputFormat
from whyfooled.classifier.workers import share_out
from whyfooled.classifier.zoo import find_device, load_classifier
from whyfooled.errors import ParameterError, WhyfooledError, at_least, bad_parameter, first_line, hearing, one_of, warn

Task = TypeVar("Task", contravariant=True)
Result = TypeVar("Result", covariant=True)
Finding = TypeVar("Finding")

ENGINES = ("local", "ray")
MOST_DEATHS = 3
"""How many workers a shard may outlive in a run before it is held to be what kills them. [ours]"""


_PATIENCE = 600
"""Seconds in which a worker should find a place and load the model."""


@runtime_checkable
class Work(Protocol[Task, Result]):
    """What is done to a shard: the same on every engine. It can be sent to another machine."""

    def __call__(self, classifier: Classifier, task: Task, tick: Callable[[int], None]) -> Result:
        """Work on a shard; `tick` is told how many more images are done."""

    def count(self, task: Task) -> int:
        """Return how many images a shard has."""


@runtime_checkable
class Crew(Protocol[Task, Result]):
    """Workers that have loaded the model, for as long as there is work."""

    def run(
        self, tasks: Mapping[int, Task], tick: Callable[[int], None] = lambda images: None
    ) -> Iterator[tuple[int, Result]]:
        """Yield each shard's number and result as it is finished, in any order; `tick` is told of images done."""


@runtime_checkable
class Engine(Protocol):
    """Puts workers to work."""

    def start(
        self, work: Work[Task, Result], model: ModelRecipe, most: int
    ) -> AbstractContextManager[Crew[Task, Result]]:
        """Start at most so many workers; they are gone when the ``with`` block ends."""


def in_order(results: Iterable[tuple[int, Finding]], numbers: Iterable[int]) -> Iterator[tuple[int, Finding]]:
    """Yield results in the order of these numbers, whichever is finished first, each as soon as it is its turn."""
    early: dict[int, Finding] = {}
    left = deque(numbers)
    for number, result in results:
        early[number] = result
        while left and left[0] in early:
            turn = left.popleft()
            yield turn, early.pop(turn)


@final
@dataclass(frozen=True)
class ModelRecipe:
    """How a worker gets the classifier: by name, so that weights are read where they are used, or as it is."""

    name: str | Classifier
    weights: str | Path | None = None
    seed: int = 0
    float32: bool = False
    class_names: tuple[str, ...] | None = None
    num_classes: int | None = None
    inputs: InputFormat = NOTHING_SAID
    output: str | int | None = None
    shorter_side: int | None = None
    squash: bool = False
    interpolation: str | None = None
    several_labels: bool = False
    ask: str | None = None

    def identity(self) -> dict[str, str]:
        """Return what is said of the model's input and output, which makes a run another one and is in no digest."""
        plain = ModelRecipe(self.name)
        said = ("inputs", "output", "shorter_side", "squash", "interpolation", "several_labels", "ask")
        return {field: str(getattr(self, field)) for field in said if getattr(self, field) != getattr(plain, field)}

    def load(self, device: str) -> Classifier:
        """Load it onto a device; ``"auto"`` is a GPU if there is one, or where a given classifier is."""
        if isinstance(self.name, Classifier):
            given = self.name.float32() if self.float32 else self.name
            here = given.device.type if device == "auto" else device
            # Not moved: it is the user's.
            return given if given.device == find_device(here) else deepcopy(given).to(here)
        place = ("cuda" if torch.cuda.is_available() else "cpu") if device == "auto" else device
        classifier = load_classifier(
            self.name,
            weights=self.weights,
            class_names=self.class_names,
            num_classes=self.num_classes,
            inputs=self.inputs,
            output=self.output,
            device=place,
            seed=self.seed,
            float32=self.float32,
        )
        classifier.fit = self._change_fit(classifier.fit)
        classifier.several_labels |= self.several_labels or self.ask is not None
        if self.ask is None:
            return classifier
        return classifier.ask(classifier.class_index(self.ask, classifier.class_count(), "ask"))

    def _change_fit(self, fit: Fit) -> Fit:
        """Return how photographs are brought to the input size, as it is asked for or else as the model has it."""
        side, filtered = self.shorter_side, replace(fit, interpolation=self.interpolation or fit.interpolation)
        if self.squash:
            return replace(filtered, squash=side is None, squashed=None if side is None else (side, side))
        return filtered if side is None else replace(filtered, shorter_side=side, squash=False, squashed=None)


def choose_engine(
    name: str, address: str | None, classifier: Classifier, workers: int | None, *, one_by_one: bool = False
) -> Engine:
    """Make the engine of a name, ``"local"`` or ``"ray"``; `ParameterError` for another, no worker, or an idle address.

    On either, the work is done on the kind of device that the classifier is on: it changes last digits.
    `one_by_one` is for work that shares out the images of a shard by itself, see `Local`.
    """
    one_of("engine", name, ENGINES)
    if workers is not None:
        at_least("workers", workers, 1)
    if name == "local":
        if address is not None:
            raise bad_parameter("address", "must be left out, or `engine` must be ray", address)
        return Local(classifier, workers, one_by_one)
    one_of("device", classifier.device.type, ("cpu", "cuda"))
    return Ray(address, workers, classifier.device.type)


@final
@dataclass(frozen=True)
class Local:
    """Works in this process, on as many shards at once as there are workers; on a GPU, on one after the other.

    Parameters
    ----------
    classifier
        The classifier, loaded.
    workers
        How many there are at most; as many as the threads that PyTorch is set to if None.
    one_by_one
        Whether one shard is worked on at a time, by all workers: the work shares out its images by itself.
    """

    classifier: Classifier
    workers: int | None
    one_by_one: bool = False

    @contextlib.contextmanager
    def start(self, work: Work[Task, Result], model: ModelRecipe, most: int) -> Iterator[Crew[Task, Result]]:
        """Yield the threads of this process."""
        with one_thread(self.workers):
            yield _Threads(work, self.classifier, self.one_by_one)


@dataclass(frozen=True)
class _Threads(Generic[Task, Result]):
    work: Work[Task, Result]
    classifier: Classifier
    one_by_one: bool

    def run(
        self, tasks: Mapping[int, Task], tick: Callable[[int], None] = lambda images: None
    ) -> Iterator[tuple[int, Result]]:
        telling = threading.Lock()

        def tell(images: int) -> None:
            with telling:
                tick(images)

        def do(shard: int) -> tuple[int, Result]:
            return shard, self.work(self.classifier, tasks[shard], tell)

        yield from map(do, list(tasks)) if self.one_by_one else share_out(self.classifier, do, list(tasks))


@final
@dataclass(frozen=True)
class Ray:
    """Works on a Ray cluster: one worker on each GPU, or on each core.

    Workers load the model once. A shard whose worker dies is given to another one.

    Parameters
    ----------
    address
        The cluster's address, such as ``"10.0.0.1:6379"`` or ``"ray://10.0.0.1:10001"``; a cluster of this machine
        alone is started if None.
    workers
        How many there are at most; as many as there are places for if None.
    device
        ``"cuda"`` for workers on GPUs, ``"cpu"`` for workers on cores.
    """

    address: str | None
    workers: int | None
    device: str

    @contextlib.contextmanager
    def start(self, work: Work[Task, Result], model: ModelRecipe, most: int) -> Iterator[Crew[Task, Result]]:
        """Yield the workers of a cluster."""
        ray = _import_ray()
        most = min(most, self.workers or most)
        with _connected(ray, self.address), contextlib.closing(_Crew(ray, work, model, most, self.device)) as crew:
            yield crew


def _import_ray() -> Any:
    # Read when Ray is imported; nothing about its use is sent anywhere.
    os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")
    try:
        return importlib.import_module("ray")
    except ImportError:
        raise ParameterError(f"The engine ray needs the package ray. {advise_extra('ray')}") from None


@contextlib.contextmanager
def _connected(ray: Any, address: str | None) -> Iterator[None]:
    """Connect to a cluster, and leave it afterwards unless the caller was connected before."""
    if ray.is_initialized():
        yield
        return
    with _only_errors(logging.getLogger("ray")):
        try:
            _knock(address)
            with _same_termination():
                ray.init(
                    address=address or "local", log_to_driver=False, configure_logging=False, include_dashboard=False
                )
        except Exception as error:  # each kind of address fails in its own way
            reason = first_line(error)
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
def _same_termination() -> Iterator[None]:
    """Keep what happens on SIGTERM, which Ray would make an end of the process without a word."""
    usual = signal.getsignal(signal.SIGTERM)
    try:
        yield
    finally:
        if threading.current_thread() is threading.main_thread():
            signal.signal(signal.SIGTERM, usual)


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
    match = re.fullmatch(r"(?:ray://)?(.+):(\d+)", address or "")
    if match is not None:
        socket.create_connection((match[1], int(match[2])), timeout=10).close()


class _Worker:
    """Lives on the cluster: loads the model once, works on shards.

    It works in the folder that the run was started in, if there is one of that path: paths may start there.
    """

    def __init__(self, work: Work[Any, Any], model: ModelRecipe, device: str, folder: str) -> None:
        self.work, self.model, self.device = work, model, device
        with contextlib.suppress(OSError):
            os.chdir(folder)

    def load(self) -> None:
        """Load the model. Not in the constructor, whose errors Ray reports as a death without a reason."""
        self.classifier = self.model.load(self.device)

    def do(self, task: Any) -> tuple[Any, list[str]]:
        """Work on a shard; return what it gave, and what was warned of, which nobody would see here."""
        with one_thread(1), hearing() as heard:
            return self.work(self.classifier, task, lambda images: None), heard


class _Crew(Generic[Task, Result]):
    """The workers of one run, and what each is doing."""

    def __init__(self, ray: Any, work: Work[Task, Result], model: ModelRecipe, most: int, device: str) -> None:
        self.ray, self.work = ray, work
        places = _count_places(ray.cluster_resources(), device)
        remote = ray.remote(num_cpus=1, num_gpus=1 if device == "cuda" else 0)(_Worker)
        self.worker, self.arguments = remote, (ray.put(work), ray.put(model), device, str(Path.cwd()))
        self.workers: list[Any] = []
        self.idle: list[Any] = []
        # What each pending answer is about: its worker, and the shard (None: whether the model is loaded). A worker
        # that has no place yet, because a machine is gone, is never given work, so nothing waits for it.
        self.pending: dict[Any, tuple[Any, int | None]] = {}
        # How many workers each shard has outlived; of None, the model.
        self.deaths: Counter[int | None] = Counter()
        for _ in range(max(1, min(places, most))):
            self._hire()

    def close(self) -> None:
        """Let the workers go: on a cluster that others use too, their cores must be free at once."""
        for worker in self.workers:
            self.ray.kill(worker)

    def run(
        self, tasks: Mapping[int, Task], tick: Callable[[int], None] = lambda images: None
    ) -> Iterator[tuple[int, Result]]:
        waiting, left = deque(tasks), len(tasks)
        self.deaths.clear()
        lost = (self.ray.exceptions.RayActorError, self.ray.exceptions.ObjectLostError)
        while left:
            while waiting and self.idle:
                free, following = self.idle.pop(), waiting.popleft()
                self.pending[free.do.remote(tasks[following])] = (free, following)
            worker, shard, done = self._next()
            try:
                answer = self.ray.get(done)
            except lost as error:
                # With its machine, before its answer was fetched, or while it worked.
                self.ray.kill(worker)
                self._hire()
                self._count_death(shard, error)
                if shard is not None:
                    waiting.appendleft(shard)
            except self.ray.exceptions.RayTaskError as error:
                raise _own_error(error) from None
            else:
                self.idle.append(worker)
                if shard is not None:
                    result, heard = answer
                    left -= 1
                    for sentence in heard:
                        warn(sentence, stacklevel=3)
                    tick(self.work.count(tasks[shard]))
                    yield shard, result

    def _next(self) -> tuple[Any, int | None, Any]:
        """Wait for an answer; in vain only if every worker waits for a place."""
        while True:
            done, _ = self.ray.wait(list(self.pending), num_returns=1, timeout=_PATIENCE)
            if done:
                return (*self.pending.pop(done[0]), done[0])
            if all(shard is None for _, shard in self.pending.values()):
                raise WhyfooledError(
                    f"No Ray worker could be started within {_PATIENCE // 60} minutes: the cluster has no free place "
                    f"for one. It has {self.ray.available_resources()}."
                )

    def _hire(self) -> None:
        worker = self.worker.remote(*self.arguments)
        self.workers.append(worker)
        self.pending[worker.load.remote()] = (worker, None)

    def _count_death(self, shard: int | None, error: Exception) -> None:
        self.deaths[shard] += 1
        if self.deaths[shard] < MOST_DEATHS:
            return
        reason = first_line(error)
        what = "starting" if shard is None else f"working on shard {shard}"
        raise WhyfooledError(
            f"A Ray worker died while {what}, {MOST_DEATHS} times. Is there memory enough on every machine, and are "
            f"the model and the "
            f"images there under the same paths? Ray says: {reason}."
        )


def _count_places(resources: Mapping[str, float], device: str) -> int:
    """Return how many workers a cluster has places for on a kind of device; warn of GPUs that are left idle.

    Raises
    ------
    ParameterError
        If the work is for GPUs, and the cluster has none.
    """
    gpus = int(resources.get("GPU", 0))
    if device != "cuda":
        if gpus:
            warn(
                f"The run is on CPUs, like the classifier where it was started, and leaves the cluster's GPUs idle "
                f"({gpus} of them). Start it on a machine with a GPU to use them.",
                stacklevel=3,
            )
        return int(resources.get("CPU", 1))
    if not gpus:
        raise bad_parameter("device", "must be of a kind that the Ray cluster has", device, "Give cpu: it has no GPU.")
    return gpus


def _own_error(error: Any) -> Exception:
    """Return an error of ours as it was raised on the worker, and anything else in one sentence."""
    cause = error.cause
    if isinstance(cause, WhyfooledError):
        return cause
    return WhyfooledError(f"A Ray worker failed: {type(cause).__name__}: {cause}")
