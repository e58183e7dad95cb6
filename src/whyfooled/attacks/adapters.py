"""Attacks of other libraries, taken as they are: found by their type, none of the libraries is needed to be there."""

from __future__ import annotations

import inspect
from collections.abc import Callable
from dataclasses import dataclass
from importlib import import_module
from typing import Any, final

import numpy as np
import torch
from torch import Tensor, nn

from whyfooled.attacks._attack import Attack, Attempt
from whyfooled.attacks._problem import Problem
from whyfooled.errors import ModelError, ParameterError, bad_parameter
from whyfooled.goals import Targeted
from whyfooled.passes import count_passes
from whyfooled.types import Progress, silent

DEFAULT_EPSILON = 4 / 255

_LIBRARIES = ("foolbox", "torchattacks", "art")


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
    """

    attack: Any
    make: Callable[[Problem], Any]
    model: nn.Module | None = None

    def attempt(self, problem: Problem, progress: Progress = silent) -> Attempt:
        """Run it; the passes counted are means over the batch, rounded up."""
        if problem.restricted:
            raise ParameterError(
                "`mask` and `box` are kept by attacks of whyfooled alone; "
                f"got an attack of another kind, {self.attack!r}."
            )
        with count_passes(self.model or problem.classifier) as passes:
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
    library = next((name for name in _LIBRARIES if _comes_from(attack, name)), None)
    if library == "foolbox":
        return _foolbox(attack, epsilon)
    if epsilon is not None:
        raise bad_parameter(
            "epsilon", "is for attacks of Foolbox; any other attack has its radius among its own parameters", epsilon
        )
    if isinstance(attack, Attack):
        return attack
    if isinstance(attack, type) or (not callable(attack) and library is None):
        fix = f"Make one: {attack.__name__}(...)." if isinstance(attack, type) else ""
        raise bad_parameter("attack", "must be an attack, or a callable (model, x, y) -> x_adv", repr(attack), fix)
    if library == "torchattacks":
        return _torchattacks(attack)
    return _art(attack) if library == "art" else _function(attack)


def _comes_from(attack: object, library: str) -> bool:
    return any(cls.__module__.partition(".")[0] == library for cls in type(attack).__mro__)


def _foolbox(attack: Any, epsilon: float | None) -> Adapted:
    foolbox = import_module("foolbox")
    for_a_radius = not isinstance(attack, foolbox.attacks.base.MinimizationAttack)
    if epsilon is None and for_a_radius:
        if getattr(attack.distance, "p", None) != float("inf"):
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


def _torchattacks(attack: Any) -> Adapted:
    def make(problem: Problem) -> Any:
        device = problem.images.device if attack.device is None else attack.device
        mode = {name: getattr(attack, name) for name in ("attack_mode", "targeted", "_target_map_function")}
        try:
            if isinstance(problem.goal, Targeted):
                attack.set_mode_targeted_by_label(quiet=True)
            else:
                attack.set_mode_default()
            return attack(problem.images.to(device), problem.goal.classes.to(device))
        except ValueError as error:
            raise bad_parameter("goal", "must be one that the torchattacks attack supports", repr(attack)) from error
        finally:
            for name, value in mode.items():
                setattr(attack, name, value)

    return Adapted(attack, make, attack.model)


def _art(attack: Any) -> Adapted:
    def make(problem: Problem) -> Any:
        aimed = isinstance(problem.goal, Targeted)
        if aimed and not hasattr(attack, "targeted"):
            raise bad_parameter("goal", f"must be untargeted for {type(attack).__name__}", "a targeted one")
        before = getattr(attack, "targeted", None)
        try:
            if before is not None:
                attack.set_params(targeted=aimed)
            made = attack.generate(x=problem.images.cpu().numpy(), y=problem.goal.classes.cpu().numpy())
            return torch.from_numpy(np.asarray(made))
        finally:
            if before is not None:
                attack.set_params(targeted=before)

    return Adapted(attack, make, attack.estimator.model)


def _function(attack: Callable[..., Any]) -> Adapted:
    names = list(inspect.signature(attack).parameters)
    takes_goal = names[2:3] == ["goal"]

    def make(problem: Problem) -> Any:
        classifier, images, goal = problem.classifier, problem.images, problem.goal
        if takes_goal:
            return attack(classifier, images, goal)
        if not isinstance(goal, Targeted):
            return attack(classifier, images, goal.classes)
        if "targeted" not in names:
            fix = "Give it a parameter `targeted`, or take the goal itself as its third parameter, named `goal`."
            raise bad_parameter("goal", "must be untargeted for a callable (model, x, y)", "a targeted one", fix)
        return attack(classifier, images, goal.classes, targeted=True)

    return Adapted(attack, make)
