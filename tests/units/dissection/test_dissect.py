"""Dissection, compared with ten lines of NumPy."""

from __future__ import annotations

import inspect
import operator
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn

from tests.helpers.planted_units import SIDE, concepts, placed, planted
from whyfooled import Classifier, Fit, count_passes
from whyfooled.errors import ImageError, ModelError, ParameterError
from whyfooled.types import silent
from whyfooled.units.concepts import NOTHING
from whyfooled.units.dissection import dissect, dissection_summary
from whyfooled.units.dissection import passes as _passes
from whyfooled.units.dissection import tally as _tally
from whyfooled.units.dissection import thresholds as _thresholds
from whyfooled.units.dissection import unfinished as _unfinished


def enlarge(map_, height, width):
    """Enlarge one map bilinearly, in double precision: pixel centres are matched, edges are repeated."""

    def weights(size, found):
        at = np.clip((np.arange(size) + 0.5) * found / size - 0.5, 0, found - 1)
        low = np.minimum(at.astype(int), found - 1)
        out = np.zeros((size, found))
        out[np.arange(size), low] += 1 - (at - low)
        out[np.arange(size), np.minimum(low + 1, found - 1)] += at - low
        return out

    return weights(height, map_.shape[0]) @ map_ @ weights(width, map_.shape[1]).T


def brute_force(activations, annotated, category_of, top, places=None):
    """Dissect by the definition: one unit, one image, one concept at a time; images at `places` are the annotated."""
    images, units = activations.shape[:2]
    both, union = np.zeros((2, units, len(category_of)), dtype=np.int64)
    thresholds = np.zeros(units)
    for unit in range(units):
        values = np.sort(activations[:, unit].ravel())
        allowed = [value for value in values if (values > value).sum() / len(values) <= top]
        thresholds[unit] = allowed[0]
        for image, one in zip(places or range(images), annotated, strict=True):
            height, width = one.maps.shape[1:]
            active = enlarge(activations[image, unit].astype(np.float64) - thresholds[unit], height, width) > 0
            for concept, category in enumerate(category_of):
                if category in one.categories:
                    shown = (one.maps.numpy() == concept).any(0) | (concept in one.whole)
                    both[unit, concept] += (active & shown).sum()
                    union[unit, concept] += (active | shown).sum()
    return thresholds, both, union


def active_images(activations, annotated, thresholds):
    """Count the images in which each unit is active in a pixel of the label maps."""
    return [
        sum(
            (enlarge(maps[unit].astype(np.float64) - threshold, *one.maps.shape[1:]) > 0).any()
            for maps, one in zip(activations, annotated, strict=True)
        )
        for unit, threshold in enumerate(thresholds)
    ]


def random_case(seed, images=7, units=5, whole_numbers=False):
    """Make activations (a dead unit, a saturated one, many ties) and annotations of all kinds."""
    rng = np.random.default_rng(seed)
    values = rng.normal(size=(images, units, 4, 4)).astype(np.float32)
    if whole_numbers:
        values = np.round(values * 2)
    values[:, 1] = 3
    values[:, 2] = np.minimum(values[:, 2], 0)
    values[:, 3] = np.maximum(values[:, 3], 0)
    category_of = (0, 0, 1, 1, 1, 2)
    maps, whole, kinds = [], [], []
    for _ in range(images):
        size = [(4, 4), (8, 16), (32, 8), (2, 2)][rng.integers(4)]
        there = tuple(kind for kind in range(3) if rng.random() < 0.7)
        own = []
        for kind in there:
            members = [index for index, one in enumerate(category_of) if one == kind]
            own += [rng.choice([NOTHING, *members], size=size) for _ in range(rng.integers(1, 3))]
        stacked = np.stack(own) if own else np.zeros((0, *size), dtype=np.int64)
        maps.append(torch.tensor(stacked, dtype=torch.int64))
        kinds.append(there)
        whole.append((5,) if 2 in there and rng.random() < 0.5 else ())
    return values, concepts(maps, category_of, whole, kinds), category_of


