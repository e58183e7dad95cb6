"""Explaining one attack on one image, end to end."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch
from PIL import Image as PILImage
from torch import Tensor, nn

from whyfooled.attacks.forgery import Forgery, find_forgery, find_size
from whyfooled.classifier import Classifier
from whyfooled.classifier.borrowing import one_thread
from whyfooled.classifier.folding import Quickened, quicken
from whyfooled.classifier.passes import Passes
from whyfooled.classifier.workers import share_out
from whyfooled.defences import Calibration
from whyfooled.defences.detection import Detection, check_calibration, find_detection
from whyfooled.errors import MethodError, ModelError, ParameterError, bad_parameter, hearing, warn
from whyfooled.explanations.case import (
    Case,
    check_same_photograph,
    choose_attack,
    classify_saved,
    collect_fields,
    describe_photograph,
    fool_by_chance,
    make_case,
    read_clean_image,
)
from whyfooled.explanations.explanation import Explanation
from whyfooled.explanations.named import describe_named, find_named, read_named_regions
from whyfooled.explanations.question import choose_question
from whyfooled.explanations.shown_maps import check_methods, compute_evidence
from whyfooled.images import content_digest, is_tensor_file, read_photograph
from whyfooled.perturbation.effect import Effect, find_effect
from whyfooled.perturbation.sensitivity import choose_batch_size, describe_evaluations
from whyfooled.registry import describe
from whyfooled.running.provenance import Stages
from whyfooled.saliency.differentiable import check_differentiable
from whyfooled.saliency.evidence import Evidence
from whyfooled.saliency.map_checks import MAPS_CHECKED, MapChecks, check_maps
from whyfooled.saliency.recovery import (
    BATCH_SIZE,
    RANDOM,
    SHIFTED,
    SIZE,
    VERDICT_FILL,
    RecoveryCurve,
    RecoveryCurves,
    random_maps,
    recovery_curve,
    shifted_maps,
)
from whyfooled.tensors.fills import FILLS, Fill
from whyfooled.types import Images, Progress, silent
from whyfooled.units import Dissection
from whyfooled.units.changes import UnitChanges, find_unit_changes, open_dissection
from whyfooled.universal import UniversalPerturbation
from whyfooled.universal.trust import Trust, find_trust

RANDOM_ORDERS = 5
"""With how many random orders of the pixels a recovery curve is compared."""

SHIFTS = 19
"""To how many other places the first map is shifted, where pixels are made black: with the random orders that is what a
report's verdict rests on, and what beats them all does so by chance once in twenty-five times. [ours]"""


