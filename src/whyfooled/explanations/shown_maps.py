"""The maps that an explanation shows: of which methods, whether they work on the model, and what they give."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from typing import Any

import torch
from torch import Tensor

from whyfooled.classifier import Classifier
from whyfooled.classifier.borrowing import hooked_before
from whyfooled.classifier.dependence import check_recording
from whyfooled.classifier.passes import count_passes
from whyfooled.errors import MethodError
from whyfooled.explanations.case import Case
from whyfooled.registry import EVERY, describe, make_every, parse, title, with_seed
from whyfooled.running.provenance import Stages
from whyfooled.saliency import Enhanced, GradCAM, Gradient, GuidedBackprop, InputXGradient
from whyfooled.saliency.enhanced import find_base
from whyfooled.saliency.evidence import Evidence
from whyfooled.saliency.pairs import pair_maps
from whyfooled.types import Images

DEFAULT_METHODS = (GuidedBackprop(), Gradient(), InputXGradient(), GradCAM())
"""What is shown beside enhanced guided backpropagation unless told otherwise."""


def check_methods(classifier: Classifier, clean: Images, methods: Sequence[Any], seed: int, stages: Stages) -> None:
    """Raise the error of a method that was asked for and does not work on the model, before anything takes long.

    Each is tried on (1,c,h,w) the clean image until it asks for a second forward pass, by which time it has seen what
    the model is made of. If every method there is was asked for, those that do not work are left out later.
    """
    if EVERY in methods:
        return
    # That no gradient can be taken at all is no fault of a method.
    check_recording(classifier.module)
    with stages.stage("methods"):
        with count_passes(classifier) as passes:
            seen = classifier.predict(clean)
        for method in make_methods(methods, seed):
            base = find_base(method)
            with _stopping_after_one(classifier), count_passes(classifier) as spent:
                try:
                    base(classifier, clean, seen)
                except MethodError as error:
                    raise _refuse(method, error) from error
            passes.add(spent)
    # What was stopped before it ran is no pass.
    stages.passes["methods"] = passes


class _Enough(BaseException):
    """Ends what has run long enough; nothing that handles errors is to take it for one."""


@contextmanager
def _stopping_after_one(classifier: Classifier) -> Iterator[None]:
    """End the block where a second forward pass would begin."""
    begun = False

    def before(_: torch.nn.Module, inputs: tuple[Any, ...], named: dict[str, Any]) -> Any:
        nonlocal begun
        if begun:
            raise _Enough
        begun = True
        return inputs, named

    with suppress(_Enough), hooked_before(classifier, before):
        yield


def _refuse(method: Any, error: MethodError) -> MethodError:
    return MethodError(f"{title(method)} does not work on this model. {error}")


def compute_evidence(
    classifier: Classifier, case: Case, methods: Sequence[Any] | None, seed: int, stages: Stages
) -> tuple[list[tuple[Any, Evidence]], list[str]]:
    """Compute the maps of every method, the headline's first; methods with the same base share its passes."""
    chosen = make_methods(methods or DEFAULT_METHODS, seed)
    must_work = methods is not None and EVERY not in methods
    first = next((m for m in chosen if isinstance(m, Enhanced)), Enhanced())
    others = [m for m in chosen if m != first]
    images = torch.cat([case.clean, case.adversarial])
    wrong, true = (torch.tensor([index] * 2, device=images.device) for index in (case.wrong, case.true))
    evidence: list[tuple[Any, Evidence]] = []
    notes: list[str] = []

    def maps_of(chosen: Sequence[Any]) -> Iterator[tuple[Any, Tensor | MethodError]]:
        return pair_maps(chosen, classifier, images, wrong, true, both=True)

    with stages.stage("saliency"):
        for done, (method, maps) in enumerate(maps_of([first, *others])):
            stages.progress(done, len(others) + 1, "saliency maps")
            if isinstance(maps, MethodError):
                if must_work and method in chosen:
                    raise _refuse(method, maps) from maps
                notes.append(_say_why_skipped(method, maps, first))
                if method != first:
                    continue
                method, maps = next(maps_of([Enhanced(base=Gradient())]))
                if isinstance(maps, MethodError):
                    raise maps
            notes += _note_leak(classifier, case, method, maps)
            texts = (describe(method), title(method), method.card.summary)
            evidence.append((method, Evidence(*texts, isinstance(method, Enhanced), maps.cpu())))
        stages.progress(1, 1, "saliency maps")
    return evidence, notes


def make_methods(methods: Sequence[Any], seed: int) -> list[Any]:
    """Make the methods that are meant, each once, with the seed where their own was left at the default."""
    made = dict.fromkeys(made for method in methods for made in _make_named(method))
    return [with_seed(method, seed) for method in made]


def _make_named(method: Any) -> list[Any]:
    if method == EVERY:
        return make_every("saliency")
    return [parse("saliency", method) if isinstance(method, str) else method]


def _note_leak(classifier: Classifier, case: Case, method: Any, maps: Tensor) -> Iterator[str]:
    """Say how much of the wrong class's logit its map on the adversarial image has, if it is meant to have all."""
    share = float(maps[1, 0].double().sum() / case.logits[case.wrong])
    if method.card.conserves and abs(share - 1) > 0.01:
        yield (
            f"{title(method)}: the map of {classifier.class_name(case.wrong)} adds up to {share:.0%} of its logit. The "
            "rest went to parts that no pixel has, such as biases, so the map shows proportions, not amounts."
        )


def _say_why_skipped(method: Any, error: MethodError, first: Any) -> str:
    if method != first:
        return f"{title(method)} is not shown. {error}"
    return f"Enhanced guided backpropagation does not work on this model, so the gradient is enhanced instead. {error}"