@pytest.mark.parametrize("whole_numbers", [False, True])
@pytest.mark.parametrize("seed", range(12))
def test_equal_to_brute_force_to_the_last_count(seed, whole_numbers):
    values, annotated, category_of = random_case(seed, whole_numbers=whole_numbers)
    found = dissect(planted(layer=torch.tensor(values)), "layer", annotated, top=0.05, permutations=3, seed=seed)
    thresholds, both, union = brute_force(values, list(annotated), category_of, 0.05)
    layer = found["layer"]
    np.testing.assert_array_equal(layer.threshold.numpy(), thresholds)
    np.testing.assert_array_equal(layer.both.numpy(), both)
    np.testing.assert_array_equal(layer.union.numpy(), union)
    assert layer.both.dtype == layer.union.dtype == torch.int64
    alone = [brute_force(values, [one], category_of, 0.05, [place])[1] for place, one in enumerate(annotated)]
    np.testing.assert_array_equal(layer.most.numpy(), np.max(alone, axis=0))
    np.testing.assert_array_equal(layer.active_images.numpy(), active_images(values, list(annotated), thresholds))
    assert layer.dead.tolist() == [False, True, False, False, False]
    assert layer.above[1] == 0
    assert (layer.iou[1] == 0).all()


@pytest.mark.parametrize("places", [(4, 4), (2, 9), (11, 3)])
@pytest.mark.parametrize("size", [(1, 1), (1, 29), (23, 1), (5, 7), (90, 31)])
def test_maps_of_any_size_are_enlarged_or_shrunk_exactly(places, size):
    rng = np.random.default_rng(0)
    values = rng.normal(size=(3, 4, *places)).astype(np.float32)
    maps = [torch.tensor(rng.integers(-1, 3, size=(2, *size))) for _ in range(3)]
    annotated = concepts(maps, (0, 0, 1))
    layer = dissect(planted(layer=torch.tensor(values)), "layer", annotated, top=0.2, permutations=0)["layer"]
    _, both, union = brute_force(values, list(annotated), (0, 0, 1), 0.2)
    np.testing.assert_array_equal(layer.both.numpy(), both)
    np.testing.assert_array_equal(layer.union.numpy(), union)


@pytest.mark.parametrize("few", [0, 10])
def test_combinations_of_labels_are_told_apart_in_either_way(few, monkeypatch):
    monkeypatch.setattr(_tally, "_FEW", few)
    values, annotated, category_of = random_case(3)
    layer = dissect(planted(layer=torch.tensor(values)), "layer", annotated, top=0.05, permutations=0)["layer"]
    _, both, union = brute_force(values, list(annotated), category_of, 0.05)
    np.testing.assert_array_equal(layer.both.numpy(), both)
    np.testing.assert_array_equal(layer.union.numpy(), union)


def test_counts_stay_exact_where_single_precision_is_not():
    tally = _tally.Tally.of_nothing(1, 1, 1)
    labels = _tally.encode_labels(torch.zeros(1, 1, 1, dtype=torch.int64), (), (0,))
    tally.both += 2**24
    tally.active += 2**25
    one = torch.zeros(1, dtype=torch.int32)
    counts = _tally.count_codes(one, one, labels, 1)
    tally.add(_tally.Overlap(labels.summed(counts), counts.sum(1)), labels)
    assert int(tally.both) == 2**24 + 1
    assert int(tally.union(torch.tensor([2**26 + 1]), (0,))) == 2**25 + 1 + 2**26 + 1 - (2**24 + 1)
    assert int(labels.summed(torch.tensor([[2**53 - 1]]))) == 2**53 - 1


@pytest.mark.parametrize("top", [0.005, 0.01, 0.2])
def test_thresholds_are_exact(top):
    values = torch.randn(9, 6, 12, 12, generator=torch.Generator().manual_seed(0))
    values[:, 1] = values[:, 1].mul(2).round()
    values[:, 2] = values[:, 2].clamp(max=1)
    values[:, 3] = values[:, 3].clamp(min=2.5)
    annotated = concepts([torch.zeros(1, 4, 4, dtype=torch.int64)] * 9, (0,))
    layer = dissect(planted(layer=values), "layer", annotated, top=top, permutations=0)["layer"]
    for unit in range(6):
        own = values[:, unit].flatten()
        threshold = layer.threshold[unit]
        assert int((own > threshold).sum()) == int(layer.above[unit]) <= top * len(own)
        smaller = own[own < threshold]
        if len(smaller):
            assert int((own > smaller.max()).sum()) > top * len(own)


