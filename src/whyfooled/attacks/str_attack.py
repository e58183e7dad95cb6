"""StrAttack: the structured attack."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import ClassVar, final

import torch
import torch.nn.functional as F
from torch import Tensor

from whyfooled.attacks._attack import Attack, Attempt
from whyfooled.attacks._problem import Problem
from whyfooled.attacks._search import Rounds, Start, minimise
from whyfooled.attacks.fmn import FMN
from whyfooled.errors import at_least, positive
from whyfooled.registry import Card
from whyfooled.tensors.balls import squared_length
from whyfooled.types import PerImage, Progress, silent

_REFINING_STEPS = 50


@final
@dataclass(frozen=True)
class StrAttack(Attack):
    """Structured attack: a perturbation confined to few groups of pixels (Xu et al. 2019, sec. 4).

    Minimises ``τ Σ ‖δ_g‖₂ + γ ‖δ‖₂² + c · max(margin + confidence, 0)`` over the cells g of a grid, all channels
    together, by ADMM with the goal's term linearised, for a constant `c` of each image's own. Every
    variable starts anew at each constant. Then the groups found are kept, and the ℓ2 norm on them alone is made as
    small as it gets (the paper's refinement, sec. 4.3).

    Differs from the paper: [ours] ℓ2 norm and box are solved with the linearised term in one closed form, so that
    ADMM has two blocks in place of four; every group has its own copy of the pixels that it shares with others, so
    overlapping grids are exact; the goal's term is linearised at the group-sparse iterate, which is also the one
    judged, at one forward pass a step; the refinement is `FMN` within the groups. The last row and
    column of the grid are smaller where the image does not divide evenly.

    Parameters
    ----------
    group_size
        Side of a cell of the grid, in pixels.
    stride
        Pixels from one cell to the next; `group_size` if None, so that no two overlap. Pixels in no cell stay as they
        are.
    tau
        Weight τ of the group norms: larger values leave fewer groups.
    gamma
        Weight γ of the squared ℓ2 norm.
    rho
        ADMM's penalty ρ.
    eta
        ADMM's first proximity weight, α in the paper's η = α√k: larger values make smaller steps.
    steps
        Steps in a round, that is, for one value of the constant.
    rounds
        How many values of the constant are tried for each image.
    confidence
        By how many logits the goal must be passed; at least a thousandth of the clean image's margin, so that rounding
        cannot undo it.
    confidence_share
        The same as a share of the clean image's margin; the larger of both counts.
    refine
        Whether to refine the perturbation on the groups found; costs 100 forwards and 94 backwards.
    """

    group_size: int = 13
    stride: int | None = None
    tau: float = 0.5
    gamma: float = 1.0
    rho: float = 1.0
    eta: float = 5.0
    steps: int = 80
    rounds: int = 2
    confidence: float = 0.0
    confidence_share: float = 0.0
    refine: bool = True

    card: ClassVar[Card] = Card(
        name="strattack",
        title="StrAttack",
        summary="A perturbation confined to few cells of a grid that reaches the goal.",
        source="Xu, Liu, Zhao, Chen, Zhang, Fan, Erdogmus, Wang, Lin 2019, arXiv 1808.01664, sec. 4",
        cost="`steps` x `rounds` + 1 forwards and backwards, 6 forwards, and 100 to refine",
    )

    def __post_init__(self) -> None:
        at_least("group_size", self.group_size, 1)
        if self.stride is not None:
            at_least("stride", self.stride, 1)
        for name in ("tau", "gamma", "rho", "eta"):
            positive(name, getattr(self, name))
        _ = self._settings  # made once here, so that it checks its values

    @property
    def _settings(self) -> Rounds:
        return Rounds(self.rounds, self.steps, self.confidence, self.confidence_share)

    def attempt(self, problem: Problem, progress: Progress = silent) -> Attempt:
        """Make adversarial images and count the passes spent on each."""
        grid = _Grid(self.group_size, self.stride or self.group_size)
        ones = torch.ones_like(problem.images[:1])
        cover = grid.sum(grid.cut(ones), ones)

        def begin(start: Start) -> _Descent:
            images = start.problem.images
            nothing = torch.zeros_like(images)
            copies = grid.cut(nothing)
            return _Descent(self, grid, cover, start.problem, images, nothing, copies, copies)

        def penalty(delta: Tensor) -> PerImage:
            return self.tau * grid.norms(delta).sum(1) + self.gamma * squared_length(delta)

        def growth(delta: Tensor) -> PerImage:
            return self.tau * grid.norms(delta).sum(1) + 2 * self.gamma * squared_length(delta)

        attempt = minimise(problem, self._settings, begin=begin, growth=growth, size=penalty, progress=progress)
        return self._refine(problem, attempt) if self.refine else attempt

    def _refine(self, problem: Problem, attempt: Attempt) -> Attempt:
        delta = attempt.images - problem.images
        done = (delta != 0).flatten(1).any(1).nonzero()[:, 0]
        if not len(done):
            return attempt
        support = (delta[done] != 0).any(1, keepdim=True)
        within = problem.select(done).within(support)
        refined = FMN(
            steps=_REFINING_STEPS, confidence=self.confidence, confidence_share=self.confidence_share
        ).attempt(within)
        images, forwards, backwards = attempt.images.clone(), attempt.forwards.clone(), attempt.backwards.clone()
        shorter = _is_closer(refined.images - within.images, delta[done])
        images[done] = torch.where(shorter, refined.images, images[done])
        forwards[done] += refined.forwards
        backwards[done] += refined.backwards
        return Attempt(images, forwards, backwards)


def _is_closer(refined: Tensor, before: Tensor) -> Tensor:
    """Tell (n,1,1,1) where a refined perturbation is an example and shorter than it was before."""
    size = refined.flatten(1).norm(dim=1)
    shorter: Tensor = (size > 0) & (size < before.flatten(1).norm(dim=1))
    return shorter.view(-1, 1, 1, 1)


@dataclass(frozen=True)
class _Grid:
    """Square cells of `size` pixels, `stride` apart."""

    size: int
    stride: int

    def cut(self, images: Tensor) -> Tensor:
        """Cut images (n,c,h,w) into cells (n, c·size², cells); cells that reach over the edge are filled with 0."""
        height, width = self._padded(images)
        padded = F.pad(images, (0, width - images.shape[3], 0, height - images.shape[2]))
        cells: Tensor = F.unfold(padded, self.size, stride=self.stride)
        return cells

    def sum(self, cells: Tensor, like: Tensor) -> Tensor:
        """Put cells back, adding up where they overlap: the adjoint of `cut`."""
        whole: Tensor = F.fold(cells, self._padded(like), self.size, stride=self.stride)
        return whole[..., : like.shape[2], : like.shape[3]]

    def norms(self, delta: Tensor) -> Tensor:
        """Return (n,cells) the ℓ2 norm of each cell, all channels together."""
        norms: Tensor = self.cut(delta).norm(dim=1)
        return norms

    def _padded(self, images: Tensor) -> tuple[int, int]:
        def up(side: int) -> int:
            return self.size + max(0, -(-(side - self.size) // self.stride)) * self.stride

        return up(images.shape[2]), up(images.shape[3])


@dataclass(frozen=True)
class _Descent:
    """ADMM's variables: the perturbation `delta`, a copy of each cell of it, and the scaled multipliers.

    `cover` (1,c,h,w) says how many cells each pixel is in.
    """

    attack: StrAttack
    grid: _Grid
    cover: Tensor
    problem: Problem
    point: Tensor
    delta: Tensor
    copies: Tensor
    multipliers: Tensor

    def advance(self, slope: Tensor, number: int) -> _Descent:
        a, grid, images = self.attack, self.grid, self.problem.images
        eta = a.eta * number**0.5
        pulled = eta * self.delta + a.rho * grid.sum(self.copies + self.multipliers, images) - slope
        delta = self.problem.clamp(images + pulled / (eta + 2 * a.gamma + a.rho * self.cover)) - images
        cells = grid.cut(delta)
        loose = cells - self.multipliers
        shrink = 1 - a.tau / (a.rho * loose.norm(dim=1, keepdim=True).clamp_min(1e-12))
        copies = loose * shrink.clamp_min(0)
        # Where groups overlap, a pixel is what its groups agree on in the mean.
        point = self.problem.clamp(images + grid.sum(copies, images) / self.cover.clamp_min(1))
        return replace(self, point=point, delta=delta, copies=copies, multipliers=self.multipliers + copies - cells)