@one_thread()
def explain(
    classifier: Classifier,
    image: str | Path | PILImage.Image | Images,
    *,
    attack: Any = None,
    adversarial: str | Path | Images | None = None,
    label: str | int | None = None,
    target: str | int | None = None,
    methods: Sequence[Any] | None = None,
    trust: UniversalPerturbation | str | Path | None = None,
    units: Dissection | str | Path | None = None,
    regions: str | Path | Tensor | None = None,
    names: str | Path | None = None,
    attack_in: str | None = None,
    checks: bool | None = None,
    forge: bool = False,
    detector: Calibration | None = None,
    seed: int = 0,
    progress: Progress = silent,
) -> Explanation:
    """Attack an image, or take an adversarial image made elsewhere, and explain why the classifier is fooled by it.

    Parameters
    ----------
    classifier
        The classifier to fool.
    image
        A photograph (file or PIL image), brought to the classifier's input size; or a tensor (1,c,h,w) of that size, or
        a file with one.
    attack
        An attack, or its name as on the command line; or anything that `run_attack` takes; `CarliniWagner` if None. Not
        together with `adversarial`.
    adversarial
        An adversarial image made elsewhere: a tensor (1,c,h,w) of the classifier's input size, or a file with one.
    label
        The true class (name or index); the class predicted on the clean image if None. Of a model that gives several
        labels, the one to switch, off or on; the strongest if None.
    target
        The class that the attack is to reach (name or index); any wrong one if None.
    methods
        Saliency methods, or their names as on the command line, to show beside enhanced guided backpropagation; those
        of `DEFAULT_METHODS` that work on this model if None, and of all there are if one is named ``"all"``.
    trust
        A universal perturbation, or its file: the explanation then says how much it changes this image's maps, and how
        much random directions of the same norm do. That takes 12 maps more of every method shown.
    units
        A dissection of this classifier, or its folder: the explanation then says what the attack does to the dissected
        units, and through them to the logits. That takes 6 forward passes, and 4 backward passes down to the layers.
    regions
        A label map of the photograph (its file, or a tensor (h,w) of whole numbers), of the photograph's size or the
        classifier's input size: the explanation then says what the perturbation does on each of its regions.
    names
        The file that names the labels of `regions`: a line for each, the first for 0; or CSV with ``label`` and
        ``name``.
    attack_in
        The name of the region in which alone the attack may act.
    checks
        Whether to see if each map passes sanity checks: it hardly changes under noise of the attack's size and another
        seed, and depends on the weights, which are drawn at random; if None, where that takes at most a fifth of the
        other passes, and without another run of the attack. It takes about 10 maps more of every method shown.
    forge
        Whether to try to forge the explanation: an attack that knows the first method has to reach the same class and
        keep that method's map of the clean image, in the attack's own ball (a Euclidean ball as large as the
        perturbation, if it has none), then in larger ones. See `ExplanationAware`. That takes about 400 passes, up to
        three times.
    detector
        A detector of adversarial images, calibrated on clean ones (`whyfooled.defences.calibrate`): the explanation
        then says whether it would have flagged the image, and one of an attack that knows it. See `Evading`. That takes
        about 200 passes, and as many of the detector, up to three times.
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
        If an argument has a value that it must not have, such as an unknown class or another model's dissection.
    ImageError
        If an image or the universal perturbation cannot be read, or does not fit the classifier, or the file of an
        adversarial image shows another photograph.
    MethodError
        If a method that was asked for does not work on this model.
    """
    if attack is not None and adversarial is not None:
        raise ParameterError("`attack` and `adversarial` exclude each other: the image is attacked, or was. Give one.")
    if regions is None and (names is not None or attack_in is not None):
        missing = "names" if names is not None else "attack_in"
        raise bad_parameter(missing, "is about the regions of `regions`", "no `regions`")
    if attack_in is not None and adversarial is not None:
        raise ParameterError("`attack_in` and `adversarial` exclude each other: the image was attacked already.")
    if detector is not None:
        check_calibration(detector, classifier)
    universal = open_universal(classifier, trust)
    dissection = None if units is None else open_dissection(classifier, units, "units")
    with hearing() as heard:
        if isinstance(image, (str, Path)) and not is_tensor_file(Path(image)):
            photograph: Any = read_photograph(image)
        else:
            photograph = image
        clean = read_clean_image(classifier, photograph, adversarial)
        stages = Stages(classifier, progress)
        question = choose_question(classifier, clean, label, target, stages)
        if question is not None and question.others_stay:
            classifier, label = question.asked, None
            stages.count_too(classifier)
        places = None if regions is None else read_named_regions(classifier, photograph, clean, regions, names)
        within = None if attack_in is None or places is None else places.find(attack_in, "attack_in")
        if methods is not None:
            check_methods(classifier, clean, methods, seed, stages)
        quick = _quicken(classifier, clean, stages)
        with stages.stage("attack"):
            case = make_case(
                classifier,
                clean,
                attack=attack,
                adversarial=adversarial,
                label=label,
                target=target,
                mask=within,
                question=question,
                seed=seed,
                progress=progress,
            )
        if isinstance(adversarial, (str, Path)):
            check_same_photograph(case, adversarial)
        by_chance = fool_by_chance(classifier, case, stages, seed)
        saved = classify_saved(classifier, case, stages)
        shown, remarks = compute_evidence(classifier, case, methods, seed, stages)
        headline, *evidence = (one for _, one in shown)
        effect = _find_effect(classifier, case, stages)
        named = None if places is None else find_named(classifier, case, places, stages)
        changes = None if dissection is None else _find_unit_changes(classifier, case, dissection, seed, stages)
        recovery = _measure_recovery(classifier, quick.module, case, [headline, *evidence], seed, stages)
        forgery = _find_forgery(classifier, case, attack, shown[0][0], seed, stages) if forge else None
        detection = (
            None
            if detector is None
            else _find_detection(replace(detector, classifier=classifier), case, attack, seed, stages)
        )
        trusted = (
            None
            if universal is None
            else _find_trust(classifier, case, universal, [method for method, _ in shown], image, seed, stages)
        )
        checked, doubts = _check_maps(classifier, case, [method for method, _ in shown], trusted, checks, seed, stages)
    parts = (part for part in (effect, changes, trusted) if part is not None)
    fields = collect_fields(
        classifier,
        case,
        stages,
        by_chance=by_chance,
        saved=saved,
        image=image,
        notes=[*remarks, *doubts, *(note for part in parts for note in part.notes), *heard],
        parameters={
            **describe_photograph(classifier, photograph),
            **({} if trust is None else {"trust": str(trust)}),
            **({} if units is None else {"units": str(units)}),
            **describe_named(regions, names, attack_in),
            **({"forge": True} if forge else {}),
            **({} if detector is None else {"detector": describe(detector.asked)}),
            "methods": [headline.method, *(one.method for one in evidence)],
            "seed": seed,
            "effect of regions": None
            if effect is None
            else describe_evaluations(classifier, case.clean, effect.sensitivity),
            "recovery": quick.said,
            "batch_size": {"attack": 1, "regions": choose_batch_size(classifier.device), "recovery": BATCH_SIZE},
        },
    )
    return Explanation(
        **fields,
        headline=headline,
        evidence=tuple(evidence),
        recovery=tuple(recovery),
        effect=effect,
        named=named,
        trust=trusted,
        forgery=forgery,
        detection=detection,
        units=changes,
        checks=checked,
    )


