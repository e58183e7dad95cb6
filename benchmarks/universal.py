"""Universal perturbations: UPI-PCA against a dense singular value decomposition; what a pass costs; memory; passes."""

from __future__ import annotations

import contextlib
import resource
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import TypeVar

import numpy as np
import torch
import torch.nn.functional as F
from PIL import Image
from torch import Tensor, nn

from whyfooled import Classifier, load_classifier
from whyfooled.classifier.memory import batch_size_for
from whyfooled.classifier.passes import Passes
from whyfooled.running.engines import Local
from whyfooled.saliency import Gradient
from whyfooled.saliency.backward.smooth import smooth_activations
from whyfooled.sources import Source, class_map, open_source
from whyfooled.tensors.randomness import choose, image_generators, normal
from whyfooled.universal import (
    UPIPCA,
    RandomDirection,
    UniversalMethod,
    UniversalPerturbation,
    UPIGrad,
    dissimilarity,
    evaluate,
)
from whyfooled.universal._fitting import Fitting, start_fitting
from whyfooled.universal.upi_pca import PowerStep

EPSILON = 1.0
PCA = UPIPCA(epsilon=EPSILON)
BETA = 10.0
SALIENCY = Gradient()
MOST = 1.15
"""How much a pass may cost, against its double-backward passes alone."""
GROWTH = 1.1
"""How much the peak of memory may grow from few images to many."""
AGREE = 1e-2
"""How far the two dissimilarities may be apart."""
PICTURES = 400
"""Random pictures that are drawn where no data are given."""
# One pass: more of them take no more memory.
FITS: dict[str, UniversalMethod] = {
    "UPIPCA": UPIPCA(epsilon=EPSILON, passes=1),
    "UPIGrad": UPIGrad(epsilon=EPSILON, passes=1),
}

Pair = tuple[Tensor, Tensor]
Result = TypeVar("Result")


