"""Network dissection against a loop over images and units as NetDissect-Lite runs it; memory; what goes to disk."""

from __future__ import annotations

import resource
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import torch
import torch.nn.functional as F
from PIL import Image
from torch import Tensor, nn

from whyfooled import Classifier, load_classifier
from whyfooled.classifier.layers import activations, choose_layers
from whyfooled.units import open_concepts
from whyfooled.units.concepts import NOTHING, Annotated, Concepts
from whyfooled.units.dissection import TOP, dissect
from whyfooled.units.dissection.dissect import MEMORY
from whyfooled.units.dissection.results import CUTOFF

FASTER = 10
"""How many times as long as ours the loop must take for thresholds and counts, at least."""
FASTER_IN_ALL = 3
"""The same, passes included."""
GROWTH = 1.1
"""How much the peak of memory may grow from few images to many."""
BATCH = 8
Counts = tuple[Tensor, Tensor]
_NAMES = "\n".join(["sky", "building", "road", "tree", "unlabelled"])


def run(concepts: str | None, model: str, weights: str | None, layer: str, repeats: int, few: int, many: int) -> None:
    torch.set_num_threads(1)
    classifier = load_classifier(model, weights=weights)
    # As published dissections do: all of the picture is seen.
    classifier.fit = replace(classifier.fit, squash=True)
    with tempfile.TemporaryDirectory() as temporary:
        folder = Path(temporary)
        _draw(folder, many)
        opened = open_concepts(concepts or _place(folder, many))
        print(
            f"torch {torch.__version__}, one thread, float32, {classifier.name}, {layer}; processor time; "
            f"{len(opened)} images, {len(opened.names)} concepts, batches of {BATCH}"
        )
        kept = replace(opened, reader=_Kept(tuple(opened)))
        print(
            "\nAll of it: the loop makes one pass over the images, and so does ours, where activations fit into memory."
        )
        in_all = _speed(classifier, layer, kept, repeats)
        print(f"at least {FASTER_IN_ALL} times faster: {'yes' if in_all >= FASTER_IN_ALL else 'NO'}")
        print("\nThresholds and counts alone: the activations are given.")
        ratio = _speed(*_recorded(classifier, layer, kept), repeats)
        print(f"at least {FASTER} times faster: {'yes' if ratio >= FASTER else 'NO'}\n")
        _memory(folder, model, weights, layer, few, many)


@dataclass(frozen=True, eq=False)
class _Kept:
    """Annotated images in memory, so that decoding files is nobody's time."""

    annotated: tuple[Annotated, ...]

    def read(self, index: int) -> Annotated:
        return self.annotated[index]

    def picture(self, index: int) -> Image.Image:
        return self.annotated[index].image

    def files(self) -> tuple[Path, ...]:
        return ()


class _Recorded(nn.Module):
    """Gives image number i, which its pixels say, activations that were computed before."""

    def __init__(self, features: Tensor) -> None:
        super().__init__()
        self.register_buffer("features", features)
        self.layer = nn.Identity()

    def forward(self, x: Tensor) -> Tensor:
        low, high = (x[:, :2, 0, 0] * 255).round().long().unbind(1)
        maps = self.get_buffer("features")[low + 256 * high]
        # Nothing is added from the image but where it is: what has no place in it has no units with places.
        features: Tensor = self.layer(maps + 0 * F.adaptive_avg_pool2d(x[:, :1], (maps.shape[2], maps.shape[3])))
        return features.mean((2, 3)) - 1