def test_the_share_is_taken_as_it_is_written():
    # In binary 0.29 * 100 is 28.999999999999996.
    assert _thresholds.ranks(0.29, 100) == 29
    assert _thresholds.ranks(0.005, 200) == 1
    assert _thresholds.ranks(0.005, 399) == 1


def test_a_tie_at_the_threshold_stays_inactive_when_enlarged():
    # Seven is the threshold, on a plateau whose enlargement would round to more than seven.
    values = torch.full((1, 1, 3, 3), 7.1)
    values[0, 0, 0, 0] = 9
    values[0, 0, 2] = 1
    annotated = concepts([torch.zeros(1, 13, 11, dtype=torch.int64)], (0,))
    layer = dissect(planted(layer=values), "layer", annotated, top=0.2, permutations=0)["layer"]
    _, both, _ = brute_force(values.numpy(), list(annotated), (0,), 0.2)
    assert layer.threshold.item() == pytest.approx(7.1)
    assert layer.both.item() == both.item()


def test_a_planted_unit_is_found_with_its_concept():
    masks = (torch.rand(12, 8, 8, generator=torch.Generator().manual_seed(1)) < 0.05).long()
    noise = torch.rand(12, 1, 8, 8, generator=torch.Generator().manual_seed(2)) / 2
    maps = [torch.stack([torch.where(one == 1, 2, torch.tensor(NOTHING)), torch.zeros_like(one)]) for one in masks]
    values = torch.cat([noise, masks.unsqueeze(1) + noise / 100], 1)
    found = dissect(planted(layer=values), "layer", concepts(maps, (0, 0, 1)), top=float(masks.float().mean()))
    layer = found["layer"]
    assert int(layer.best[1]) == 2
    assert layer.best_iou[1] >= 0.95
    assert layer.null_iou[:, 1].max() < 0.2
    row = found.to_frame().query("unit == 1").iloc[0]
    assert (row["concept"], row["category"], bool(row["detector"])) == ("concept 2", "category 1", True)


def blobs(images, units, seed, side=8):
    """Make smooth random maps, each a patch that lies anywhere."""
    generator = torch.Generator().manual_seed(seed)
    coarse = torch.rand(images, units, 3, 3, generator=generator)
    return nn.functional.interpolate(coarse, size=(side, side), mode="bilinear")


def test_shuffled_masks_give_no_more_detectors_than_the_null_says():
    shape = blobs(60, 40, 0)
    own = [torch.where(one[:1] > 0.6, 0, NOTHING) for one in shape]
    real = dissect(planted(layer=shape), "layer", concepts(own, (0,)), top=0.05, cutoff=0.1)["layer"]
    order = torch.randperm(60, generator=torch.Generator().manual_seed(3)).tolist()
    shuffled = concepts([own[place] for place in order], (0,))
    chance = dissect(planted(layer=shape), "layer", shuffled, top=0.05, cutoff=0.1)["layer"]
    expected = (real.null_iou > 0.1).sum(1)
    assert real.best_iou[0] > 3 * real.null_iou[:, 0].mean()
    assert int(chance.detectors(0.1).sum()) <= int(expected.max())
    assert (chance.null_iou > 0.1).sum(1).double().mean() == pytest.approx(float(expected.double().mean()), abs=3)


def test_the_null_is_the_same_count_with_others_annotations():
    values, annotated, category_of = random_case(4, images=3)
    found = dissect(planted(layer=torch.tensor(values)), "layer", annotated, top=0.05, permutations=2)["layer"]
    dealt = []
    order = torch.randperm(3, generator=torch.Generator().manual_seed(0)).tolist()
    for shift in (1, 2):
        others = [annotated[order[(order.index(place) + shift) % 3]] for place in range(3)]
        _, both, union = brute_force(values, others, category_of, 0.05)
        dealt.append((both / np.maximum(union, 1)).max(1))
    # Areas are those of all images, whoever has them.
    np.testing.assert_allclose(found.null_iou.numpy(), np.stack(dealt))


