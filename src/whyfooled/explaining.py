"""Explaining one attack on one image, end to end."""

from __future__ import annotations

import platform
import time
import warnings
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from importlib import metadata
from pathlib import Path
from typing import Any

import torch
from PIL import Image as PILImage
from torch import Tensor

from whyfooled.case import Case, attacked, clean_image
from whyfooled.classifier import Classifier
from whyfooled.errors import MethodError, ParameterError, WhyfooledWarning
from whyfooled.explanation import Evidence, Explanation, Recovery
from whyfooled.fills import FILLS
from whyfooled.measures import random_maps, recovery_curve
from whyfooled.passes import Passes, count_passes
from whyfooled.registry import describe, parse
from whyfooled.saliency import Deconvnet, Enhanced, GradCAM, Gradient, GuidedBackprop, InputXGradient, enhance
from whyfooled.types import Images, Progress, silent

RANDOM_ORDERS = 5
"""How many random orders of the pixels a recovery curve is held against."""


def explain(
    classifier: Classifier,
    image: str | Path | PILImage.Image | Images,
    *,
    attack: Any = None,
    adversarial: str | Path | Images | None = None,
    label: str | int | None = None,
    target: str | int | None = None,
    methods: Sequence[Any] | None = None,
    seed: int = 0,
    progress: Progress = silent,
) -> Explanation:
    """Attack an image, or take an adversarial image made elsewhere, and explain why the classifier is fooled by it.

    Parameters
    ----------
    classifier
        The classifier to fool.
    image
        A photograph (file or PIL image), brought to the classifier's input size; or a tensor (1,c,h,w) of that size.
    attack
        An attack, or its name as on the command line; or anything that `run_attack` takes; `CarliniWagner` if None. Not
        together with `adversarial`.
    adversarial
        An adversarial image made elsewhere: a tensor (1,c,h,w) of the classifier's input size, or a file with one.
    label
        The true class (name or index); the class predicted on the clean image if None.
    target
        The class that the attack is to reach (name or index); any wrong one if None.
    methods
        Saliency methods, or their names as on the command line, to show beside enhanced guided backpropagation; every
        one that works on this model if None.
    seed
        Seed of everything random.
    progress
        Called with the steps done, the steps in all, and what is being done.

    Returns
    -------
    Explanation

    Raises
    ------
    ParameterError
        If an argument has a value that it must not have, such as an unknown class.
    ImageError
        If an image cannot be read, or does not fit the classifier.
    MethodError
        If a method that was asked for does not work on this model.
    """
    if attack is not None and adversarial is not None:
        raise ParameterError("`attack` and `adversarial` exclude each other: the image is attacked, or was. Give one.")
    stages = _Stages(classifier, progress)
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        clean = clean_image(classifier, image)
        with stages.stage("attack"):
            case = attacked(classifier, clean, attack, adversarial, label, target, seed, progress)
        headline, evidence, skipped = _evidence(classifier, case, methods, stages)
        recovery = _recovery(classifier, case, [headline, *evidence], seed, stages)
    notes = [*case.notes, *skipped, *_pass_on(caught)]
    return Explanation(
        clean=clean[0].cpu(),
        adversarial=case.adversarial[0].cpu(),
        clean_logits=case.clean_logits.cpu(),
        logits=case.logits.cpu(),
        true=case.true,
        wrong=case.wrong,
        names=tuple(classifier.class_name(index) for index in range(len(case.logits))),
        outcome=case.outcome,
        headline=headline,
        evidence=tuple(evidence),
        recovery=tuple(recovery),
        notes=tuple(dict.fromkeys(notes)),
        parameters={
            "model": classifier.name,
            "device": str(classifier.device),
            "input_size": list(classifier.size),
            "image": str(image) if isinstance(image, (str, Path)) else "given as pixels",
            **case.parameters,
            "methods": [headline.method, *(one.method for one in evidence)],
            "seed": seed,
            "versions": _versions(),
        },
        seconds=stages.seconds,
        passes=stages.passes,
    )


class _Stages:
    """Times and counts the stages of one explanation, and reports their progress."""

    def __init__(self, classifier: Classifier, progress: Progress) -> None:
        self.classifier = classifier
        self.progress = progress
        self.seconds: dict[str, float] = {}
        self.passes: dict[str, Passes] = {}

    @contextmanager
    def stage(self, name: str) -> Iterator[None]:
        started = time.perf_counter()
        with count_passes(self.classifier) as passes:
            yield
        self.seconds[name] = time.perf_counter() - started
        self.passes[name] = passes