def _recorded(classifier: Classifier, layer: str, concepts: Concepts) -> tuple[Classifier, str, Concepts]:
    """Compute all activations at once, and return a classifier that looks them up for pictures of two by two pixels."""
    annotated = tuple(
        replace(one, image=Image.new("RGB", (2, 2), (number % 256, number // 256, 0)))
        for number, one in enumerate(concepts)
    )
    features = _features(classifier, layer, concepts)
    looking_up = Classifier(_Recorded(features), size=(2, 2), name="activations given")
    return looking_up, "layer", replace(concepts, reader=_Kept(annotated))


def _features(classifier: Classifier, layer: str, concepts: Concepts) -> Tensor:
    chosen = choose_layers(classifier, layer)
    images = torch.stack([one.fitted(classifier.fit, classifier.channels)[0] for one in concepts])
    return torch.cat([activations(classifier, chosen, some)[chosen[0].name] for some in torch.split(images, BATCH)])


def _speed(classifier: Classifier, layer: str, concepts: Concepts, repeats: int) -> float:
    """Compare times and every count; return how many times faster ours is, without permutations, as the loop is."""

    def ours(permutations: int, memory: float = MEMORY) -> Counts:
        found = dissect(
            classifier, layer, concepts, permutations=permutations, batch_size=BATCH, memory=memory, workers=1
        ).layers[0]
        return found.both, found.union

    works: dict[str, Callable[[], Counts]] = {
        "loop": lambda: loop(classifier, layer, concepts),
        "ours": lambda: ours(0),
        "ours, in two passes": lambda: ours(0, 0),
        "ours, with 20 permutations": lambda: ours(20),
    }
    times: dict[str, list[float]] = {title: [] for title in works}
    counts: dict[str, Counts] = {}
    for _ in range(repeats):
        for title, work in works.items():
            started = time.process_time()
            counts[title] = work()
            times[title].append(time.process_time() - started)
    ratios = {title: _median_ratio(times["loop"], own) for title, own in times.items()}
    for title, own in times.items():
        print(f"{title:<28} {statistics.median(own):7.2f} s   loop / this {ratios[title]:5.1f}")
    (both, union), (loop_both, loop_union) = counts["ours"], counts["loop"]
    iou, loop_iou = both / union.clamp(min=1), loop_both / loop_union.clamp(min=1)
    print(
        f"largest difference of a count {int((both - loop_both).abs().max())} of up to {int(both.max())} pixels, of an "
        f"IoU {float((iou - loop_iou).abs().max()):.2g}; units that detect something: "
        f"{int((iou.amax(1) > CUTOFF).sum())} and {int((loop_iou.amax(1) > CUTOFF).sum())} of {len(iou)}"
    )
    return ratios["ours"]


def _median_ratio(first: Sequence[float], second: Sequence[float]) -> float:
    return statistics.median(one / other for one, other in zip(first, second, strict=True))


def loop(classifier: Classifier, layer: str, concepts: Concepts) -> tuple[Tensor, Tensor]:
    """Dissect as NetDissect-Lite does: all activations kept, then one image and one unit after the other.

    Written from the definition of Bau et al. (2017) in the order of that program: sort each unit's activations for its
    threshold; then for each image and each unit that is above it somewhere, enlarge the map with Pillow, list the
    active pixels, and count the labels there. IoU's union is as in `dissect`: over the images in which the concept's
    category is annotated.
    """
    annotated = list(concepts)
    label_maps = [one.fitted(classifier.fit, classifier.channels)[1].numpy() for one in annotated]
    category_of = np.array(concepts.category_of)
    features = _features(classifier, layer, concepts).numpy()
    units, number = features.shape[1], len(concepts.names)
    thresholds = np.zeros(units, dtype=np.float32)
    for unit in range(units):
        values = np.sort(features[:, unit].ravel())[::-1]
        thresholds[unit] = values[int(round(TOP * 1e6) * len(values) // 1_000_000)]
    both, active = (np.zeros((units, number), dtype=np.int64) for _ in range(2))
    area = np.zeros(number, dtype=np.int64)
    for image, (one, maps) in enumerate(zip(annotated, label_maps, strict=True)):
        categories = np.isin(category_of, one.categories)
        area += np.bincount((maps - NOTHING).ravel(), minlength=number + 1)[1:]
        for unit in range(units):
            feature = features[image, unit]
            if feature.max() <= thresholds[unit]:
                continue
            enlarged = Image.fromarray(feature).resize(maps.shape[:0:-1], Image.Resampling.BILINEAR)
            rows, columns = np.argwhere(np.asarray(enlarged) > thresholds[unit]).T
            here = maps[:, rows, columns] - NOTHING
            both[unit] += np.bincount(here.ravel(), minlength=number + 1)[1:]
            active[unit] += categories * len(rows)
    return torch.from_numpy(both), torch.from_numpy(active + area - both)


def _memory(folder: Path, model: str, weights: str | None, layer: str, few: int, many: int) -> None:
    """Compare the peaks of two processes of their own, and see what they write."""
    peaks = {}
    for count in (few, many):
        arguments = [_place(folder, count), model, weights or "", layer]
        done = subprocess.run([sys.executable, "-m", __name__, *arguments], check=True, capture_output=True, text=True)
        peak, written = done.stdout.split()
        peaks[count] = float(peak)
        print(f"{count:>5} images: peak {float(peak):7.0f} MiB, {int(written)} bytes written")
    growth = peaks[many] / peaks[few]
    print(f"peak {many} / {few} images {growth:.3f} (at most {GROWTH}): {'yes' if growth <= GROWTH else 'NO'}")


def _draw(folder: Path, count: int) -> None:
    """Write random pictures of a few soft patches, with masks of the patches' brightness."""
    random = np.random.default_rng(0)
    (folder / "names.txt").write_text(_NAMES)
    names = len(_NAMES.splitlines())
    for number in range(count):
        patches = Image.fromarray(random.integers(0, 256, (6, 8, 3), dtype=np.uint8))
        picture = patches.resize((480, 360), Image.Resampling.BICUBIC)
        mask = Image.fromarray((np.asarray(picture.convert("L")) // (256 // names + 1)).astype(np.uint8))
        for kind, drawn in (("images", picture), ("labels", mask)):
            (folder / kind).mkdir(exist_ok=True)
            drawn.save(folder / kind / f"{number:05d}.png")


def _place(folder: Path, count: int) -> str:
    """Return the first of the pictures that were drawn, as concepts."""
    for kind in ("images", "labels"):
        some = folder / f"{kind}-{count}"
        if not some.exists():
            some.mkdir()
            for path in sorted((folder / kind).iterdir())[:count]:
                (some / path.name).symlink_to(path)
    return f"masks:{folder}/images-{count},{folder}/labels-{count},{folder}/names.txt"


def _written() -> int:
    """Return how many bytes this process has written so far (Linux)."""
    lines = Path("/proc/self/io").read_text().splitlines()
    return int(next(line for line in lines if line.startswith("wchar")).split()[1])


def _measure(place: str, model: str, weights: str, layer: str) -> None:
    torch.set_num_threads(1)
    classifier = load_classifier(model, weights=weights or None)
    before = _written()
    dissect(classifier, layer, open_concepts(place), batch_size=BATCH)
    print(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024, _written() - before)


if __name__ == "__main__":
    _measure(*sys.argv[1:])