@settings(max_examples=15, deadline=None)
@given(seed=st.integers(0, 10_000), batch_size=st.integers(1, 9))
def test_neither_batches_nor_layers_nor_order_change_a_count(seed, batch_size):
    values, annotated, category_of = random_case(seed)
    whole = dissect(planted(layer=torch.tensor(values)), "layer", annotated, top=0.05, batch_size=7)["layer"]
    both = dissect(
        planted(other=torch.tensor(values[:, :2]), layer=torch.tensor(values)),
        ["layer", "other"],
        annotated,
        top=0.05,
        batch_size=batch_size,
    )
    assert torch.equal(both["layer"].both, whole.both)
    assert torch.equal(both["layer"].null_iou, whole.null_iou)
    assert torch.equal(both["other"].union, whole.union[:2])
    turned = annotated.reader.annotated[::-1]
    back = concepts(
        [one.maps for one in turned], category_of, [o.whole for o in turned], [o.categories for o in turned]
    )
    reverse = dissect(planted(layer=torch.tensor(values[::-1].copy())), "layer", back, top=0.05, permutations=0)
    assert torch.equal(reverse["layer"].both, whole.both)
    assert torch.equal(reverse["layer"].union, whole.union)


def same(first, second):
    """Compare everything that two dissections found, to the bit."""
    for one, other in zip(first.layers, second.layers, strict=True):
        for name, value in vars(one).items():
            compare = torch.equal if isinstance(value, torch.Tensor) else operator.eq
            assert compare(value, vars(other)[name]), name
    assert torch.equal(first.area, second.area)
    assert (first.notes, first.parameters, first.images) == (second.notes, second.parameters, second.images)
    return True


def needed(values, *more):
    """Return how many GiB the activations take, of 4 bytes each."""
    return sum(one.size for one in (values, *more)) * 4 / 2**30


def test_one_pass_an_image_where_activations_fit_and_two_otherwise():
    values, annotated, _ = random_case(0)
    classifier = planted(first=torch.tensor(values), second=torch.tensor(values[:, :, :2]))
    fitting = needed(values, values[:, :, :2])
    with count_passes(classifier) as passes:
        once = dissect(classifier, ["first", "second"], annotated, top=0.05, batch_size=2, memory=fitting)
    # One pass more is a black image that tells the layers' sizes.
    assert passes.forwards == 7 + 1
    assert passes.backwards == 0
    assert once.passes.forwards == 7
    with count_passes(classifier) as passes:
        twice = dissect(classifier, ["first", "second"], annotated, top=0.05, batch_size=2, memory=fitting * 0.999)
    assert passes.forwards == 2 * 7 + 1
    assert twice.passes.forwards == 2 * 7
    assert same(once, twice)


def test_more_passes_only_where_memory_is_short(monkeypatch):
    values, annotated, _ = random_case(0)
    classifier = planted(first=torch.tensor(values), second=torch.tensor(values[:, :, :2]))
    found = dissect(classifier, ["first", "second"], annotated, top=0.05, memory=0)
    assert found.passes.forwards == 2 * 7
    monkeypatch.setattr(_thresholds, "BUDGET", 30)
    short = dissect(classifier, ["first", "second"], annotated, top=0.05)
    assert short.passes.forwards > 4 * 7
    assert same(found, short)
    # So short that a pass has room for no unit, and takes one all the same.
    monkeypatch.setattr(_thresholds, "BUDGET", 1)
    shortest = dissect(classifier, "first", annotated, top=0.05, permutations=0)
    assert shortest.passes.forwards == (5 + 1) * 7
    assert torch.equal(shortest["first"].threshold, found["first"].threshold)


@settings(max_examples=10, deadline=None)
@given(seed=st.integers(0, 10_000), most=st.integers(1, 5), batch_size=st.integers(1, 3))
def test_how_the_images_are_divided_into_shards_changes_nothing(seed, most, batch_size):
    # What a shard leaves out, because it can make no difference any more, does make none.
    values, annotated, _ = random_case(seed, images=14, whole_numbers=bool(seed % 2))
    classifier = planted(layer=torch.tensor(values))
    more = {"top": 0.05, "top_images": 3, "batch_size": batch_size, "permutations": 2, "seed": seed}
    whole = dissect(classifier, "layer", annotated, **more)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(_passes, "_MOST_IMAGES", most)
        assert same(dissect(classifier, "layer", annotated, **more), whole)


