"""Time of exact sensitivity against Captum's FeatureAblation, at the number of perturbations that suits it best."""

from __future__ import annotations

import resource
import statistics
import time
from collections.abc import Callable
from importlib.metadata import version

import torch
from captum.attr import FeatureAblation
from torch import Tensor

from whyfooled import Classifier, count_passes, load_classifier
from whyfooled.perturbation import Grid, Sensitivity, region_labels, sensitivity

MODELS = {"lite0": "lite0", "resnet50": "torchvision:resnet50", "vgg16": "torchvision:vgg16"}
AT_ONCE = (1, 2, 4, 8, 16, 32)
"""How many perturbations Captum is let evaluate together; the fastest counts."""
TOLERANCE = 1e-4
"""How far the logits' changes may be apart."""
CLASSES = (0, 1)


def run(repeats: int, cell: int, models: str) -> None:
    versions = f"torch {version('torch')}, captum {version('captum')}"
    print(f"{versions}, {torch.get_num_threads()} threads, float32, one image, cells of {cell} pixels; processor time")
    # First, because the peak is the process's.
    _memory(load_classifier("lite0"))
    for name in models.split(","):
        weights = None if name == "lite0" else "random"
        _compare(name, load_classifier(MODELS[name], weights=weights), repeats, cell)


def _compare(name: str, classifier: Classifier, repeats: int, cell: int) -> None:
    clean, adversarial = _pair(classifier, touched=1.0)
    labels = region_labels(Grid(cell), clean)

    def ours() -> Sensitivity:
        true, target = (torch.tensor([index]) for index in CLASSES)
        return sensitivity(classifier, clean, adversarial, true, target, labels)

    def theirs(at_once: int, index: int = CLASSES[0]) -> Tensor:
        return _captum(classifier, clean, adversarial, labels, index, at_once)

    with count_passes(classifier) as passes:
        found = ours()
    differences = [
        float((found.on_image(own)[0] - theirs(AT_ONCE[0], index)).abs().max())
        for own, index in zip((found.true_change, found.target_change), CLASSES, strict=True)
    ]
    best = min(AT_ONCE, key=lambda at_once: _seconds(lambda: theirs(at_once)))
    pairs = [(_seconds(ours), _seconds(lambda: theirs(best))) for _ in range(repeats)]
    mine, captum = (statistics.median(times) for times in zip(*pairs, strict=True))
    ratio = statistics.median(own / other for own, other in pairs)
    equal = "equal" if max(differences) <= TOLERANCE else "NOT EQUAL"
    print(f"\n{name}: {found.score.shape[1]} regions, {passes.forwards} forward passes; both classes' changes of the")
    print(f"logits {equal} to Captum's, to {max(differences):.1e}")
    print(f"  Captum, one class, {best} perturbations at once  {captum:8.3f} s")
    print(f"  whyfooled, both classes                      {mine:8.3f} s   {ratio:.2f}x (median of {repeats} pairs)")
    _, sparse = _pair(classifier, touched=0.1)
    with count_passes(classifier) as passes:
        true, target = (torch.tensor([index]) for index in CLASSES)
        sensitivity(classifier, clean, sparse, true, target, labels)
    print(f"  whyfooled, a tenth of the image perturbed: {passes.forwards} forward passes; Captum makes all of them")


def _pair(classifier: Classifier, touched: float) -> tuple[Tensor, Tensor]:
    """Make a random image, and one that differs from it in the upper part."""
    generator = torch.Generator().manual_seed(0)
    clean = torch.rand(1, 3, *classifier.size, generator=generator)
    delta = 0.05 * torch.randn(clean.shape, generator=generator)
    delta[:, :, round(touched * classifier.size[0]) :] = 0
    return clean, (clean + delta).clamp(0, 1)


def _captum(
    classifier: Classifier, clean: Tensor, adversarial: Tensor, labels: Tensor, index: int, at_once: int
) -> Tensor:
    with torch.no_grad():
        found: Tensor = FeatureAblation(classifier).attribute(
            adversarial,
            baselines=clean,
            target=index,
            feature_mask=labels.unsqueeze(1),
            perturbations_per_eval=at_once,
        )
    return found[0, 0]


def _seconds(call: Callable[[], object]) -> float:
    """Return the processor time of a call: others on the machine do not add to it."""
    started = time.process_time()
    call()
    return time.process_time() - started


def _memory(classifier: Classifier) -> None:
    """Say how much the peak memory grows from few regions to many."""
    clean, adversarial = _pair(classifier, touched=1.0)
    true, target = (torch.tensor([index]) for index in CLASSES)
    peaks = []
    for cell in (112, 8):
        found = sensitivity(classifier, clean, adversarial, true, target, Grid(cell))
        peaks.append((found.score.shape[1], resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024))
    (few, before), (many, after) = peaks
    print(f"memory: peak of the process {before:.0f} MiB after {few} regions, {after:.0f} MiB after {many}")