def _quicken(classifier: Classifier, clean: Images, stages: Stages) -> Quickened:
    """Make what is evaluated many times over, and count what it takes to make sure of it."""
    with stages.stage("copy"):
        quick = quicken(classifier, clean)
    stages.passes["copy"] = Passes(quick.forwards)
    return quick


def _find_effect(classifier: Classifier, case: Case, stages: Stages) -> Effect | None:
    if torch.equal(case.clean, case.adversarial):
        return None
    with stages.stage("regions"):
        pair = case.clean, case.adversarial, case.true, case.wrong
        return find_effect(classifier, *pair, progress=stages.progress)


def _find_unit_changes(
    classifier: Classifier, case: Case, dissection: Dissection, seed: int, stages: Stages
) -> UnitChanges | None:
    if torch.equal(case.clean, case.adversarial):
        return None
    with stages.stage("units"):
        return find_unit_changes(
            classifier,
            dissection,
            case.clean,
            case.adversarial,
            case.true,
            case.wrong,
            seed=seed,
            progress=stages.progress,
        )


def _find_forgery(
    classifier: Classifier, case: Case, attack: Any, method: Any, seed: int, stages: Stages
) -> Forgery | None:
    """Try to forge the first method's map, if the clean image is given its true class, and was changed."""
    hindrance = _find_hindrance(case)
    if hindrance:
        warn(f"The explanation was not tried to be forged: {hindrance}.")
        return None
    check_differentiable(method)
    size = find_size(_choose_sized(case, attack, seed), case.adversarial - case.clean)
    with stages.stage("forgery"):
        return find_forgery(
            classifier,
            case.clean,
            case.adversarial,
            case.true,
            case.wrong,
            method,
            size,
            seed=seed,
            progress=stages.progress_of("forgery"),
        )


def _find_detection(calibration: Calibration, case: Case, attack: Any, seed: int, stages: Stages) -> Detection | None:
    """Score what the attack made, and attack the detector too, if the attack fooled the classifier."""
    hindrance = _find_hindrance(case)
    if hindrance:
        warn(f"The detector was not asked: {hindrance}.")
        return None
    size = find_size(_choose_sized(case, attack, seed), case.adversarial - case.clean)
    with stages.stage("detector"):
        return find_detection(
            calibration, case.clean, case.adversarial, case.wrong, size, progress=stages.progress_of("detector")
        )


def _find_hindrance(case: Case) -> str:
    """Say why another attack would have nothing to reach, or no size to go by; "" if nothing speaks against it."""
    if torch.equal(case.clean, case.adversarial):
        return "the attack changed nothing"
    return "" if int(case.clean_logits.argmax()) == case.true else "the image is misclassified before any attack"


def _choose_sized(case: Case, attack: Any, seed: int) -> Any:
    """Return the attack that was run; None where the image was attacked elsewhere."""
    return None if "adversarial" in case.parameters else choose_attack(attack, seed)


def open_universal(
    classifier: Classifier, trust: UniversalPerturbation | str | Path | None
) -> UniversalPerturbation | None:
    """Read a universal perturbation, and check its size before any work is done."""
    perturbation = UniversalPerturbation.load(trust) if isinstance(trust, (str, Path)) else trust
    if perturbation is not None:
        perturbation.check_fits((classifier.channels, *classifier.size))
    return perturbation