class _Stopped(Exception):
    """Stands for whatever ends a process."""


def filed_case(file):
    """Draw twelve annotated images that a file stands for, and the activations of units."""
    values, annotated, _ = random_case(3, images=12)
    file.touch()
    return values, replace(annotated, reader=_Files(annotated.reader.annotated, file))


@pytest.mark.parametrize("memory", [0, 1], ids=["two passes", "one pass"])
def test_an_interrupted_dissection_goes_on_from_its_finished_shards(memory, tmp_path, monkeypatch):
    values, annotated = filed_case(tmp_path / "list")
    classifier = planted(first=torch.tensor(values), second=torch.tensor(values[:, :, :2]))
    more = {"top": 0.05, "permutations": 2, "batch_size": 2, "memory": memory, "top_images": 2}
    for name, value in (("_passes._MOST_IMAGES", 2), ("_unfinished.SECONDS", 0), ("_unfinished._SHARE", 0)):
        module, _, attribute = name.partition(".")
        monkeypatch.setattr(globals()[module], attribute, value)
    whole = dissect(classifier, ["first", "second"], annotated, **more)
    work = _passes.Going._results
    spent = 0

    def stop_after(count):
        def results(self, *given):
            nonlocal spent
            for number, result in enumerate(work(self, *given)):
                if number == count:
                    raise _Stopped
                spent += 1
                yield result

        return results

    stops = 0
    while True:
        # Two shards further each time, then it is stopped before it has put together the third.
        monkeypatch.setattr(_passes.Going, "_results", stop_after(2))
        try:
            found = dissect(classifier, ["first", "second"], annotated, **more, unfinished=tmp_path / "out")
            break
        except _Stopped:
            stops += 1
    assert stops > 3
    assert same(found, whole)
    assert found.passes == whole.passes
    # Nothing that was kept was done twice: four groups of three images, in batches of two and one, and the groups.
    assert spent == 4 * 2 + 4
    assert list(found.seconds) == ["thresholds", "overlaps"]
    (place,) = (tmp_path / "out").iterdir()
    found.save(tmp_path / "out")
    assert not place.exists()


@pytest.mark.parametrize(("stage", "again"), [("thresholds", 12 - 3), ("overlaps", 0)])
def test_ctrl_c_keeps_what_is_finished_however_lately(stage, again, tmp_path, monkeypatch):
    values, annotated = filed_case(tmp_path / "list")
    classifier = planted(layer=torch.tensor(values))
    monkeypatch.setattr(_passes, "_MOST_IMAGES", 2)
    whole = dissect(classifier, "layer", annotated, top=0.05, batch_size=2, permutations=2)

    def run(progress=silent):
        return dissect(
            classifier,
            "layer",
            annotated,
            top=0.05,
            batch_size=2,
            permutations=2,
            unfinished=tmp_path / "out",
            progress=progress,
        )

    def stop(done, total, doing):
        # In the third shard, after those of two images and one; in the next stage, after all.
        if doing == stage and done > 4:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        run(stop)
    with count_passes(classifier) as passes:
        assert same(run(), whole)
    assert passes.forwards == again + 1


def test_ctrl_c_before_anything_is_finished_leaves_nothing(tmp_path):
    values, annotated = filed_case(tmp_path / "list")
    classifier = planted(layer=torch.tensor(values))

    def stop(done, total, doing):
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        dissect(classifier, "layer", annotated, top=0.05, unfinished=tmp_path / "out", progress=stop)
    assert not (tmp_path / "out").exists()


