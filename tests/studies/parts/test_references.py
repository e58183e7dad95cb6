"""Which images the others are compared with."""

from pathlib import Path

import torch

from tests.helpers.models import small
from whyfooled.errors import ImageError
from whyfooled.sources import Source
from whyfooled.studies.parts.references import read_references
from whyfooled.studies.prepare import Setting

LABELS = ((1,), (0,), (1,), (), (1,), (0,))
BROKEN = 2


class Reader:
    """Gives each image its place as its brightness, and counts what is read."""

    def __init__(self):
        self.read_places = []

    def read(self, index):
        self.read_places.append(index)
        if index == BROKEN:
            raise ImageError("broken")
        return torch.full((3, 16, 16), index / 10)

    def files(self):
        return []


def setting(reader):
    source = Source("made", tuple(map(str, range(6))), LABELS, reader)
    return Setting(small(), source, range(6), None, Path(), 0, 1, "local", None, None, lambda *_: None)


def names(references):
    return {
        group: [(name, round(10 * float(image.mean()))) for name, image in each] for group, each in references.items()
    }


def test_each_group_has_its_first_images_that_can_be_read():
    reader = Reader()
    found = names(read_references(setting(reader), 2, lambda labels: labels or None))
    assert found == {(1,): [("0", 0), ("4", 4)], (0,): [("1", 1), ("5", 5)]}
    assert reader.read_places == [0, 1, 2, 4, 5]


def test_no_more_are_read_than_are_wanted():
    reader = Reader()
    assert names(read_references(setting(reader), 3)) == {(): [("0", 0), ("1", 1), ("3", 3)]}
    assert reader.read_places == [0, 1, 2, 3]
