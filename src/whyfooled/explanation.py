"""Explaining one attack on one image, end to end: `explain` computes, `Explanation` holds what was found."""

from __future__ import annotations

import platform
import time
import warnings
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field, is_dataclass, replace
from importlib import metadata
from pathlib import Path
from typing import Any, Literal, final

import torch
from PIL import Image as PILImage
from torch import Tensor

from whyfooled.attacks import AttackResult, CarliniWagner, run_attack
from whyfooled.classifier import Classifier
from whyfooled.errors import ParameterError, RuleError, WhyfooledWarning, bad_parameter
from whyfooled.goals import Goal, Targeted, Untargeted
from whyfooled.images import output_folder, read_adversarial, read_photograph
from whyfooled.measures import FILLS, FRACTIONS, RecoveryCurve, random_maps, recovery_curve
from whyfooled.passes import Passes, count_passes
from whyfooled.registry import describe, parameters, parse
from whyfooled.saliency import Deconvnet, Enhanced, GradCAM, Gradient, GuidedBackprop, InputXGradient, enhance
from whyfooled.saliency.enhanced import strongest_other
from whyfooled.types import Image, Images, Maps, Progress, silent

Outcome = Literal["fooled", "failed", "already wrong"]
SUSPICIOUS_CHANGE = 0.1
"""Mean absolute change of a value above which two images are hardly an adversarial pair. [ours]"""
RANDOM_ORDERS = 5


@final
@dataclass(frozen=True, eq=False)
class Evidence:
    """What one saliency method shows, for both images and both classes.

    Parameters
    ----------
    method
        The method, as on the command line.
    title
        The method's name in a report.
    summary
        What it computes, in one sentence.
    contrastive
        Whether each map holds its class against the other one.
    maps
        (2,2,c,h,w): the clean and the adversarial image × the wrong and the true class.
    """

    method: str
    title: str
    summary: str
    contrastive: bool
    maps: Tensor

    @property
    def wrong(self) -> Maps:
        """(1,c,h,w) The map of the wrong class on the adversarial image."""
        return self.maps[1, :1]

    def similarity(self) -> tuple[float, float]:
        """Compare the clean image's map with the adversarial one's, by cosine: of the wrong class, of the true class."""
        clean, adversarial = self.maps.flatten(2).double()
        wrong, true = torch.cosine_similarity(clean, adversarial, dim=1).tolist()
        return wrong, true


@final
@dataclass(frozen=True, eq=False)
class Recovery:
    """How the true class comes back when an adversarial image's pixels are perturbed in some order.

    Parameters
    ----------
    title
        Where the order comes from.
    curves
        For each fill, the curve; of several orders if the order is random, else of one.
    """

    title: str
    curves: dict[str, RecoveryCurve]


@final
@dataclass(frozen=True, eq=False)
class Explanation:
    """Why a classifier took an image for something else.

    Made by `explain`. In a notebook it shows the report; `save` writes everything to a folder.

    Parameters
    ----------
    clean, adversarial
        (c,h,w) The image before and after the attack; after an attack that failed, what it tried last.
    clean_logits, logits
        (m,) The classifier's logits for them.
    true, wrong
        The class the image shows, and the class that it is (or was to be) taken for.
    names
        The names of all m classes.
    outcome
        ``"fooled"``, ``"failed"`` (the attack did not reach its goal) or ``"already wrong"`` (nothing was attacked).
    headline
        The enhanced maps that the account is about.
    evidence
        What the other methods show.
    recovery
        One for each map, then for the size of the perturbation, then for random orders.
    notes
        What a reader should know before believing the rest, in sentences.
    parameters
        Model, attack, methods, seed: what it takes to do it again.
    seconds
        How long each stage took.
    passes
        Images sent through the classifier, forwards and backwards, in each stage.
    """

    clean: Image
    adversarial: Image
    clean_logits: Tensor
    logits: Tensor
    true: int
    wrong: int
    names: tuple[str, ...]
    outcome: Outcome
    headline: Evidence
    evidence: tuple[Evidence, ...]
    recovery: tuple[Recovery, ...]
    notes: tuple[str, ...]
    parameters: dict[str, Any]
    seconds: dict[str, float]
    passes: dict[str, Passes]

    @property
    def delta(self) -> Image:
        """(c,h,w) What was added to the clean image."""
        return self.adversarial - self.clean

    def to_dict(self) -> dict[str, Any]:
        """Return every number of the report, as plain Python values."""
        from whyfooled.report.numbers import numbers

        return numbers(self)

    def summary(self) -> str:
        """Return a short account in plain text."""
        from whyfooled.report.account import account

        return account(self.to_dict())

    def save(self, folder: str | Path) -> Path:
        """Write ``report.html``, the pictures, ``explanation.json`` and ``tensors.safetensors``, all or nothing.

        Raises
        ------
        OutputError
            If the folder cannot be written.
        """
        from whyfooled.report.page import write_files

        with output_folder(folder) as staging:
            write_files(self, staging)
        return Path(folder)

    def _repr_html_(self) -> str:
        from whyfooled.report.page import notebook_frame

        return notebook_frame(self)


