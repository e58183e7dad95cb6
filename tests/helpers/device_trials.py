"""What is computed with tensors, in small, on a device that is named; run as a program, on the second device."""

from __future__ import annotations

import sys
import tempfile
import traceback
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import pandas as pd
import torch
from torch import Tensor

from tests.helpers import second_device
from tests.helpers.made_dissections import made_concepts
from tests.helpers.models import small
from tests.helpers.quick_methods import (
    EVERY_PENALTY,
    FITS,
    QUICK_ATTACKS,
    QUICK_DETECTORS,
    QUICK_MAPS,
    QUICK_STUDIES,
    make_universal,
    network_for,
)
from tests.helpers.small_studies import write_images
from tests.helpers.unit_pairs import LAST, a_pair, dissection_of, pooled
from whyfooled import (
    GradCAM,
    Grid,
    Superpixels,
    Untargeted,
    dissect,
    explain,
    explain_perturbation,
    explain_units,
    interpretability_score,
    run_attack,
    run_study,
)
from whyfooled.defences import FittingDetector
from whyfooled.registry import describe
from whyfooled.universal import UniversalPerturbation

Trial = Callable[[str], list[Tensor]]

OF_FILES = {"object-or-background", "sensitivity-interpretability"}
"""Studies of masks and dissections that lie in folders; what they measure is measured in others."""


def draw_images(count: int, device: str) -> Tensor:
    return torch.rand(count, 3, 16, 16, generator=torch.Generator().manual_seed(7)).to(device)


def _stay(tensors: list[Tensor], device: str) -> list[Tensor]:
    """Return tensors that lie where they were computed; raise `RuntimeError` if one does not."""
    places = {tensor.device.type for tensor in tensors}
    if places != {torch.device(device).type}:
        raise RuntimeError(f"All was to stay on {device}, and lies on {places}.")
    return tensors


def compute_maps(method: Any, device: str) -> list[Tensor]:
    classifier, classes = network_for(method).to(device), torch.arange(4, device=device)
    return _stay([method(classifier, draw_images(4, device), classes)], device)


def attack(method: Any, device: str) -> list[Tensor]:
    classifier, images = small().to(device), draw_images(4, device)
    torch.manual_seed(0)
    result = run_attack(method, classifier, images, Untargeted(classifier.predict(images)))
    return _stay([result.success, result.adversarial, result.logits], device)


def detect(detector: Any, device: str) -> list[Tensor]:
    classifier, images = small().to(device), draw_images(40, device)
    judge = detector.fit(classifier, images) if isinstance(detector, FittingDetector) else detector
    leaf = images[:5].clone().requires_grad_()
    slope = torch.autograd.grad(judge.loss(classifier, leaf).sum(), leaf)[0]
    return _stay([judge(classifier, images[:5]), slope], device)


def penalise(penalty: Any, device: str) -> list[Tensor]:
    network = small().to(device).module
    loss = penalty(network, draw_images(4, device), torch.arange(4, device=device))
    slopes = torch.autograd.grad(loss, list(network.parameters()), materialize_grads=True)
    return _stay([loss, *slopes], device)


def fit_universal(name: str, device: str) -> list[Tensor]:
    classifier, images = small().to(device), draw_images(6, device)
    return [make_universal(name).fit(classifier, (images, classifier.predict(images))).delta]


def study(name: str, device: str) -> list[Tensor]:
    with tempfile.TemporaryDirectory() as place:
        folder = Path(place)
        images = write_images(folder / "images.npz", count=5)
        run_study(QUICK_STUDIES[name], images, folder / "run", model=small().to(device))
        table = pd.concat(pd.read_parquet(path) for path in sorted(folder.rglob("*.parquet")))
    return _read_numbers(table.drop(columns=["seconds"], errors="ignore"))


def _read_numbers(table: pd.DataFrame) -> list[Tensor]:
    return [torch.from_numpy(table.select_dtypes(["number", "bool"]).to_numpy(dtype="float64"))]


def explain_whole(device: str) -> list[Tensor]:
    classifier = small().to(device)
    universal = UniversalPerturbation(torch.full((3, 16, 16), 0.05), epsilon=0.05, ball="linf")
    made = explain(classifier, draw_images(1, device), attack="cw(steps=9)", trust=universal, checks=True)
    maps = [one.maps for one in (made.headline, *made.evidence)]
    curves = [curve.probability for each in made.recovery for curve in each.curves.values()]
    return [made.adversarial, made.logits, *maps, *curves, made.effect.sensitivity.true_change]


def explain_regions(regions: Any, device: str) -> list[Tensor]:
    clean, adversarial = (image.to(device) for image in a_pair())
    made = explain_perturbation(pooled().to(device), clean, adversarial, regions=regions)
    return [made.effect.sensitivity.true_change, made.effect.sensitivity.ratio]


def explain_layer(device: str) -> list[Tensor]:
    classifier = pooled()
    dissection = dissection_of(classifier, LAST)
    clean, adversarial = (image.to(device) for image in a_pair())
    made = explain_units(classifier.to(device), clean, adversarial, dissection, draws=2)
    return _read_numbers(made.units.to_frame())


def dissect_layer(device: str) -> list[Tensor]:
    return _read_numbers(dissect(pooled().to(device), LAST, made_concepts(), permutations=2).to_frame())


def score_map(device: str) -> list[Tensor]:
    clean, adversarial = (image.to(device) for image in a_pair())
    classifier = pooled().to(device)
    cams = GradCAM()(classifier, clean, classifier.predict(clean))
    score = interpretability_score(adversarial - clean, cams)
    return [score.score, score.chance]


def _by_name(methods: list[Any]) -> dict[str, Any]:
    """Keep the first of each name."""
    return {method.card.name: method for method in reversed(methods)}


TRIALS: dict[str, Trial] = {
    **{f"maps: {describe(method)}": partial(compute_maps, method) for method in QUICK_MAPS},
    **{f"attack: {name}": partial(attack, method) for name, method in _by_name(QUICK_ATTACKS).items()},
    **{f"detector: {describe(detector)}": partial(detect, detector) for detector in QUICK_DETECTORS},
    **{f"penalty: {describe(penalty)}": partial(penalise, penalty) for penalty in EVERY_PENALTY},
    **{f"fit: {name}": partial(fit_universal, name) for name in FITS},
    "explanation": explain_whole,
    "regions of a grid": partial(explain_regions, Grid(4)),
    "superpixels": partial(explain_regions, Superpixels(6)),
    "labelled regions": partial(explain_regions, torch.arange(16).repeat(16, 1) // 4),
    "units of a pair": explain_layer,
    "dissection": dissect_layer,
    "interpretability score": score_map,
}


STUDY_TRIALS: dict[str, Trial] = {name: partial(study, name) for name in QUICK_STUDIES if name not in OF_FILES}
"""Those that take longer."""


def run_all(trials: dict[str, Trial], path: str) -> None:
    """Run every trial on the second device, and write what each gives, or how it failed."""
    second_device.take_in()
    given: dict[str, list[Tensor] | str] = {}
    for name, trial in trials.items():
        try:
            given[name] = [tensor.detach().cpu() for tensor in trial(second_device.NAME)]
        except Exception as error:
            given[name] = "".join(traceback.format_exception(error))
    torch.save(given, path)


if __name__ == "__main__":
    run_all(STUDY_TRIALS if sys.argv[1] == "studies" else TRIALS, sys.argv[2])