def test_what_is_unfinished_and_damaged_or_of_another_run_is_begun_anew(tmp_path, monkeypatch):
    values, annotated = filed_case(tmp_path / "list")
    classifier = planted(layer=torch.tensor(values))
    monkeypatch.setattr(_passes, "_MOST_IMAGES", 2)
    monkeypatch.setattr(_unfinished, "SECONDS", 0)
    monkeypatch.setattr(_unfinished, "_SHARE", 0)

    def run(**more):
        return dissect(
            classifier, "layer", annotated, **{"top": 0.05, "batch_size": 2, **more}, unfinished=tmp_path / "out"
        )

    whole = run()
    (place,) = (tmp_path / "out").iterdir()
    # The same again finds everything there; other batches have other digits.
    with count_passes(classifier) as passes:
        assert same(run(), whole)
    assert passes.forwards == 1
    # Where nobody says how large batches are, they are as they were.
    with count_passes(classifier) as passes:
        assert same(run(batch_size=None), whole)
    assert passes.forwards == 1
    with count_passes(classifier) as passes:
        run(batch_size=3)
    assert passes.forwards == 12 + 1
    run()
    assert run(top=0.1).parameters["top"] == 0.1
    assert len(list((tmp_path / "out").iterdir())) == 2
    for path in [path for path in place.rglob("*") if path.is_file()]:
        content = path.read_bytes()
        path.write_bytes(content[:-1] + bytes([content[-1] ^ 1]))
        with count_passes(classifier) as passes:
            assert same(run(), whole)
        assert passes.forwards == 12 + 1
        break
    (tmp_path / "list").write_text("changed")
    with count_passes(classifier) as passes:
        run()
    assert passes.forwards == 12 + 1


@dataclass(frozen=True)
class _Files:
    """Reads what is in a list, whose content stands for that of a file."""

    annotated: tuple[object, ...]
    file: Path

    def read(self, index):
        return self.annotated[index]

    def picture(self, index):
        return self.annotated[index].image

    def files(self):
        return (self.file,)


def test_a_unit_that_rests_on_one_image_is_told_from_one_that_does_not():
    # Both see their concept; the second in the first image alone.
    masks = (blobs(8, 1, 5)[:, 0] > 0.6).long()
    values = masks.unsqueeze(1).repeat(1, 2, 1, 1).float() + blobs(8, 2, 6) / 100
    values[1:, 1] = 0
    maps = [torch.where(one == 1, 0, NOTHING).unsqueeze(0) for one in masks]
    found = dissect(planted(layer=values), "layer", concepts(maps, (0,)), top=0.1, permutations=7)
    layer = found["layer"]
    assert layer.active_images[0] > 3
    assert layer.active_images[1] == 1
    assert layer.in_one_image[0] < 0.6
    assert layer.in_one_image[1] == 1
    above = (layer.null_iou >= layer.best_iou).sum(0)
    assert torch.equal(layer.p_value, (1 + above).double() / 8)
    frame = found.to_frame()
    assert frame["p"].tolist() == layer.p_value.tolist()
    assert frame["in_one_image"].tolist() == layer.in_one_image.tolist()
    none = dissect(planted(layer=values), "layer", concepts(maps, (0,)), top=0.1, permutations=0)
    assert none.to_frame()["p"].isna().all()


def test_top_images_and_moments():
    values = torch.randn(9, 4, 4, 4, generator=torch.Generator().manual_seed(0))
    values[3], values[:, 2] = values[5], 1
    # Nearly dead, and not dead.
    values[:, 3] = 2 + values[:, 3] * 1e-6
    annotated = concepts([torch.zeros(1, 4, 4, dtype=torch.int64)] * 9, (0,))
    layer = dissect(planted(layer=values), "layer", annotated, top=0.05, top_images=4, batch_size=2)["layer"]
    peaks = values.amax((2, 3))
    for unit in range(4):
        expected = sorted(range(9), key=lambda image: (-float(peaks[image, unit]), image))[:4]
        assert layer.top_images[unit].tolist() == expected
        assert torch.equal(layer.top_values[unit], peaks[expected, unit])
        assert torch.equal(layer.top_maps[unit], values[expected, unit])
    assert torch.allclose(layer.mean, values.double().mean((0, 2, 3)))
    assert torch.allclose(layer.std, values.double().std((0, 2, 3), correction=0))
    assert layer.std[2] == 0
    assert layer.dead.tolist() == [False, False, True, False]
    whole = dissect(planted(layer=values), "layer", annotated, top=0.05, top_images=20)["layer"]
    assert whole.top_images.sort(1).values.tolist() == [list(range(9))] * 4