def run(
    data: str | None,
    model: str | None,
    weights: str | None,
    count: int,
    repeats: int,
    few: int,
    many: int,
) -> None:
    torch.set_num_threads(1)
    model = model or f"{Path(__file__).resolve()}:small_network"
    classifier = load_classifier(model, weights=weights)
    print(f"torch {torch.__version__}, one thread, float32, {classifier.name}; processor time; l2 ball of {EPSILON:g}")
    with tempfile.TemporaryDirectory() as folder:
        pictures = Path(folder)
        _draw(pictures, max(many, PICTURES), classifier.size)
        source = open_source(data or folder)
        count = min(count, len(source) // 2)
        _dense(classifier, source, count, repeats)
        _overhead(classifier, source, count, repeats)
        _passes(classifier, source, count)
        for place in dict.fromkeys([folder, data or folder]):
            _memory(place, model, weights, few, many, "random pictures" if place == folder else place)
        _dense_memory(folder, model, weights, few, many)


def small_network() -> Classifier:
    """Make an untrained network of three convolutions."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        module = nn.Sequential(
            nn.Conv2d(3, 32, 3, padding=1),
            nn.ReLU(),
            nn.Conv2d(32, 64, 3, stride=2, padding=1),
            nn.ReLU(),
            nn.Conv2d(64, 64, 3, stride=2, padding=1),
            nn.ReLU(),
            nn.AdaptiveAvgPool2d(1),
            nn.Flatten(),
            nn.Linear(64, 10),
        )
    return Classifier(module, mean=(0.5,) * 3, std=(0.25,) * 3, size=(32, 32), name="small network")


def _draw(folder: Path, count: int, size: tuple[int, int]) -> None:
    """Write random pictures of a few soft patches."""
    random = np.random.default_rng(0)
    for number in range(count):
        patches = Image.fromarray(random.integers(0, 256, (6, 6, 3), dtype=np.uint8))
        patches.resize(size[::-1], Image.Resampling.BICUBIC).save(folder / f"{number:05d}.png")


def _dense(classifier: Classifier, source: Source, count: int, repeats: int) -> None:
    """Compare D on images held out, and the time to find the perturbation."""
    places = choose(len(source), 2 * count, 0)
    shuffled = torch.randperm(len(places), generator=torch.Generator().manual_seed(1)).tolist()
    fit, test = (_pair(classifier, source, [places[one] for one in half]) for half in _halves(shuffled))
    found: dict[str, UniversalPerturbation] = {}
    times = []
    for _ in range(repeats):
        ours, mine = _timed(lambda: PCA.fit(classifier, fit, SALIENCY, workers=1))
        plain, other = _timed(lambda: dense(classifier, fit))
        found = {"UPI-PCA": ours, "dense SVD": UniversalPerturbation(plain, EPSILON)}
        times.append((mine, other))
    found["random direction"] = RandomDirection(epsilon=EPSILON).fit(classifier, fit, workers=1)
    evaluated = {name: evaluate(classifier, one, test, SALIENCY) for name, one in found.items()}
    apart = {name: one.intervals()["dissimilarity"] for name, one in evaluated.items()}
    mean = dict(zip(found, (statistics.median(column) for column in zip(*times, strict=True)), strict=False))
    ratio = statistics.median(mine / other for mine, other in times)
    print(
        f"\nFitted to {count} images, evaluated on {next(iter(evaluated.values())).count} others, which are classified "
        "right\n"
    )
    print("| | D, held out | seconds |\n|---|---|---|")
    for name, interval in apart.items():
        print(f"| {name} | {interval} | {f'{mean[name]:.2f}' if name in mean else ''} |")
    gap = abs(apart["UPI-PCA"].mean - apart["dense SVD"].mean)
    agreement = F.cosine_similarity(found["UPI-PCA"].delta.flatten(), found["dense SVD"].delta.flatten(), dim=0)
    print(f"\nD {'equal' if gap <= AGREE else 'NOT EQUAL'}, to {gap:.1e}; the perturbations' cosine is {agreement:.4f}")
    print(f"Time, median of {repeats} paired ratios: {ratio:.3f}")


def _halves(places: list[int]) -> tuple[list[int], list[int]]:
    middle = len(places) // 2
    return places[:middle], places[middle:]


def _pair(classifier: Classifier, source: Source, places: Sequence[int]) -> Pair:
    """Read images that show what the classifier sees in them, with their classes."""
    maps = class_map(source, classifier)
    images, classes = [], []
    for place in places:
        image = source[place].fitted(classifier.fit, classifier.channels)
        given = int(classifier.predict(image[None])[0])
        labels = source.labels(place)
        if given in ([label if maps is None else maps[label] for label in labels] or [given]):
            images.append(image)
            classes.append(given)
    return torch.stack(images), torch.tensor(classes)


def dense(classifier: Classifier, pair: Pair) -> Tensor:
    """Find the perturbation as the paper defines it: keep every row, decompose the matrix, choose a vector and sign.

    The rows are means over the noise that `UPIPCA` draws in all of its passes.
    """
    images, classes = pair
    sigma = PCA.noise_size(PCA.noise, tuple(images.shape[1:]))
    size = batch_size_for(classifier)
    rows = torch.empty(len(images), images[0].numel())
    for start in range(0, len(images), size):
        some, own = images[start : start + size], classes[start : start + size]
        with smooth_activations(BETA):
            clean = SALIENCY(classifier, some, own)
        total = torch.zeros_like(some)
        for number in range(PCA.passes):
            # What a fit of seed 0 draws in its pass of this number.
            generators = image_generators(some, number + 1)
            for _ in range(PCA.samples):
                total += _slopes(classifier, some + sigma * normal(some, generators), own, clean)
        rows[start : start + size] = F.normalize(total.flatten(1), dim=1)
    leading = EPSILON * torch.linalg.svd(rows, full_matrices=False).Vh[: PCA.vectors]
    tried = [sign * vector.view(images.shape[1:]) for vector in leading for sign in (1, -1)]
    best: Tensor = max(tried, key=lambda delta: _moved(classifier, pair, delta, size))
    return best


def _slopes(classifier: Classifier, noisy: Tensor, classes: Tensor, clean: Tensor) -> Tensor:
    """Do the double backward pass, and nothing else."""
    inputs = noisy.requires_grad_()
    with smooth_activations(BETA):
        maps = SALIENCY(classifier, inputs, classes, create_graph=True)
    found: Tensor = torch.autograd.grad(dissimilarity(clean, maps).sum(), inputs)[0]
    return found


def _moved(classifier: Classifier, pair: Pair, delta: Tensor, size: int) -> float:
    """Add up D over images, on the true network."""
    total = 0.0
    for start in range(0, len(pair[0]), size):
        images, classes = (tensor[start : start + size] for tensor in pair)
        maps, others = (SALIENCY(classifier, one, classes) for one in (images, images + delta))
        total += float(dissimilarity(maps, others).nansum())
    return total


def _overhead(classifier: Classifier, source: Source, count: int, repeats: int) -> None:
    """Compare a pass, with reading, noise, clean maps and products, with its double-backward passes."""
    with _looked(classifier, source, count) as fit:
        wide = torch.Size(fit.shape).numel()
        basis = torch.linalg.qr(torch.randn(wide, PCA.vectors)).Q.T
        sigma = PCA.noise_size(PCA.noise, fit.shape)
        step = PowerStep(SALIENCY, basis, sigma, PCA.samples, PCA.contrast, PCA.normalise, PCA.beta)
        batches = list(_noisy(classifier, source, fit, sigma))

        def bare() -> None:
            for noisy, classes, clean in batches:
                for one in noisy:
                    _slopes(classifier, one.detach(), classes, clean)

        fit.total(step)
        ratios = []
        print(f"\nA pass over {len(fit.classes)} images, {PCA.samples} samples, and its double-backward passes alone\n")
        print("| repeat | pass (s) | double-backward passes (s) | ratio |\n|---|---|---|---|")
        for repeat in range(repeats):
            # Turn about: machines slow down and speed up.
            calls: list[Callable[[], object]] = [lambda: fit.total(step), bare]
            times = [_timed(call)[1] for call in (calls if repeat % 2 else reversed(calls))]
            mine, other = times if repeat % 2 else reversed(times)
            ratios.append(mine / other)
            print(f"| {repeat} | {mine:.2f} | {other:.2f} | {ratios[-1]:.3f} |")
    ratio = statistics.median(ratios)
    print(f"\nMedian of the paired ratios {ratio:.3f}: {'at most' if ratio <= MOST else 'ABOVE'} {MOST}")


@contextlib.contextmanager
def _looked(classifier: Classifier, source: Source, count: int) -> Iterator[Fitting]:
    with start_fitting(
        classifier,
        source,
        SALIENCY,
        places=choose(len(source), count, 0),
        class_map=class_map(source, classifier),
        batch_size=batch_size_for(classifier),
        engine=Local(classifier, 1),
        seed=0,
        progress=lambda done, total, doing: None,
    ) as fit:
        yield fit


def _noisy(
    classifier: Classifier, source: Source, fit: Fitting, sigma: float
) -> Iterator[tuple[list[Tensor], Tensor, Tensor]]:
    """Give the noisy images of each batch, its classes and the clean maps, before the clock starts."""
    for start in range(0, len(fit.places), fit.batch_size):
        places = fit.places[start : start + fit.batch_size]
        images = torch.stack([source[place].fitted(classifier.fit, classifier.channels) for place in places])
        classes = torch.tensor([fit.classes[place] for place in places])
        generators = image_generators(images, 1)
        noisy = [images + sigma * normal(images, generators) for _ in range(PCA.samples)]
        with smooth_activations(BETA):
            clean = SALIENCY(classifier, images, classes)
        yield noisy, classes, clean


def _passes(classifier: Classifier, source: Source, count: int) -> None:
    """Count the passes of each method for an image, and compare them with what they should be."""
    pair = _pair(classifier, source, choose(len(source), min(count, 16), 0))
    grad = UPIGrad(epsilon=EPSILON)
    look, noisy, choice = Passes(1, 0), PCA.passes * PCA.samples, 1 + 2 * PCA.vectors
    expected: dict[UniversalMethod, Passes] = {
        PCA: Passes(1 + PCA.passes + noisy + choice, PCA.passes + 2 * noisy + choice),
        UPIPCA(epsilon=EPSILON, contrast=0.5): Passes(1 + 2 * PCA.passes + noisy + 3, 2 * PCA.passes + 2 * noisy + 3),
        grad: Passes(1 + 2 * grad.passes, 3 * grad.passes),
        UPIGrad(epsilon=EPSILON, penalty=0.1): Passes(1 + 3 * grad.passes, 4 * grad.passes),
        RandomDirection(epsilon=EPSILON): look,
    }
    print("\nPasses for each image\n\n| method | forwards | backwards | as expected |\n|---|---|---|---|")
    for method, wanted in expected.items():
        found = method.fit(classifier, pair, SALIENCY, workers=1).passes
        each = Passes(found.forwards // len(pair[0]), found.backwards // len(pair[0]))
        right = found == Passes(wanted.forwards * len(pair[0]), wanted.backwards * len(pair[0]))
        print(f"| {method.card.title} | {each.forwards} | {each.backwards} | {'yes' if right else f'NO: {wanted}'} |")


def _memory(data: str, model: str, weights: str | None, few: int, many: int, title: str) -> None:
    """Compare the peaks of processes that fit to few images and to many."""
    print(f"\nPeak memory of a process that fits, {title} (MiB)\n")
    print(f"| method | {few} images | {many} images | ratio |\n|---|---|---|---|")
    for name in FITS:
        peaks = [_peak(data, model, weights, name, count) for count in (few, many)]
        ratio = peaks[1] / peaks[0]
        print(f"| {name} | {peaks[0]:.0f} | {peaks[1]:.0f} | {ratio:.3f}{'' if ratio <= GROWTH else ' TOO MUCH'} |")


def _dense_memory(data: str, model: str, weights: str | None, few: int, many: int) -> None:
    peaks = [_peak(data, model, weights, "dense", count) for count in (few, many)]
    print(f"| dense SVD | {peaks[0]:.0f} | {peaks[1]:.0f} | {peaks[1] / peaks[0]:.3f} |")


def _peak(data: str, model: str, weights: str | None, name: str, count: int) -> float:
    command = [sys.executable, "-m", "benchmarks.universal", data, model, weights or "", name, str(count)]
    return float(subprocess.run(command, check=True, capture_output=True, text=True).stdout)


def _timed(call: Callable[[], Result]) -> tuple[Result, float]:
    """Return what a call gives, and its processor time: others on the machine do not add to it."""
    started = time.process_time()
    found = call()
    return found, time.process_time() - started


def _fit_alone(data: str, model: str, weights: str, name: str, count: str) -> None:
    torch.set_num_threads(1)
    classifier, source = load_classifier(model, weights=weights or None), open_source(data)
    _forget_the_start()
    if name == "dense":
        dense(classifier, _pair(classifier, source, choose(len(source), int(count), 0)))
    else:
        FITS[name].fit(classifier, source, SALIENCY, count=int(count), workers=1)
    print(_highest())


def _forget_the_start() -> None:
    """Start the peak anew, because importing may take more than it leaves; where Linux lets a process."""
    with contextlib.suppress(OSError):
        Path("/proc/self/clear_refs").write_text("5")


def _highest() -> float:
    """Return the peak of the memory, in MiB."""
    with contextlib.suppress(OSError, StopIteration):
        lines = Path("/proc/self/status").read_text().splitlines()
        return int(next(line for line in lines if line.startswith("VmHWM")).split()[1]) / 1024
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024


if __name__ == "__main__":
    _fit_alone(*sys.argv[1:])