_DEFAULT_METHODS = (GuidedBackprop(), Deconvnet(), Gradient(), InputXGradient(), GradCAM())


def _evidence(
    classifier: Classifier, case: Case, methods: Sequence[Any] | None, stages: _Stages
) -> tuple[Evidence, list[Evidence], list[str]]:
    """Compute the maps of every method; methods with the same base share its passes."""
    chosen = [parse("saliency", m) if isinstance(m, str) else m for m in methods or _DEFAULT_METHODS]
    first = next((m for m in chosen if isinstance(m, Enhanced)), Enhanced())
    others = [m for m in chosen if m != first]
    computed: dict[str, Tensor] = {}
    images = torch.cat([case.clean, case.adversarial])
    classes = torch.tensor([[case.wrong, case.true]] * 2, device=images.device)

    def evidence(method: Any) -> Evidence:
        base = method.base if isinstance(method, Enhanced) else method
        key = describe(base)
        if key not in computed:
            computed[key] = base(classifier, images, classes)
        maps = computed[key]
        if isinstance(method, Enhanced):
            wrong, true = maps.unbind(1)
            maps = torch.stack([enhance(wrong, true, method.norm), enhance(true, wrong, method.norm)], dim=1)
        return Evidence(describe(method), title(method), method.card.summary, isinstance(method, Enhanced), maps.cpu())

    found: list[Evidence] = []
    skipped: list[str] = []
    with stages.stage("saliency"):
        try:
            headline = evidence(first)
        except MethodError as error:
            if first in chosen:
                raise
            headline = evidence(Enhanced(base=Gradient()))
            skipped.append(
                "Enhanced guided backpropagation does not work on this model, so the gradient is enhanced instead. "
                f"{error}"
            )
        for done, method in enumerate(others):
            stages.progress(done, len(others), "saliency maps")
            try:
                found.append(evidence(method))
            except MethodError as error:
                if methods is not None:
                    raise
                skipped.append(f"{title(method)} is not shown. {error}")
        stages.progress(len(others), max(len(others), 1), "saliency maps")
    return headline, found, skipped


def title(method: Any) -> str:
    """Write a method's name as a report does, such as "Enhanced guided backpropagation (max)"."""
    if not isinstance(method, Enhanced):
        known: str = method.card.title
        return known
    base = title(method.base)
    norm = "" if method.norm == "channel" else f" ({method.norm})"
    # A word like "Guided" loses its capital in the middle of a title; a name like "LIME" or "Grad-CAM" keeps it.
    base = base[0].lower() + base[1:] if base.split()[0].istitle() else base
    return f"Enhanced {base}{norm}"


def _recovery(
    classifier: Classifier, case: Case, evidence: list[Evidence], seed: int, stages: _Stages
) -> list[Recovery]:
    """Perturb the adversarial image in the order of every map, of the perturbation's size, and at random."""
    image = case.adversarial
    orders: list[tuple[str, list[Tensor]]] = [(one.title, [one.wrong.to(image)]) for one in evidence]
    size = (case.adversarial - case.clean).abs()
    if size.any():
        orders.append(("Size of the perturbation", [size]))
    orders.append(("Random order", [random_maps(image, seed + number) for number in range(RANDOM_ORDERS)]))
    true = torch.tensor([case.true], device=image.device)
    found = []
    with stages.stage("recovery"):
        for done, (name, maps) in enumerate(orders):
            stages.progress(done, len(orders), "recovery")
            stacked = torch.cat(maps)
            repeated = image.expand(len(stacked), -1, -1, -1)
            curves = {
                str(fill): recovery_curve(
                    classifier, repeated, true.expand(len(stacked)), stacked, fill=fill, seed=seed
                )
                for fill in FILLS
            }
            found.append(Recovery(name, curves))
        stages.progress(len(orders), len(orders), "recovery")
    return found


def _pass_on(caught: list[warnings.WarningMessage]) -> Iterator[str]:
    """Turn our warnings into notes, and let everybody else's go where they were going."""
    for one in caught:
        if issubclass(one.category, WhyfooledWarning):
            yield str(one.message)
        else:
            warnings.warn_explicit(one.message, one.category, one.filename, one.lineno)


def _versions() -> dict[str, str]:
    packages = ("whyfooled", "torch", "torchvision", "timm")
    return {"python": platform.python_version(), **{name: metadata.version(name) for name in packages}}
