"""How an explanation came about: the time and the passes of its stages, versions, and what it was warned of."""

from __future__ import annotations

import platform
import time
from collections.abc import Iterator
from contextlib import contextmanager
from importlib import metadata

from whyfooled.classifier import Classifier
from whyfooled.classifier.passes import Passes, count_passes
from whyfooled.running.memory import give_back_freed_memory
from whyfooled.types import Progress


class Stages:
    """Times and counts the stages of one explanation, and reports their progress.

    Parameters
    ----------
    classifier
        The classifier whose passes are counted.
    progress
        Called with the steps done, the steps in all, and what is being done.
    """

    def __init__(self, classifier: Classifier, progress: Progress) -> None:
        self.classifiers = [classifier]
        self.progress = progress
        self.seconds: dict[str, float] = {}
        self.passes: dict[str, Passes] = {}

    @contextmanager
    def stage(self, name: str) -> Iterator[None]:
        """Time and count what is done inside the block, and give back the memory that it needed for a while."""
        started = time.perf_counter()
        with count_passes(*self.classifiers) as passes:
            yield
        give_back_freed_memory()
        self.seconds[name] = time.perf_counter() - started
        self.passes[name] = passes

    def progress_of(self, name: str) -> Progress:
        """Report progress as that of a stage, whatever is done in it."""
        return lambda done, total, doing: self.progress(done, total, name)

    def count_too(self, classifier: Classifier) -> None:
        """Count the passes of another classifier too, in what is done from now on."""
        if classifier not in self.classifiers:
            self.classifiers.append(classifier)


def versions() -> dict[str, str]:
    """Return the versions of Python and of the packages that numbers depend on."""
    packages = ("whyfooled", "torch", "torchvision", "timm", "pandas", "pyarrow", "numpy")
    return {"python": platform.python_version(), **{name: metadata.version(name) for name in packages}}