def test_label_maps_are_cut_as_the_picture_is():
    # A picture twice as wide as the input is high: the classifier sees its middle half.
    maps = torch.arange(8).expand(4, 8).clone().unsqueeze(0)
    annotated = concepts([maps], (0,) * 8)
    one = annotated[0]
    wide = type(one)(one.name, one.image.resize((2 * SIDE, SIDE)), one.maps, (), (0,))
    picture, cut = wide.fitted(Fit((SIDE, SIDE)))
    assert picture.shape == (3, SIDE, SIDE)
    assert cut[0, 0].tolist() == [2, 3, 4, 5]
    assert wide.fitted(Fit((SIDE, SIDE), squash=True))[1].shape == (1, 4, 8)
    # A margin of a tenth on every side.
    square = type(one)(one.name, one.image, torch.arange(100).view(1, 10, 10), (), (0,))
    cut = square.fitted(Fit((SIDE, SIDE), shorter_side=SIDE * 5 // 4))[1]
    assert torch.equal(cut, square.maps[:, 1:9, 1:9])
    # One pixel at least is left.
    tiny = type(one)(one.name, one.image, torch.arange(4).view(1, 2, 2), (), (0,))
    assert tiny.fitted(Fit((SIDE, SIDE), shorter_side=SIDE * 8))[1].tolist() == [[[3]]]


def test_what_cannot_be_dissected_is_refused():
    values, annotated, _ = random_case(0)
    classifier = planted(layer=torch.tensor(values))
    for arguments, words in [
        ({"top": 0.001}, "`top` must leave at least one of a unit's 112 activations; got 0.001"),
        ({"top": 1}, "`top` must be between 0 and 1"),
        ({"cutoff": -1}, "`cutoff` must be at least 0"),
        ({"permutations": -1}, "`permutations` must be at least 0"),
        ({"top_images": 0}, "`top_images` must be at least 1"),
        ({"batch_size": 0}, "`batch_size` must be at least 1"),
    ]:
        with pytest.raises(ParameterError, match=words):
            dissect(classifier, "layer", annotated, **arguments)
    with pytest.raises(ParameterError, match=r"'layr'\. Did you mean layer\?"):
        dissect(classifier, "layr", annotated)
    nothing = concepts([torch.full((1, 4, 4), NOTHING)] * 7, (0,))
    with pytest.raises(ImageError, match="No pixel of the 7 images of made shows any of its 1 concepts"):
        dissect(classifier, "layer", nothing, top=0.05)
    values[2, 0, 1, 1] = np.nan
    broken = Classifier(_Hidden(torch.tensor(values)), size=(SIDE, SIDE))
    with pytest.raises(ModelError, match="The layer 'layer' must give finite activations"):
        dissect(broken, "layer", annotated, top=0.05)


class _Hidden(nn.Module):
    """Has activations that are not finite, and logits that are."""

    def __init__(self, maps):
        super().__init__()
        self.register_buffer("maps", maps)
        self.layer = nn.Identity()

    def forward(self, x):
        numbers = (x.mean((1, 2, 3)) * 255).round().long()
        return self.layer(placed(self.maps[numbers], x)).nan_to_num(0).mean((2, 3))


def test_a_seed_deals_the_annotations_in_its_own_way():
    values, annotated, _ = random_case(0)
    first, again, other = (
        dissect(planted(layer=torch.tensor(values)), "layer", annotated, top=0.05, permutations=2, seed=seed)["layer"]
        for seed in (0, 0, 1)
    )
    assert torch.equal(first.null_iou, again.null_iou)
    assert not torch.equal(first.null_iou, other.null_iou)
    assert torch.equal(first.both, other.both)


def test_a_unit_detects_what_is_above_the_cutoff_and_not_what_is_at_it():
    values, annotated, _ = random_case(0)
    layer = dissect(planted(layer=torch.tensor(values)), "layer", annotated, top=0.05, permutations=0)["layer"]
    best = float(layer.best_iou[0])
    assert not layer.detectors(best)[0]
    assert layer.detectors(best - 1e-9)[0]


def test_notes_say_what_limits_the_result():
    values, annotated, _ = random_case(0, images=3)
    for permutations in (2, 3):
        found = dissect(planted(layer=torch.tensor(values)), "layer", annotated, top=0.05, permutations=permutations)
        assert any("annotations can be permuted in" in note for note in found.notes) == (permutations == 3)


def test_of_one_image_nothing_is_said_about_chance():
    values, annotated, _ = random_case(1, images=1)
    for permutations, notes in [(20, 1), (0, 0)]:
        found = dissect(planted(layer=torch.tensor(values)), "layer", annotated, top=0.1, permutations=permutations)
        assert found["layer"].null_iou.shape == (0, 5)
        others = [note for note in found.notes if not note.startswith("Of the listed concepts, no image shows")]
        assert [note.startswith("There is one image, so annotations cannot be permuted") for note in others] == (
            [True] * notes
        )


def test_notes_say_what_is_cut_off():
    maps = [torch.zeros(1, 20, 20, dtype=torch.int64)] * 3
    module = planted(layer=torch.rand(3, 2, 4, 4)).module
    classifier = Classifier(module, size=(SIDE, SIDE), fit=Fit((SIDE, SIDE), shorter_side=SIDE * 5 // 4))
    found = dissect(classifier, "layer", concepts(maps, (0,)), top=0.05, permutations=0)
    assert len(found.notes) == 1
    assert found.notes[0].startswith("The classifier sees 64% of the annotated pixels; the rest is cut off.")


def test_few_images_are_said_to_be_few():
    values, annotated, _ = random_case(0, images=3)
    found = dissect(planted(layer=torch.tensor(values)), "layer", annotated, top=0.05)
    assert any("3 images annotations can be permuted in 2 ways only, not 20" in note for note in found.notes)
    assert found.parameters["permutations"] == 2
    one = dissect(planted(layer=torch.tensor(values)), "layer", annotated, top=0.05, permutations=0)
    assert one.to_frame()["chance_iou"].isna().all()


def test_units_that_are_seldom_on_are_told():
    values = torch.zeros(20, 2, 4, 4)
    values[0, 0, 0, 0] = values[1, 0, 2, 2] = 3
    values[:, 1] = blobs(20, 1, 7, side=4)[:, 0]
    annotated = concepts([torch.zeros(1, 8, 8, dtype=torch.int64)] * 20, (0,))
    found = dissect(planted(layer=values), "layer", annotated, top=0.05)
    told = [note for note in found.notes if "on at all" in note]
    assert len(told) == 1
    assert told[0].startswith("1 units of layer are on in less than the share asked for")
    assert found["layer"].threshold[0] == 0
    assert found["layer"].above[0] == 2


def test_anything_but_concepts_is_refused():
    with pytest.raises(ParameterError, match=r"`concepts` must be annotated images; got list\. Open them"):
        inspect.unwrap(dissect)(planted(layer=torch.zeros(1, 1, 4, 4)), "layer", ["a"])


@pytest.mark.parametrize(
    ("count", "said"),
    [
        (1, "concept 1"),
        (2, "concept 1 and concept 2"),
        (5, "concept 1, concept 2, concept 3, concept 4 and concept 5"),
        (7, "concept 1, concept 2, concept 3, concept 4, concept 5 and 2 more"),
    ],
)
def test_listed_concepts_that_no_image_shows_are_named(count, said):
    values = blobs(4, 1, 7, side=4)
    annotated = concepts([torch.zeros(1, 8, 8, dtype=torch.int64)] * 4, (0,) * (count + 1))
    found = dissect(planted(layer=values), "layer", annotated, top=0.05, permutations=0)
    assert f"Of the listed concepts, no image shows {said}." in found.notes
    assert f"Of the listed concepts, no image shows {said}." in dissection_summary(found).sentences


def test_concepts_that_are_cut_off_are_said_to_be():
    maps = torch.zeros(1, 20, 20, dtype=torch.int64)
    maps[0, 0] = 1
    module = planted(layer=torch.rand(3, 2, 4, 4)).module
    classifier = Classifier(module, size=(SIDE, SIDE), fit=Fit((SIDE, SIDE), shorter_side=SIDE * 5 // 4))
    found = dissect(classifier, "layer", concepts([maps] * 3, (0, 0)), top=0.05, permutations=0)
    assert found.notes[1] == ("Of the listed concepts, no image shows concept 1, in the part that the classifier sees.")
