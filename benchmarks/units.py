"""Network dissection against a loop over images and units as NetDissect-Lite runs it; memory; what goes to disk."""

from __future__ import annotations

import resource
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np
import torch
from PIL import Image
from torch import Tensor

from whyfooled import Classifier, load_classifier
from whyfooled.layers import activations, choose_layers
from whyfooled.units import open_concepts
from whyfooled.units.concepts import NOTHING, Concepts
from whyfooled.units.dissection import TOP, dissect

FASTER = 10
"""How many times the loop's time may be that of ours, at least."""
GROWTH = 1.1
"""How much the peak of memory may grow from few images to many."""
BATCH = 8
_NAMES = "\n".join(["sky", "building", "road", "tree", "unlabelled"])


def run(concepts: str | None, model: str, weights: str | None, layer: str, repeats: int, few: int, many: int) -> None:
    torch.set_num_threads(1)
    classifier = load_classifier(model, weights=weights)
    with tempfile.TemporaryDirectory() as temporary:
        folder = Path(temporary)
        _draw(folder, many)
        opened = open_concepts(concepts or _place(folder, many))
        print(
            f"torch {torch.__version__}, one thread, float32, {classifier.name}, {layer}; processor time; "
            f"{len(opened)} images, {len(opened.names)} concepts, batches of {BATCH}"
        )
        _speed(classifier, layer, opened, repeats)
        _memory(folder, model, weights, layer, few, many)


def _speed(classifier: Classifier, layer: str, concepts: Concepts, repeats: int) -> None:
    """Compare times and every count, both without permutations, which the published loop does not have."""
    name = choose_layers(classifier, layer)[0].name

    def ours(permutations: int) -> Callable[[], tuple[Tensor, Tensor]]:
        def work() -> tuple[Tensor, Tensor]:
            found = dissect(classifier, name, concepts, permutations=permutations, batch_size=BATCH)[name]
            return found.both, found.union

        return work

    times: dict[str, list[float]] = {"loop": [], "ours": [], "ours, with 20 permutations": []}
    for _ in range(repeats):
        counts = {}
        for title, work in zip(times, (lambda: loop(classifier, name, concepts), ours(0), ours(20)), strict=True):
            started = time.process_time()
            counts[title] = work()
            times[title].append(time.process_time() - started)
    medians = {title: statistics.median(values) for title, values in times.items()}
    for title, seconds in medians.items():
        ratios = [slow / own for slow, own in zip(times["loop"], times[title], strict=True)]
        print(f"{title:<28} {seconds:8.2f} s   loop / this {statistics.median(ratios):6.1f}")
    (both, union), (loop_both, loop_union) = counts["ours"], counts["loop"]
    iou, loop_iou = both / union.clamp(min=1), loop_both / loop_union.clamp(min=1)
    print(
        f"counts that differ: {int((both != loop_both).sum() + (union != loop_union).sum())} of {2 * both.numel()}; "
        f"largest difference of an IoU {float((iou - loop_iou).abs().max()):.2g}; units that detect something: "
        f"{int((iou.amax(1) > 0.04).sum())} and {int((loop_iou.amax(1) > 0.04).sum())} of {len(iou)}"
    )
    ratio = statistics.median(slow / own for slow, own in zip(times["loop"], times["ours"], strict=True))
    print(f"at least {FASTER} times faster: {'yes' if ratio >= FASTER else 'NO'}\n")


def loop(classifier: Classifier, layer: str, concepts: Concepts) -> tuple[Tensor, Tensor]:
    """Dissect as NetDissect-Lite does: all activations kept, then one image and one unit after the other.

    Written from the definition of Bau et al. (2017) in the order of that program: sort each unit's activations for its
    threshold; then for each image and each unit that is above it somewhere, enlarge the map with Pillow, list the
    active pixels, and count the labels there. IoU's union is as in `dissect`: over the images in which the concept's
    category is annotated.
    """
    read = [concepts[place].fitted(classifier.fit, classifier.channels) for place in range(len(concepts))]
    category_of = np.array(concepts.category_of)
    chosen = choose_layers(classifier, layer)
    images = torch.stack([image for image, _ in read])
    kept = [activations(classifier, chosen, batch)[layer] for batch in torch.split(images, BATCH)]
    features = torch.cat(kept).numpy()
    units, number = features.shape[1], len(concepts.names)
    thresholds = np.zeros(units, dtype=np.float32)
    for unit in range(units):
        values = np.sort(features[:, unit].ravel())[::-1]
        thresholds[unit] = values[int(round(TOP * 1e6) * len(values) // 1_000_000)]
    both, active = (np.zeros((units, number), dtype=np.int64) for _ in range(2))
    area = np.zeros(number, dtype=np.int64)
    for image, (_, maps) in enumerate(read):
        label_maps = maps.numpy()
        categories = np.isin(category_of, concepts[image].categories)
        area += np.bincount((label_maps - NOTHING).ravel(), minlength=number + 1)[1:]
        for unit in range(units):
            feature = features[image, unit]
            if feature.max() <= thresholds[unit]:
                continue
            enlarged = Image.fromarray(feature).resize(label_maps.shape[:0:-1], Image.Resampling.BILINEAR)
            rows, columns = np.nonzero(np.asarray(enlarged) > thresholds[unit])
            here = label_maps[:, rows, columns] - NOTHING
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
        print(f"{count:>5} images: peak {float(peak):7.0f} MiB, {int(written)} bytes written to disk")
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
    """Return how many bytes this process has given to files so far (Linux)."""
    lines = Path("/proc/self/io").read_text().splitlines()
    return int(next(line for line in lines if line.startswith("write_bytes")).split()[1])


def _measure(place: str, model: str, weights: str, layer: str) -> None:
    torch.set_num_threads(1)
    classifier = load_classifier(model, weights=weights or None)
    before = _written()
    dissect(classifier, layer, open_concepts(place), batch_size=BATCH)
    print(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024, _written() - before)


if __name__ == "__main__":
    _measure(*sys.argv[1:])
