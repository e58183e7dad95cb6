"""What the runner of studies costs beside the work itself, and how its memory grows with the number of images."""

from __future__ import annotations

import resource
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

import torch
from rich.console import Console
from rich.table import Table

from whyfooled import Classifier, load_classifier
from whyfooled.sources import Source, open_source
from whyfooled.studies import Batch, FilteringEffect, run_study

STUDY = FilteringEffect()
BATCH, SHARD = 8, 16


def run(data: str, model: str, weights: str | None, few: int, many: int, repeats: int) -> None:
    torch.set_num_threads(1)
    classifier, source = load_classifier(model, weights=weights), open_source(data)
    print(f"filtering-effect on {few} images, batches of {BATCH}; CPU seconds, one thread")
    _overhead(classifier, source, few, repeats)
    print(f"\nPeak memory of the whole process, {few} and {many} images")
    peaks = [_peak(data, model, weights, count) for count in (few, many)]
    print(f"{peaks[0]:.0f} MiB, {peaks[1]:.0f} MiB: ratio {peaks[1] / peaks[0]:.3f}")


def _overhead(classifier: Classifier, source: Source, count: int, repeats: int) -> None:
    """Compare the runner with a loop that reads, measures and keeps the rows; in turns, because machines are noisy."""
    table = Table("repeat", "plain loop", "runner, shards", "ratio", "once: digest, summary, figure")
    ratios = []
    for repeat in range(repeats):
        loop = _loop(classifier, source, count)
        with tempfile.TemporaryDirectory() as folder:
            shards, once = _timed_run(classifier, source, count, Path(folder))
        ratios.append(shards / loop)
        table.add_row(str(repeat), f"{loop:.2f}", f"{shards:.2f}", f"{ratios[-1]:.3f}", f"{once:.2f}")
    Console().print(table)
    print(f"Median ratio {sorted(ratios)[len(ratios) // 2]:.3f}")


def _loop(classifier: Classifier, source: Source, count: int) -> float:
    started = time.process_time()
    rows: list[Any] = []
    for start in range(0, count, BATCH):
        samples = [source[index] for index in range(start, min(count, start + BATCH))]
        images = torch.stack([sample.fitted(classifier.fit, classifier.channels) for sample in samples])
        labels = tuple(sample.labels for sample in samples)
        rows += STUDY.measure(classifier, Batch(tuple(sample.name for sample in samples), images, labels)).rows
    return time.process_time() - started


def _timed_run(classifier: Classifier, source: Source, count: int, folder: Path) -> tuple[float, float]:
    """Time the shards, from the first report to the last, and what is done once, however many images there are."""
    moments = [time.process_time()]
    run_study(
        STUDY,
        source,
        folder,
        model=classifier,
        count=count,
        batch_size=BATCH,
        shard_size=SHARD,
        workers=1,
        device="cpu",
        report=lambda progress: moments.append(time.process_time()),
    )
    shards = moments[-1] - moments[1]
    return shards, time.process_time() - moments[0] - shards


def _peak(data: str, model: str, weights: str | None, count: int) -> float:
    command = [sys.executable, "-m", "benchmarks.studies", data, model, weights or "", str(count)]
    return float(subprocess.run(command, check=True, capture_output=True, text=True).stdout)


if __name__ == "__main__":
    data, model, weights, count = sys.argv[1:]
    torch.set_num_threads(1)
    with tempfile.TemporaryDirectory() as folder:
        _timed_run(load_classifier(model, weights=weights or None), open_source(data), int(count), Path(folder))
    print(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024)
