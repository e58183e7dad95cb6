"""What a dissection has found so far, on disk: after an interruption it goes on from there, to the same result."""

from __future__ import annotations

import shutil
import time
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, final

from torch import Tensor

from whyfooled.classifier.layers import Layer
from whyfooled.errors import ImageError
from whyfooled.running.kept import (
    DamagedError,
    FileKind,
    is_count,
    is_number,
    is_text,
    list_of,
    maybe,
    read_kept_tensors,
    read_record,
    record_of,
    write_kept_tensors,
    write_record,
)
from whyfooled.running.runs import digest_run
from whyfooled.units.dissection.passes import Counts, Plan, Standing
from whyfooled.units.dissection.tally import Spread, Tally
from whyfooled.units.dissection.thresholds import BatchMoments, Largest, Moments, TopImages

SECONDS = 30
"""How often it is written, in seconds; more seldom where writing takes long. [ours]"""
_SHARE = 20
"""How many times as long as writing the work goes on before it is written again."""
_PREFIX, _RECORD, _KEPT = "unfinished-", "standing.json", "kept"
_STANDING = FileKind(
    "unfinished dissection",
    2,
    "whyfooled dissect",
    {
        **dict.fromkeys(("written", "batch_size", "turn", "done", "forwards"), is_count),
        "run": is_text,
        "seconds": record_of(is_number),
        "area": maybe(list_of(is_count)),
        **dict.fromkeys(("seen", "whole"), maybe(is_count)),
        "kept": list_of(is_count),
    },
)
_LAYER = FileKind("unfinished layer", 2, "whyfooled dissect", {"run": is_text, "count": is_count})
_MAPS = FileKind("unfinished maps", 2, "whyfooled dissect", {"run": is_text})
_MOMENTS = ("total", "square", "low", "high")


def discard_unfinished(folder: Path) -> None:
    """Delete what dissections that were interrupted left in a folder, which holds a finished one now."""
    for place in folder.glob(f"{_PREFIX}*"):
        if (place / _RECORD).is_file():
            shutil.rmtree(place, ignore_errors=True)


@final
@dataclass(eq=False)
class Unfinished:
    """Writes how one dissection stands, and reads it again. Lives inside one run.

    Parameters
    ----------
    folder
        Its own, which is made when there is something to write.
    run
        Digest of everything that makes it this run and no other, but for the size of batches.
    """

    folder: Path
    run: str
    written: int = 0
    due: float = 0.0

    @staticmethod
    def of(folder: Path, run: Mapping[str, Any]) -> Unfinished:
        """Name the place in a folder that belongs to a run."""
        digest = digest_run(run)
        return Unfinished(folder / f"{_PREFIX}{digest[:16]}", digest, due=time.monotonic() + SECONDS)

    @property
    def batch_size(self) -> int | None:
        """The size of batches that the run was begun with, which is chosen by the memory that is free; None if new."""
        record = self._read_record()
        return None if record is None else int(record["batch_size"])

    def _read_record(self) -> dict[str, Any] | None:
        try:
            record = read_record(self.folder / _RECORD, _STANDING)
        except (OSError, DamagedError, ImageError):
            return None
        return record if record["run"] == self.run else None

    def load(self, plan: Plan, batch_size: int) -> Standing:
        """Return how the run stood; as it begins, if nothing of it is there, undamaged, and in batches of this size."""
        record = self._read_record()
        if record is None or record["batch_size"] != batch_size:
            return Standing()
        self.written = record["written"]
        try:
            return self._read(plan, record)
        except (OSError, DamagedError, ImageError, KeyError):
            return Standing()

    def save_if_due(self, plan: Plan, standing: Standing, batch_size: int) -> None:
        """Write how it stands, if that was not done for a while."""
        if time.monotonic() >= self.due:
            self.save(plan, standing, batch_size)

    def save(self, plan: Plan, standing: Standing, batch_size: int) -> None:
        """Write how it stands, if anything is finished: whole or not at all, whenever the process is stopped."""
        if not standing.settled or not standing.forwards:
            return
        started = time.monotonic()
        for shard in sorted(set(standing.kept) - set(_list_kept(self.folder))):
            tensors = {
                f"{number} {name}": maps for number, own in standing.kept[shard].items() for name, maps in own.items()
            }
            write_kept_tensors(self._kept_file(shard), _MAPS, tensors, {"run": self.run})
        before = self.folder / str(self.written)
        self.written += 1
        for place, layer in enumerate(plan.layers):
            tensors, count = _collect(layer, standing)
            write_kept_tensors(self._layer_file(place), _LAYER, tensors, {"run": self.run, "count": count})
        counts = standing.counts
        record = {
            "run": self.run,
            "written": self.written,
            "batch_size": batch_size,
            "turn": standing.turn,
            "done": standing.done,
            "forwards": standing.forwards,
            "seconds": standing.seconds,
            "area": None if counts is None else counts.area.tolist(),
            "seen": None if counts is None else counts.seen,
            "whole": None if counts is None else counts.whole,
            "kept": sorted(standing.kept),
        }
        # From here on it is this one that counts.
        write_record(self.folder / _RECORD, _STANDING, record)
        shutil.rmtree(before, ignore_errors=True)
        self.due = time.monotonic() + max(SECONDS, _SHARE * (time.monotonic() - started))

    def _kept_file(self, shard: int) -> Path:
        return self.folder / _KEPT / f"{shard:06d}.safetensors"

    def _layer_file(self, place: int) -> Path:
        return self.folder / str(self.written) / f"{place:04d}.safetensors"

    def _read(self, plan: Plan, record: Mapping[str, Any]) -> Standing:
        standing = Standing(record["turn"], record["done"], record["forwards"], dict(record["seconds"]))
        tallies: dict[str, list[Tally]] = {}
        spreads: dict[str, Spread] = {}
        for place, layer in enumerate(plan.layers):
            about, tensors = self._read_own(self._layer_file(place), _LAYER)
            _give_back(plan, layer, standing, tensors, about["count"])
            if record["area"] is not None:
                numbers = range(1 + plan.permutations)
                tallies[layer.name] = [Tally(tensors[f"both {n}"], tensors[f"active {n}"]) for n in numbers]
                spreads[layer.name] = Spread(tensors["spread images"], tensors["spread most"])
        if record["area"] is not None:
            area = Tensor(record["area"]).long()
            standing.counts = Counts(area, record["seen"], record["whole"], tallies, spreads)
        for shard in record["kept"]:
            _, tensors = self._read_own(self._kept_file(shard), _MAPS)
            batches: dict[int, dict[str, Tensor]] = {}
            for name, maps in tensors.items():
                number, _, layer_name = name.partition(" ")
                batches.setdefault(int(number), {})[layer_name] = maps
            standing.kept[shard] = batches
        return standing

    def _read_own(self, path: Path, kind: FileKind) -> tuple[dict[str, Any], dict[str, Tensor]]:
        about, tensors = read_kept_tensors(path, kind)
        if about["run"] != self.run:
            raise DamagedError
        return about, tensors


