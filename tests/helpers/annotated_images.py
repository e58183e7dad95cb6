"""Small annotated data sets in the layouts that the concept readers know, and what their pixels show."""

from __future__ import annotations

import csv
from pathlib import Path

import numpy as np
from PIL import Image

from tests.helpers.pictures import photograph, write

SIZE = (10, 12)
"""Height and width of every photograph that `tests.helpers.pictures.photograph` writes."""


def numbers(seed: int, values, size: tuple[int, int] = SIZE) -> np.ndarray:
    """Draw a label map with each of the values in it."""
    drawn = np.random.default_rng(seed).choice(values, size)
    drawn.flat[: len(values)] = values
    return drawn


def save_grey(path: Path, values: np.ndarray) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(values.astype(np.uint8)).save(path)
    return path


def save_palette(path: Path, values: np.ndarray) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    picture = Image.frombytes("P", values.shape[::-1], values.astype(np.uint8).tobytes())
    picture.putpalette([(7 * index) % 256 for index in range(768)])
    picture.save(path)
    return path


def save_red_green(path: Path, labels: np.ndarray) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    pixels = np.stack([labels % 256, labels // 256, 0 * labels], -1)
    Image.fromarray(pixels.astype(np.uint8)).save(path)
    return path


def write_csv(path: Path, header: list[str], rows: list[list[object]]) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    with path.open("w", newline="") as file:
        csv.writer(file).writerows([header, *rows])
    return path


def write_masks(root: Path) -> str:
    """Write three images with label maps of several formats and sizes, and eleven names, of which two are none."""
    names = "sky\nbuilding\nvoid\ntree\n-\n"
    for seed, name in enumerate(["b/one", "a/one", "a/two"]):
        photograph(root / "images" / f"{name}.jpg", seed)
    save_grey(root / "labels" / "b" / "one.png", numbers(0, [0, 1, 2, 3, 255]))
    save_palette(root / "labels" / "a" / "one.png", numbers(1, [0, 1, 2, 3, 4], (20, 24)))
    np.save(root / "labels" / "a" / "two.npy", numbers(2, [1, 3], (5, 6)).astype(np.int32))
    write(root / "names.txt", names)
    return f"masks:{root / 'images'},{root / 'labels'},{root / 'names.txt'}"


BRODEN_LABELS = {1: "red-c", 2: "sky", 3: "glass", 300: "wheel", 700: "street-s"}
BRODEN_MEMBERS = {"color": [1], "object": [300, 2, 3], "material": [3], "scene": [700]}
BRODEN_MAPS = {
    "d/one_color.png": numbers(0, [0, 1], (9, 8)),
    "d/one_object_1.png": numbers(1, [0, 2, 300], (9, 8)),
    "d/one_object_2.png": numbers(2, [0, 3], (9, 8)),
    "e/two_color.png": numbers(3, [0, 1], (10, 12)),
}
BRODEN_INDEX = [
    ["d/one.jpg", "train", 10, 12, 9, 8, "d/one_color.png", "d/one_object_1.png;d/one_object_2.png", "3;3", "700"],
    ["e/two.jpg", "val", 10, 12, 10, 12, "e/two_color.png", "", "", "0"],
    ["e/three.jpg", "train", 10, 12, 1, 1, "", "2;3", "", ""],
]
BRODEN_HEADER = ["image", "split", "ih", "iw", "sh", "sw", *BRODEN_MEMBERS]


def write_broden(root: Path, index: list[list[object]] = BRODEN_INDEX) -> str:
    """Write three images with several label maps for a category, labels of whole images and labels over 255."""
    for seed, name in enumerate(["d/one", "e/two", "e/three"]):
        photograph(root / "images" / f"{name}.jpg", seed)
    for name, labels in BRODEN_MAPS.items():
        save_red_green(root / "images" / name, labels)
    write_csv(root / "index.csv", BRODEN_HEADER, index)
    write_csv(
        root / "label.csv",
        ["number", "name", "category", "frequency", "coverage", "syns"],
        [[number, name, "object(1)", 1, 0.5, ""] for number, name in BRODEN_LABELS.items()],
    )
    write_csv(
        root / "category.csv",
        ["name", "first", "last", "count", "frequency"],
        [[name, min(members), max(members), len(members), 1] for name, members in BRODEN_MEMBERS.items()],
    )
    for name, members in BRODEN_MEMBERS.items():
        rows = [[code, number, BRODEN_LABELS[number], 1, 0.5] for code, number in enumerate(members, 1)]
        write_csv(root / f"c_{name}.csv", ["code", "number", "name", "frequency", "coverage"], rows)
    return f"broden:{root}"


def write_voc(root: Path, part: str = "val") -> str:
    """Write two images of PASCAL VOC 2012 with label maps, in the layout of torchvision."""
    folder = root / "VOCdevkit" / "VOC2012"
    write(folder / "ImageSets" / "Segmentation" / f"{part}.txt", "2007_000033\n2007_000042\n")
    for seed, number in enumerate(["2007_000033", "2007_000042"]):
        photograph(folder / "JPEGImages" / f"{number}.jpg", seed)
        labels = numbers(seed, [0, 1, 19 + seed, 255])
        save_palette(folder / "SegmentationClass" / f"{number}.png", labels)
    return f"voc2012-segmentation{'' if part == 'val' else '-train'}:{root}"


def write_coco_stuff(root: Path, part: str = "val2017", images: str = "images", maps: str = "annotations") -> str:
    """Write two images of COCO-Stuff with label maps, and labels on both sides of the last thing."""
    write(root / "labels.txt", "0: unlabeled\n1: person\n91: hair brush\n92: banner\n182: wood\n")
    for seed, number in enumerate(["000000000139", "000000000285"]):
        photograph(root / images / part / f"{number}.jpg", seed)
        save_grey(root / maps / part / f"{number}.png", numbers(seed, [0, 90, 91, 181, 255]))
    return f"coco-stuff{'' if part == 'val2017' else '-train'}:{root}"


def write_photographs(root: Path) -> str:
    """Write three photographs."""
    for seed in range(3):
        photograph(root / f"{seed}.png", seed)
    return f"colours:{root}"


WRITERS = {
    "masks": write_masks,
    "broden": write_broden,
    "voc2012-segmentation": write_voc,
    "voc2012-segmentation-train": lambda root: write_voc(root, "train"),
    "coco-stuff": write_coco_stuff,
    "coco-stuff-train": lambda root: write_coco_stuff(root, "train2017"),
    "colours": write_photographs,
}
"""For each kind of annotated images, what writes a small one and returns the place."""
