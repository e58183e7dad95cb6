"""Square: a random search that needs no gradient."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar, final

import torch
from torch import Tensor

from whyfooled.attacks._attack import Attack, Attempt
from whyfooled.attacks._problem import Problem
from whyfooled.attacks._steps import project
from whyfooled.attacks._windows import Frames
from whyfooled.attacks._yardstick import find_safe_margin
from whyfooled.classifier.goals import Untargeted
from whyfooled.errors import at_least, bad_parameter
from whyfooled.registry import Card
from whyfooled.tensors.balls import Ball, check_epsilon, length
from whyfooled.tensors.randomness import image_generators, uniform
from whyfooled.types import Images, Progress, silent

_HALVED_AFTER = (10, 50, 200, 500, 1000, 2000, 4000, 6000, 8000)
"""Of 10000 queries: when the share of the pixels that a window covers is halved."""
_TILES = 5
_SMALLEST = 3
"""Side of a window in l2."""


@final
@dataclass(frozen=True)
class Square(Attack):
    """Random squares, kept where they help: a black-box attack in an ℓ∞ or ℓ2 ball (Andriushchenko et al. 2020).

    ℓ∞: the search begins with vertical stripes of ±ε; each query changes all pixels of a square to the one or the other
    face of the ball, each channel as a whole. ℓ2: it begins with a pattern of tiles; each query takes the perturbation
    away from one square and spends it, with what is left of ε, on a bump in another. Squares grow smaller.

    Only logits are used: the model need not have gradients.

    Differs from the paper: [ours] squares are placed in the smallest rectangle that holds all pixels which may change;
    the share is that of the authors' AutoAttack for both balls.

    Parameters
    ----------
    epsilon
        Radius of the ball, for values in [0, 1]: the largest change of a pixel (``"linf"``), or the Euclidean length
        of the change (``"l2"``).
    queries
        How many forward passes at most. An image is done when it reaches its goal.
    ball
        ``"linf"`` or ``"l2"``.
    share
        The share of the pixels that the first squares cover, p in the paper; above 0 and at most 1.
    seed
        Seed of the squares; each image has its own, made from this and its content.
    """

    epsilon: float = 4 / 255
    queries: int = 5000
    ball: Ball = "linf"
    share: float = 0.8
    seed: int = 0

    card: ClassVar[Card] = Card(
        name="square",
        title="Square",
        summary="Random squares inside an l-infinity or l2 ball, kept where they help; a black-box attack.",
        source="Andriushchenko, Croce, Flammarion, Hein 2020, arXiv 1912.00049, algorithms 1 to 3",
        cost="at most `queries` forwards, no backwards; less when fooled sooner",
    )

    def __post_init__(self) -> None:
        check_epsilon(self.epsilon, self.ball)
        at_least("queries", self.queries, 1)
        if not 0 < self.share <= 1:
            raise bad_parameter("share", "must be above 0 and at most 1", self.share)

    @torch.no_grad()
    def attempt(self, problem: Problem, progress: Progress = silent) -> Attempt:
        """Make adversarial images and count the passes spent on each."""
        generators = image_generators(problem.images, self.seed)
        frames = Frames.of(problem)
        best = self._begin(problem, frames, generators)
        channels = problem.images.shape[1]
        draws = [torch.rand(self.queries - 1, 5 + channels, generator=generator) for generator in generators]
        table = torch.stack(draws).to(best.device)
        ended = best.clone()
        forwards = torch.zeros(len(problem), dtype=torch.int64, device=best.device)
        least = torch.full_like(best[:, 0, 0, 0], float("inf"))
        safe = torch.zeros_like(least)
        crossed = torch.zeros_like(forwards, dtype=torch.bool)
        active = torch.arange(len(problem), device=best.device)
        for query in range(self.queries):
            here = problem.select(active)
            tried = best[active]
            if query:
                tried = self._propose(here, tried, frames.select(active), table[active, query - 1], query)
            logits = here.logits(tried)
            forwards[active] += 1
            margin = here.goal.margin(logits)
            if query == 0:
                safe = find_safe_margin(margin, logits)
            loss = margin if isinstance(here.goal, Untargeted) else here.goal.loss(logits)
            better = loss < least[active]
            best[active[better]], least[active[better]] = tried[better], loss[better]
            passed = margin < 0
            ended[active[passed]] = tried[passed]
            crossed[active[passed]] = True
            active = active[margin > -safe[active]]
            progress(query + 1, self.queries, "attack")
            if not len(active):
                break
        return Attempt(torch.where(crossed.view(-1, 1, 1, 1), ended, best), forwards, torch.zeros_like(forwards))

    def _begin(self, problem: Problem, frames: Frames, generators: list[torch.Generator]) -> Images:
        images = problem.images
        signs = _draw_signs(uniform(images, generators))
        if self.ball == "linf":
            return problem.clamp(images + self.epsilon * signs[:, :, :1])
        side = torch.minimum(frames.height, frames.width).div(_TILES, rounding_mode="floor").clamp_min(1)
        corner = frames.place(images.new_zeros(len(images), 2), side, images)
        tile_row, tile_column = (
            (offset.div(side, rounding_mode="floor") % signs.shape[axis]).expand(-1, *images.shape[1:])
            for offset, axis in ((corner.down, 2), (corner.right, 3))
        )
        hill = type(corner)(corner.down % side, corner.right % side, side).bump(signs[:, 0, 0, 0] > 0)
        delta = hill * signs.gather(2, tile_row).gather(3, tile_column) * (problem.high > problem.low)
        return project(images + self.epsilon * delta / length(delta), problem, self.epsilon, "l2")

    def _propose(self, problem: Problem, best: Images, frames: Frames, draws: Tensor, query: int) -> Images:
        side = frames.find_side(find_share(self.share, query, self.queries))
        signs = _draw_signs(draws[:, 5:].unsqueeze(2).unsqueeze(3))
        if self.ball == "linf":
            window = frames.place(draws[:, :2], side, best).inside
            return torch.where(window, problem.clamp(problem.images + self.epsilon * signs), best)
        # Odd, so that a hill has a middle.
        side = torch.minimum(side.clamp_min(_SMALLEST) // 2 * 2 + 1, torch.minimum(frames.height, frames.width))
        spent = frames.place(draws[:, :2], side, best)
        taken = frames.place(draws[:, 2:4], side, best).inside
        delta = best - problem.images
        bump = spent.bump(draws[:, 4] < 0.5) * signs + _normalise(delta * spent.inside)
        left = (self.epsilon**2 - length(delta).square()).clamp_min(0) / delta.shape[1]
        available = (_norm(delta * (spent.inside | taken)).square() + left).sqrt()
        moved = torch.where(taken, 0, delta)
        moved = torch.where(spent.inside, available * _normalise(bump), moved)
        return project(problem.images + moved, problem, self.epsilon, "l2")


def find_share(first: float, query: int, queries: int) -> float:
    """Return the share of the pixels that a window covers at a query; halved nine times on the way."""
    return first * 0.5 ** sum(query * 10_000 > after * queries for after in _HALVED_AFTER)


def _draw_signs(draws: Tensor) -> Tensor:
    return torch.where(draws < 0.5, -1.0, 1.0)


def _norm(values: Tensor) -> Tensor:
    """Return (n,c,1,1) the Euclidean length of each channel."""
    return values.square().sum((2, 3), keepdim=True).sqrt()


def _normalise(values: Tensor) -> Tensor:
    """Bring each channel to length 1; 0 stays 0."""
    return values / _norm(values).clamp_min(torch.finfo(values.dtype).tiny)
