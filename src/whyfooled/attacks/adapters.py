"""Attacks of other libraries, taken as they are: found by their type, none of the libraries is needed to be there."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from importlib import import_module
from typing import Any, final

import numpy as np
import torch
from torch import Tensor, nn

from whyfooled.attacks._attack import Attack, Attempt
from whyfooled.attacks._problem import Problem
from whyfooled.classifier.borrowing import preserving
from whyfooled.classifier.goals import Targeted
from whyfooled.classifier.passes import count_passes
from whyfooled.errors import ModelError, ParameterError, bad_parameter
from whyfooled.tensors.balls import check_epsilon
from whyfooled.types import Progress, silent

DEFAULT_EPSILON = 4 / 255

_BASES = {
    "foolbox": "foolbox.attacks.base.Attack",
    "torchattacks": "torchattacks.attack.Attack",
    "art": "art.attacks.attack.EvasionAttack",
}
"""The class that every attack of a library derives from."""


@final
@dataclass(frozen=True, eq=False)
class Adapted(Attack):
    """An attack of another kind, as one of this package's.

    Parameters
    ----------
    attack
        The attack as it was given.
    make
        Makes its images (n,c,h,w) for a problem.
    model
        The model that it calls, where that is not the problem's classifier.
    switches_labels
        Whether it is given the goal, and so can know of several labels.
    """

    takes_images_apart = False

    attack: Any
    make: Callable[[Problem], Any]
    model: nn.Module | None = None
    switches_labels: bool = False

    def attempt(self, problem: Problem, progress: Progress = silent) -> Attempt:
        """Run it; the passes counted are means over the batch, rounded up."""
        if problem.restricted:
            raise ParameterError(
                "`mask` and `box` are kept by attacks of whyfooled alone; "
                f"got an attack of another kind, {self.attack!r}."
            )
        model = self.model or problem.classifier
        with preserving(model), count_passes(model) as passes:
            made = self.make(problem)
        if not isinstance(made, Tensor):
            raise ModelError(f"The attack must return a tensor of images; got {type(made).__name__}.")
        n = len(problem)
        forwards, backwards = (
            torch.full((n,), -(-count // n), device=problem.images.device)
            for count in (passes.forwards, passes.backwards)
        )
        return Attempt(made.detach().to(problem.images), forwards, backwards)


def adapt(attack: Any, *, epsilon: float | None = None) -> Attack:
    """Make an attack of this package's kind from anyone's.

    Parameters
    ----------
    attack
        - an attack of this package, returned as it is;
        - a Foolbox attack; one for a fixed radius runs with `epsilon`;
        - a torchattacks attack; it runs on the model that it was made with, in the mode that the goal asks for;
        - an ART evasion attack; it runs on the estimator that it was made with;
        - a function of adv-lib, or any callable ``(model, x, y) -> x_adv``: `y` (n,) are the true classes. With a
          parameter `targeted`, it can have targets too: it is called with ``targeted=True`` and the targets as `y`;
        - a callable ``(classifier, images, goal) -> images``: told by the name of its third parameter, `goal`.
    epsilon
        Radius for a Foolbox attack that needs one, for values in [0, 1]; 4/255 if None and the ball is ℓ∞.

    Returns
    -------
    Attack
        To be run by `run_attack`, which verifies what it returns; passes are counted on the model that it calls.

    Raises
    ------
    ParameterError
        If it is no attack, or `epsilon` is missing or of no use.
    """
    kind = _tell_kind(attack)
    if kind is None:
        fix = f"Make one: {attack.__name__}(...)." if isinstance(attack, type) else ""
        raise bad_parameter("attack", "must be an attack, or a callable (model, x, y) -> x_adv", repr(attack), fix)
    if kind == "foolbox":
        return _adapt_foolbox(attack, epsilon)
    if epsilon is not None:
        raise bad_parameter(
            "epsilon", "is for attacks of Foolbox; any other attack has its radius among its own parameters", epsilon
        )
    if isinstance(attack, Attack):
        return attack
    return {"torchattacks": _adapt_torchattacks, "art": _adapt_art, "function": _adapt_function}[kind](attack)


def _tell_kind(attack: object) -> str | None:
    """Tell whose attack it is by its base class, so that no library need be imported; None if it is no attack."""
    if isinstance(attack, type):
        return None
    if isinstance(attack, Attack):
        return "whyfooled"
    bases = {f"{cls.__module__}.{cls.__qualname__}" for cls in type(attack).__mro__}
    for kind, base in _BASES.items():
        if base in bases:
            return kind
    # A model or an estimator of these libraries is callable too, but no attack.
    libraries = {base.partition(".")[0] for base in bases}
    return "function" if callable(attack) and not libraries & set(_BASES) else None


def _adapt_foolbox(attack: Any, epsilon: float | None) -> Adapted:
    foolbox = import_module("foolbox")
    largest = getattr(attack.distance, "p", None) == float("inf")
    if epsilon is not None:
        check_epsilon(epsilon, "linf" if largest else "l2")
    for_a_radius = not isinstance(attack, foolbox.attacks.base.MinimizationAttack)
    if epsilon is None and for_a_radius:
        if not largest:
            fix = "Give it: run_attack(adapt(attack, epsilon=0.5), ...)."
            raise bad_parameter("epsilon", "must be given for a Foolbox attack with a radius", "none", fix)
        epsilon = DEFAULT_EPSILON

    def make(problem: Problem) -> Any:
        model = foolbox.PyTorchModel(problem.classifier, bounds=(0, 1), device=problem.images.device)
        classes = problem.goal.classes
        aimed = isinstance(problem.goal, Targeted)
        criterion = foolbox.criteria.TargetedMisclassification if aimed else foolbox.criteria.Misclassification
        return attack(model, problem.images, criterion(classes), epsilons=epsilon)[1]

    return Adapted(attack, make)


def _adapt_torchattacks(attack: Any) -> Adapted:
    def make(problem: Problem) -> Any:
        device = problem.images.device if attack.device is None else attack.device
        with _preserve_modes(attack):
            if isinstance(problem.goal, Targeted):
                try:
                    attack.set_mode_targeted_by_label(quiet=True)
                except ValueError:
                    raise bad_parameter("goal", "must be untargeted for this attack", repr(attack)) from None
            elif attack.attack_mode != "default":  # it says aloud what it is told, so it is told only what is new
                attack.set_mode_default()
            return attack(problem.images.to(device), problem.goal.classes.to(device))

    return Adapted(attack, make, attack.model)


@contextmanager
def _preserve_modes(attack: Any) -> Iterator[None]:
    """Give a torchattacks attack, and those inside it, their modes back."""
    names = ("attack_mode", "targeted", "_target_map_function")
    every = (attack, *attack._attacks.values())
    modes = [{name: getattr(one, name) for name in names} for one in every]
    try:
        yield
    finally:
        for member, mode in zip(every, modes, strict=True):
            for name, value in mode.items():
                setattr(member, name, value)


def _adapt_art(attack: Any) -> Adapted:
    can_aim = "targeted" in attack.attack_params

    def make(problem: Problem) -> Any:
        aimed = isinstance(problem.goal, Targeted)
        if aimed and not can_aim:
            raise bad_parameter("goal", "must be untargeted for this attack", type(attack).__name__)
        before = attack.targeted if can_aim else None
        try:
            if can_aim:
                attack.set_params(targeted=aimed)
            made = attack.generate(x=problem.images.cpu().numpy(), y=problem.goal.classes.cpu().numpy())
            return torch.from_numpy(np.asarray(made))
        finally:
            if can_aim:
                attack.set_params(targeted=before)

    # ART calls the parts of a Sequential one by one: its own wrapper around the model sees every pass.
    wrapper = getattr(attack.estimator, "_model", None)
    return Adapted(attack, make, wrapper if isinstance(wrapper, nn.Module) else None)


def _adapt_function(attack: Callable[..., Any]) -> Adapted:
    try:
        names = list(inspect.signature(attack).parameters)
    except ValueError:  # built-in callables have none
        names = []
    takes_goal = names[2:3] == ["goal"]

    def make(problem: Problem) -> Any:
        classifier, images, goal = problem.classifier, problem.images, problem.goal
        if takes_goal:
            return attack(classifier, images, problem.asked)
        aimed = isinstance(goal, Targeted)
        if "targeted" in names:
            return attack(classifier, images, goal.classes, targeted=aimed)
        if aimed:
            fix = "Give it a parameter `targeted`, or take the goal itself as its third parameter, named `goal`."
            raise bad_parameter("goal", "must be untargeted for a callable (model, x, y)", "a targeted one", fix)
        return attack(classifier, images, goal.classes)

    return Adapted(attack, make, switches_labels=takes_goal)