def explain(
    classifier: Classifier,
    image: str | Path | PILImage.Image | Images,
    *,
    attack: str | Callable[[Classifier, Images, Goal], Images] | None = None,
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
        An attack, or its name as on the command line; `CarliniWagner` if None. Not together with `adversarial`.
    adversarial
        An adversarial image made elsewhere: a tensor (1,c,h,w) of the classifier's input size, or a file with one.
    label
        The true class (name or index); the class predicted on the clean image if None.
    target
        The class that the attack is to reach (name or index); any wrong one if None.
    methods
        Saliency methods, or their names as on the command line, to show beside enhanced guided backpropagation; every one
        that works on this model if None.
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
    RuleError
        If a method that was asked for does not work on this model.
    """
    if attack is not None and adversarial is not None:
        raise ParameterError("`attack` and `adversarial` exclude each other: the image is attacked, or was. Give one.")
    stages = _Stages(classifier, progress)
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        clean = _clean_image(classifier, image)
        case = _attacked(classifier, clean, attack, adversarial, label, target, stages, seed)
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


@dataclass(frozen=True, eq=False)
class _Case:
    """An image, what became of it, and the two classes that it is about."""

    clean: Images
    adversarial: Images
    clean_logits: Tensor
    logits: Tensor
    true: int
    wrong: int
    outcome: Outcome
    parameters: dict[str, Any]
    notes: tuple[str, ...] = field(default=())


def _clean_image(classifier: Classifier, image: str | Path | PILImage.Image | Images) -> Images:
    if isinstance(image, (str, Path)):
        image = read_photograph(image)
    if isinstance(image, PILImage.Image):
        return classifier.prepare(image)
    expected = (1, classifier.mean.shape[1], *classifier.size)
    if tuple(image.shape) != expected:
        raise bad_parameter("image", f"must be one image of the classifier's input size, {expected}", tuple(image.shape))
    return image.to(classifier.mean)


def _attacked(
    classifier: Classifier,
    clean: Images,
    attack: str | Callable[[Classifier, Images, Goal], Images] | None,
    adversarial: str | Path | Images | None,
    label: str | int | None,
    target: str | int | None,
    stages: _Stages,
    seed: int,
) -> _Case:
    """Say which classes the explanation is about, and get the adversarial image."""
    clean_logits = classifier.logits(clean)
    count = clean_logits.shape[1]
    seen = int(clean_logits.argmax())
    true = seen if label is None else classifier.class_index(label, count, "label")
    aim = None if target is None else classifier.class_index(target, count, "target")
    if aim == true:
        raise bad_parameter("target", "must be another class than the true one", repr(classifier.class_name(true)))
    goal: Goal = Untargeted(clean.new_tensor([true], dtype=torch.int64))
    if aim is not None:
        goal = Targeted(clean.new_tensor([aim], dtype=torch.int64))
    given: dict[str, Any] = {
        "label": classifier.class_name(true) if label is not None else None,
        "target": None if aim is None else classifier.class_name(aim),
    }
    if adversarial is not None:
        result = AttackResult.from_images(classifier, clean, _made_elsewhere(classifier, adversarial), goal)
        given["adversarial"] = str(adversarial) if isinstance(adversarial, (str, Path)) else "given as a tensor"
    elif seen != true:
        result = AttackResult.from_images(classifier, clean, clean, goal)
        given["attack"] = None
    else:
        chosen = _chosen_attack(attack, seed)
        with stages.stage("attack"):
            result = run_attack(chosen, classifier, clean, goal, progress=stages.progress)
        given["attack"] = describe(chosen) if hasattr(chosen, "card") else getattr(chosen, "__name__", repr(chosen))
    return _case(classifier, result, true, aim, given)


def _case(
    classifier: Classifier, result: AttackResult, true: int, aim: int | None, given: dict[str, Any]
) -> _Case:
    seen, now = int(result.clean_logits.argmax()), int(result.predictions)
    outcome: Outcome = "fooled" if result.success[0] else "failed"
    if seen != true and torch.equal(result.attempted, result.clean):
        outcome = "already wrong"
    wrong = now
    if now == true:
        wrong = aim if aim is not None else int(strongest_other(result.logits, result.predictions))
    elif outcome == "failed" and aim is not None:
        wrong = aim
    return _Case(
        clean=result.clean,
        adversarial=result.attempted,
        clean_logits=result.clean_logits[0],
        logits=result.logits[0],
        true=true,
        wrong=wrong,
        outcome=outcome,
        parameters=given,
        notes=tuple(_case_notes(classifier, result, true, aim, outcome)),
    )


def _case_notes(
    classifier: Classifier, result: AttackResult, true: int, aim: int | None, outcome: Outcome
) -> Iterator[str]:
    name = classifier.class_name
    seen, now = int(result.clean_logits.argmax()), int(result.predictions)
    if outcome == "already wrong":
        yield (
            f"The model already takes the clean image for {name(seen)} instead of {name(true)}: there is nothing to fool, so no attack "
            "was run, and both columns show the same image."
        )
    elif seen != true:
        yield f"The model already takes the clean image for {name(seen)} instead of {name(true)}."
    if outcome == "failed":
        wanted = f"{name(aim)}" if aim is not None else f"any class other than {name(true)}"
        yield f"The attack failed: the image was to be taken for {wanted} and is taken for {name(now)}. What it tried last is explained."
    change = float((result.attempted - result.clean).abs().mean())
    if change > SUSPICIOUS_CHANGE:
        yield (
            f"The two images differ by {change:.2f} (of 1) a pixel value on average, too much for one perturbation: is the adversarial image "
            "made from the same photograph, resized and cropped in the same way?"
        )


def _made_elsewhere(classifier: Classifier, adversarial: str | Path | Images) -> Images:
    expected = (classifier.mean.shape[1], *classifier.size)
    if isinstance(adversarial, (str, Path)):
        return read_adversarial(adversarial, expected).to(classifier.mean)
    if tuple(adversarial.shape) != (1, *expected):
        rule = f"must be one image of the classifier's input size, {(1, *expected)}"
        raise bad_parameter("adversarial", rule, tuple(adversarial.shape))
    return adversarial.to(classifier.mean)


def _chosen_attack(attack: Any, seed: int) -> Callable[[Classifier, Images, Goal], Images]:
    chosen = CarliniWagner() if attack is None else parse("attacks", attack) if isinstance(attack, str) else attack
    # A seed of the attack's own goes before the explanation's.
    seeded = is_dataclass(chosen) and parameters(type(chosen)).get("seed", seed) == getattr(chosen, "seed", None)
    found: Callable[[Classifier, Images, Goal], Images] = replace(chosen, seed=seed) if seeded else chosen
    return found


_DEFAULT_METHODS = (GuidedBackprop(), Deconvnet(), Gradient(), InputXGradient(), GradCAM())


def _evidence(
    classifier: Classifier, case: _Case, methods: Sequence[Any] | None, stages: _Stages
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
        except RuleError as error:
            if first in chosen:
                raise
            headline = evidence(Enhanced(base=Gradient()))
            skipped.append(f"Enhanced guided backpropagation does not work on this model, so the gradient is enhanced instead. {error}")
        for done, method in enumerate(others):
            stages.progress(done, len(others), "saliency maps")
            try:
                found.append(evidence(method))
            except RuleError as error:
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
    return f"Enhanced {base[0].lower()}{base[1:]}{norm}"


def _recovery(
    classifier: Classifier, case: _Case, evidence: list[Evidence], seed: int, stages: _Stages
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
                fill: recovery_curve(classifier, repeated, true.expand(len(stacked)), stacked, fill=fill, seed=seed)
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


__all__ = ["FRACTIONS", "Evidence", "Explanation", "Recovery", "explain", "title"]
