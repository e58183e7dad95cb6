"""What could stand in a window of an image, judging by its surroundings: samples of a conditional Gaussian.

The image is taken for a stationary Gaussian texture with its own mean and autocovariance. A window given the ring of
pixels around it then has a normal distribution, and a sample of it is the best linear prediction from the ring plus
what that prediction misses of an unconditional sample (conditional simulation by kriging; Galerne & Leclaire 2017).
"""

from __future__ import annotations

import torch
from torch import Tensor

from whyfooled.types import Image

_NUGGET = 1e-3
"""Share of the variance that is added to the ring's own: smooth images make its covariance nearly singular."""


class Texture:
    """An image as a Gaussian texture, each channel's prediction on its own, in double precision on the CPU."""

    def __init__(self, image: Image, ring: int) -> None:
        self._image = image.detach().to("cpu", torch.float64)
        self._ring = ring
        self._mean = self._image.mean((-2, -1), keepdim=True)
        _, h, w = self._image.shape
        # Twice the size, so that opposite borders do not meet.
        self._spectrum = torch.fft.rfft2((self._image - self._mean) / (h * w) ** 0.5, s=(2 * h, 2 * w))
        self._covariance = torch.fft.irfft2(self._spectrum.abs().square(), s=(2 * h, 2 * w))
        self._predictors: dict[tuple[int, ...], _Predictor] = {}

    def field(self, generator: torch.Generator) -> Tensor:
        """Draw an unconditional sample (c,2h,2w), less the mean: white noise, filtered by the image itself.

        The channels share the noise, so that colours go together as they do in the image.
        """
        size = self._covariance.shape[-2:]
        noise = torch.fft.rfft2(torch.randn(size, generator=generator, dtype=torch.float64))
        drawn: Tensor = torch.fft.irfft2(self._spectrum * noise, s=size)
        return drawn

    def sample(self, top: int, left: int, side: int, field: Tensor, generator: torch.Generator) -> Tensor:
        """Draw what could stand in a square window (c,side,side), given the ring around it, values in [0, 1]."""
        _, h, w = self._image.shape
        # How far the ring reaches up, left, down and right: less at the image's border.
        room = (top, left, h - side - top, w - side - left)
        up, before, down, after = (min(self._ring, distance) for distance in room)
        rows, columns = torch.arange(-up, side + down), torch.arange(-before, side + after)
        inside = ((rows >= 0) & (rows < side)).unsqueeze(1) & ((columns >= 0) & (columns < side))
        key = (side, up, before, down, after)
        if key not in self._predictors:
            self._predictors[key] = _Predictor(self._covariance, inside)
        seen = (self._image - self._mean)[:, (rows + top).unsqueeze(1), columns + left]
        # The field is the same everywhere, so any piece of it will do.
        height, width = field.shape[-2:]
        y, x = (int(torch.randint(length, (), generator=generator)) for length in (height, width))
        piece = field[:, ((rows + y) % height).unsqueeze(1), (columns + x) % width]
        missed = self._predictors[key](seen - piece)
        drawn: Tensor = (self._mean + piece + missed)[:, inside].view(-1, side, side)
        return drawn.clamp(0, 1)


class _Predictor:
    """The best linear prediction of a window from the ring around it."""

    def __init__(self, covariance: Tensor, inside: Tensor) -> None:
        self._inside = inside
        ring = (~inside).nonzero()
        shift = ring.unsqueeze(1) - ring
        ring_covariance = covariance[:, shift[..., 0], shift[..., 1]]
        nugget = _NUGGET * covariance[:, 0, 0].view(-1, 1, 1) + 1e-12
        self._factor = torch.linalg.cholesky(
            ring_covariance + nugget * torch.eye(len(ring), dtype=ring_covariance.dtype)
        )
        # The covariances between all pixels at hand, as a convolution: their matrix would be large.
        rows, columns = (torch.arange(2 * size) for size in inside.shape)
        rows[inside.shape[0] :] -= 2 * inside.shape[0]
        columns[inside.shape[1] :] -= 2 * inside.shape[1]
        self._spectrum = torch.fft.rfft2(covariance[:, rows.unsqueeze(1), columns])

    def __call__(self, seen: Tensor) -> Tensor:
        """Predict all pixels (c,·,·), those of the window among them, from those of the ring among what is seen."""
        weights = torch.zeros_like(seen)
        weights[:, ~self._inside] = torch.cholesky_solve(seen[:, ~self._inside].unsqueeze(-1), self._factor).squeeze(-1)
        h, w = self._inside.shape
        size = (2 * h, 2 * w)
        predicted: Tensor = torch.fft.irfft2(torch.fft.rfft2(weights, s=size) * self._spectrum, s=size)
        return predicted[:, :h, :w]
