"""What the page of a dissection knows: units, pictures, outlines."""

import dataclasses
import json
import re

import pytest
import torch

from tests.helpers.made_dissections import CONCEPTS, made_concepts, made_dissection
from whyfooled.units.concepts import Concepts


def data_of(folder):
    page = (folder / "index.html").read_text()
    return json.loads(re.findall(r'<script type="application/json" id="data">(.*?)</script>', page, re.S)[0])


def test_the_page_knows_what_the_dissection_found(tmp_path):
    dissection = made_dissection({"one": 4, "two": 3})
    found = data_of(dissection.save(tmp_path / "out"))
    assert found["layers"] == ["one", "two"]
    assert [name for name, _ in found["concepts"]] == list(CONCEPTS)
    assert [(unit["l"], unit["u"]) for unit in found["units"]] == [
        (0, 0),
        (0, 1),
        (0, 2),
        (0, 3),
        (1, 0),
        (1, 1),
        (1, 2),
    ]
    for unit in found["units"]:
        one = dissection.layers[unit["l"]]
        iou = one.iou[unit["u"]]
        best = [index for index in iou.argsort(descending=True, stable=True).tolist() if iou[index] > 0][:3]
        assert [concept for concept, _ in unit["c"]] == best
        assert [value for _, value in unit["c"]] == pytest.approx(iou[best].tolist(), rel=1e-3)
        assert unit["d"] == int(one.best_iou[unit["u"]] > dissection.cutoff)
        assert unit["n"] == pytest.approx(float(one.null_iou[:, unit["u"]].mean()), rel=1e-3)
        assert unit["x"] == int(one.dead[unit["u"]])
        # What a dead unit is most active in means nothing.
        top = [] if unit["x"] else one.top_images[unit["u"]].tolist()
        assert [image for image, *_ in unit["p"]] == top
        above = (one.top_maps[unit["u"]] > one.threshold[unit["u"]]).flatten(1).any(1).tolist()
        assert [bool(path) for _, _, path, _ in unit["p"]] == (above if top else [])
    assert set(found["files"]) == {str(image) for unit in found["units"] for image, *_ in unit["p"]}


def test_each_top_image_is_read_once_and_no_other(tmp_path):
    dissection = made_dissection({"one": 8, "two": 8})
    for one in dissection.layers:
        one.top_images[:] = torch.tensor([4, 1])
        one.top_images[2] = torch.tensor([1, -1])
    # A dead unit's are not shown.
    dissection.layers[0].top_images[0] = torch.tensor([3, 0])
    folder = dissection.save(tmp_path / "out")
    assert dissection.source.reader.asked == [1, 4]
    assert sorted(path.name for path in (folder / "pictures").iterdir()) == ["1.webp", "4.webp"]
    found = data_of(folder)
    assert found["images"] == {"1": "1.png", "4": "4.png"}
    assert len(found["units"][2]["p"]) == 1


def test_what_shows_the_best_concept_is_outlined(tmp_path):
    dissection = made_dissection({"one": 2})
    # Unit 1 detects the road, which image 0 shows on its right half, image 1 on its left one.
    dissection.layers[0].both[1] = torch.tensor([0, 100, 0, 0])
    dissection.layers[0].top_images[1] = torch.tensor([0, 1])
    found = data_of(dissection.save(tmp_path / "out"))
    assert set(found["masks"]) == {"0:1", "1:1"}
    for key, right in (("0:1", True), ("1:1", False)):
        start, *steps = [
            list(map(int, re.findall(r"-?\d+", part))) for part in re.split("l", found["masks"][key][1:-1])
        ]
        places = torch.tensor(start + steps[0]).view(-1, 2).cumsum(0)[:, 0]
        assert (int(places.min()), int(places.max())) == ((200, 400) if right else (0, 200))


def test_a_concept_of_the_whole_image_has_no_outline(tmp_path):
    dissection = made_dissection({"one": 3})
    source = made_concepts()
    whole = [dataclasses.replace(one, maps=one.maps[:0], whole=(0, 1, 2, 3)) for one in source.reader.held]
    reader = dataclasses.replace(source.reader, held=tuple(whole))
    found = data_of(
        dataclasses.replace(dissection, source=dataclasses.replace(source, reader=reader)).save(tmp_path / "o")
    )
    assert isinstance(dissection.source, Concepts)
    assert found["masks"] == {}
    assert found["files"]
