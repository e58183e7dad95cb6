import dataclasses
import json
import re

import pytest
import torch

from tests.units.made import CONCEPTS, made_concepts, made_dissection
from whyfooled.units.concepts import Concepts
from whyfooled.units.dissection.figure import MOST_CONCEPTS, MOST_LAYERS, draw_dissection


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


def test_the_figure_counts_units_by_concept_beside_chance():
    dissection = made_dissection({"one": 12})
    left, right = draw_dissection(dissection).axes
    one = dissection.layers[0]
    detectors = one.detectors(dissection.cutoff)
    chance = (one.null_iou > dissection.cutoff).sum(1).double()
    assert [bar.get_height() for bar in left.patches] == [int(detectors.sum()), float(chance.mean())]
    assert left.lines[0].get_ydata().tolist() == [int(chance.min()), int(chance.max())]
    counts = torch.bincount(one.best[detectors], minlength=4)
    heights = {
        label.get_text(): bar.get_height() for label, bar in zip(right.get_xticklabels(), right.patches, strict=True)
    }
    assert heights == {name: int(count) for name, count in zip(CONCEPTS, counts, strict=True) if count}


def test_the_figure_has_room_for_many_layers_and_concepts_and_for_none():
    many = made_dissection({f"layer{number}": 2 for number in range(MOST_LAYERS + 3)})
    panels = draw_dissection(many).axes
    assert len(panels) == 2 * MOST_LAYERS
    assert panels[-1].get_title("left").startswith(f"layer{MOST_LAYERS + 2}: ")
    wide = made_dissection({"one": 300}, {f"concept {number}": "object" for number in range(90)})
    assert len(draw_dissection(wide).axes[1].patches) == MOST_CONCEPTS
    nothing = dataclasses.replace(made_dissection({"one": 3}, permutations=0), cutoff=0.9)
    left, right = draw_dissection(nothing).axes
    assert [bar.get_height() for bar in left.patches] == [0]
    assert not right.patches
