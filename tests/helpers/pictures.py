"""Small pictures and files, and what a source lists of them."""

from __future__ import annotations

from pathlib import Path

import numpy as np
from PIL import Image


def pixels(seed: int, height: int = 10, width: int = 12) -> np.ndarray:
    return np.random.default_rng(seed).integers(0, 256, (height, width, 3), dtype=np.uint8)


def photograph(path: Path, seed: int = 0) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    # As PNG whatever the suffix, so that pixels can be compared.
    Image.fromarray(pixels(seed)).save(path, format="PNG")
    return path


def write(path: Path, text: str) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text)
    return path


def listed(source) -> dict[str, tuple[int, ...]]:
    return {source.name(index): source.labels(index) for index in range(len(source))}


def assert_shows(sample, seed: int) -> None:
    assert np.array_equal(np.asarray(sample.image), pixels(seed))
