"""Randomness that belongs to an image, not to its place in a batch.

Every random choice about an image comes from a generator seeded by the user's seed and the image's own content, so that
the result for an image is the same in any batch, order, shard or process.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterator, Sequence

import torch
from torch import Tensor

from whyfooled.errors import at_least
from whyfooled.types import Images


def image_generators(images: Images, seed: int) -> list[torch.Generator]:
    """Make one generator (on the CPU) for each image, from the seed and the image's content."""
    generators = []
    for image in images.detach().to("cpu", torch.float32):
        content = image.contiguous().numpy().tobytes() + str(seed).encode()
        digest = hashlib.blake2b(content, digest_size=8).digest()
        generators.append(torch.Generator().manual_seed(int.from_bytes(digest, "little") >> 1))
    return generators


def random_directions(shape: Sequence[int], count: int, seed: int) -> Iterator[Tensor]:
    """Draw directions of a shape, of independent standard normal values, each from its own generator (on the CPU)."""
    for number in range(count):
        generator = torch.Generator().manual_seed(named_seed(f"direction {number}", seed))
        yield torch.randn(tuple(shape), generator=generator)


def named_seed(name: str, seed: int) -> int:
    """Derive the seed of something that has a name, so that what is drawn for it depends on nothing else."""
    digest = hashlib.blake2b(f"{name} of {seed}".encode(), digest_size=8).digest()
    return int.from_bytes(digest, "little") >> 1


def uniform(images: Images, generators: list[torch.Generator]) -> Tensor:
    """Draw values in [0, 1) of the images' shape, each image's from its own generator."""
    return _together([torch.rand(images.shape[1:], generator=generator) for generator in generators], images)


def normal(images: Images, generators: list[torch.Generator]) -> Tensor:
    """Draw standard normal values of the images' shape, each image's from its own generator."""
    return _together([torch.randn(images.shape[1:], generator=generator) for generator in generators], images)


def add_noise(image: Images, l2: float, seed: int) -> Images:
    """Add noise of a length to an image (1,c,h,w), its values kept in [0, 1]; as long as there can be, if that is less.

    Clipping shortens the noise, which is normally distributed before it, so more is added, until the length is right.
    """
    noise = normal(image, image_generators(image, seed)).double()
    clean = image.double()

    def noisy(size: float) -> Images:
        return (clean + size / float(noise.norm()) * noise).clamp(0, 1)

    low, high = 0.0, l2
    while high < _MOST * l2 and float((noisy(high) - clean).norm()) < l2:
        low, high = high, 2 * high
    for _ in range(_HALVINGS):
        middle = (low + high) / 2
        low, high = (middle, high) if float((noisy(middle) - clean).norm()) < l2 else (low, middle)
    return noisy(high).to(image)


_MOST = 1e6
"""How many times longer noise may be before it is clipped."""
_HALVINGS = 40


def _together(drawn: list[Tensor], images: Images) -> Tensor:
    return torch.stack(drawn).to(images) if drawn else torch.empty_like(images)


def choose(total: int, count: int | None, seed: int) -> Sequence[int]:
    """Draw `count` of so many places, or as many as there are, and return them in order; all if None."""
    if count is None:
        return range(total)
    at_least("count", count, 1)
    order = torch.randperm(total, generator=torch.Generator().manual_seed(seed))
    return sorted(order[:count].tolist())