def _list_kept(folder: Path) -> list[int]:
    return [int(path.stem) for path in (folder / _KEPT).glob("*.safetensors")]


def _collect(layer: Layer, standing: Standing) -> tuple[dict[str, Tensor], int]:
    """Collect what is known of a layer, and from how many activations its moments are."""
    name = layer.name
    sums, tops = standing.moments[name].sums, standing.tops[name]
    tensors = {part: getattr(sums, part) for part in _MOMENTS}
    tensors |= {"top images": tops.images, "top values": tops.values, "top maps": tops.maps}
    for turn, (threshold, above) in enumerate(standing.thresholds.get(name, ())):
        tensors |= {f"threshold {turn}": threshold, f"above {turn}": above}
    largest = standing.largest.get(name)
    if largest is not None and standing.done:
        tensors["largest"] = largest.kept()
        tensors |= {} if largest.floor is None else {"floor": largest.floor}
    if standing.counts is not None:
        for number, tally in enumerate(standing.counts.tallies[name]):
            tensors |= {f"both {number}": tally.both, f"active {number}": tally.active}
        spread = standing.counts.spreads[name]
        tensors |= {"spread images": spread.images, "spread most": spread.most}
    return tensors, sums.count


def _give_back(plan: Plan, layer: Layer, standing: Standing, tensors: Mapping[str, Tensor], count: int) -> None:
    """Give a standing what `_collect` collected of a layer."""
    name = layer.name
    standing.moments[name] = Moments(BatchMoments(count, *(tensors[part] for part in _MOMENTS)))
    tops = standing.tops[name] = TopImages(layer, plan.most)
    tops.images, tops.values, tops.maps = tensors["top images"], tensors["top values"], tensors["top maps"]
    turns = [turn for turn in range(len(plan.turns)) if f"threshold {turn}" in tensors]
    standing.thresholds[name] = [(tensors[f"threshold {turn}"], tensors[f"above {turn}"]) for turn in turns]
    if "largest" in tensors:
        largest = standing.largest[name] = Largest(plan.keep(layer))
        largest.add(tensors["largest"])
        largest.floor = tensors.get("floor")