def _find_trust(
    classifier: Classifier,
    case: Case,
    perturbation: UniversalPerturbation,
    methods: list[Any],
    image: Any,
    seed: int,
    stages: Stages,
) -> Trust:
    """Find how much the maps of what the classifier sees in the clean image change."""
    seen, contrast = case.clean_logits.topk(2).indices.tolist()
    if isinstance(image, (str, Path)) and not is_tensor_file(Path(image)):
        image = read_photograph(image)
    digests = [content_digest(image)] if isinstance(image, PILImage.Image) else []
    with stages.stage("trust"):
        return find_trust(
            classifier,
            case.clean,
            seen,
            contrast,
            perturbation,
            methods,
            seed=seed,
            digests=digests,
            progress=stages.progress,
        )


MOST_FOR_CHECKS = 0.2
"""Which share of the other passes checks of the maps may take where they were not asked for. [ours]"""


def _check_maps(
    classifier: Classifier,
    case: Case,
    methods: list[Any],
    trusted: Trust | None,
    checks: bool | None,
    seed: int,
    stages: Stages,
) -> tuple[MapChecks | None, list[str]]:
    """Check the maps, if that was asked for or takes little; the list says why not, where the model is no model for it.

    What the attack made of the image with another seed is compared too where checks were asked for.
    """
    if checks is False or (checks is None and not _take_little(stages)):
        return None, []
    with stages.stage("map checks"):
        again = case.rerun().attempted if checks and case.rerun is not None else None
        try:
            checked = check_maps(
                classifier,
                methods,
                case.clean,
                case.adversarial,
                case.true,
                case.wrong,
                again=again,
                universal=None if trusted is None else case.clean + trusted.delta.to(case.clean),
                seed=seed,
                progress=stages.progress,
            )
        except (MethodError, ModelError) as error:
            if checks:
                raise
            return None, [f"Whether the maps are stable, and depend on the model, is not shown. {error}"]
    stages.passes["map checks"].add(checked.passes)
    return checked, []


def _take_little(stages: Stages) -> bool:
    """Tell whether checks of the maps take few passes beside all others."""
    maps = stages.passes["saliency"]
    whole = sum(passes.forwards + passes.backwards for passes in stages.passes.values())
    # The maps were those of two images.
    return MAPS_CHECKED / 2 * (maps.forwards + maps.backwards) <= MOST_FOR_CHECKS * whole


def _measure_recovery(
    classifier: Classifier,
    quick: nn.Module | None,
    case: Case,
    evidence: list[Evidence],
    seed: int,
    stages: Stages,
) -> list[RecoveryCurves]:
    """Perturb the adversarial image in the order of every map, of the perturbation's size, and of what says nothing."""
    image = case.adversarial
    first = evidence[0].wrong.to(image)
    orders: list[tuple[str, bool, Sequence[Fill], list[Tensor]]] = [
        (one.title, False, FILLS, [one.wrong.to(image)]) for one in evidence
    ]
    size = (case.adversarial - case.clean).abs()
    if size.any():
        orders.append((SIZE, True, FILLS, [size]))
    orders.append((SHIFTED, True, [VERDICT_FILL], [shifted_maps(first, image, SHIFTS, seed)]))
    orders.append((RANDOM, True, FILLS, [random_maps(image, seed + number) for number in range(RANDOM_ORDERS)]))
    true = torch.tensor([case.true], device=image.device)
    stacked = {name: torch.cat(maps) for name, _, _, maps in orders}
    pieces = [
        (name, fill, number) for name, _, fills, _ in orders for fill in fills for number in range(len(stacked[name]))
    ]

    def measure_curve(piece: tuple[str, Fill, int]) -> RecoveryCurve:
        name, fill, number = piece
        order = stacked[name][number, None]
        return recovery_curve(classifier, image, true, order, fill=fill, seed=seed, through=quick)

    measured: dict[tuple[str, str], list[RecoveryCurve]] = {}
    with stages.stage("recovery"):
        curves = zip(pieces, share_out(classifier, measure_curve, pieces), strict=True)
        for done, ((name, fill, _), curve) in enumerate(curves):
            stages.progress(done, len(pieces), "recovery")
            measured.setdefault((name, fill), []).append(curve)
        stages.progress(len(pieces), len(pieces), "recovery")
    return [
        RecoveryCurves(name, {str(fill): RecoveryCurve.join(measured[name, fill]) for fill in fills}, control)
        for name, control, fills, _ in orders
    ]
