"""A universal perturbation as a thing: its size, its file, where it fits."""

import json
import math

import pytest
import torch
from safetensors.torch import save_file

from tests.helpers.models import small
from tests.helpers.planted_maps import noise
from whyfooled.errors import ImageError, ParameterError
from whyfooled.universal import Altered, UniversalPerturbation, UPIGrad


def some(shape=(3, 4, 6), **options):
    delta = 0.1 * torch.randn(shape, generator=torch.Generator().manual_seed(0))
    return UniversalPerturbation(delta, epsilon=1.0, **options)


@pytest.fixture(scope="module")
def fitted():
    classifier, images = small(side=8), noise(4)
    return UPIGrad(epsilon=0.5, passes=2).fit(classifier, (images, classifier.predict(images)))


def test_it_comes_back_from_its_file_exactly(fitted, tmp_path):
    fitted.save(tmp_path / "delta.safetensors")
    found = UniversalPerturbation.load(tmp_path / "delta.safetensors")
    assert torch.equal(found.delta, fitted.delta)
    for name in ("epsilon", "ball", "method", "saliency", "model", "model_digest", "fitted_to", "history", "passes"):
        assert getattr(found, name) == getattr(fitted, name), name
    assert dict(found.versions) == dict(fitted.versions)
    assert found.method == "grad(epsilon=0.5, passes=2)"
    assert found.saliency == "gradient"
    assert len(found.history) == 2


def test_equal_perturbations_have_equal_files(fitted, tmp_path):
    for name in ("one", "two"):
        fitted.save(tmp_path / name)
    assert (tmp_path / "one").read_bytes() == (tmp_path / "two").read_bytes()


def test_what_it_alters_is_kept_until_it_is_resized(tmp_path):
    altered = Altered(0.4, 0.3, 0.5, math.nan, 20, "gradient", "net", "1")
    some(altered=altered).save(tmp_path / "delta")
    found = UniversalPerturbation.load(tmp_path / "delta")
    assert repr(found.altered) == repr(altered)
    assert found.resized((8, 8)).altered is None


def test_one_made_elsewhere_has_a_file_too(tmp_path):
    made = some(ball="linf")
    made.save(tmp_path / "made")
    found = UniversalPerturbation.load(tmp_path / "made")
    assert torch.equal(found.delta, made.delta)
    assert (found.method, found.ball, found.fitted_to, found.model) == ("made elsewhere", "linf", None, "")


def test_half_precision_comes_back_in_single(tmp_path):
    made = UniversalPerturbation(some().delta.half(), epsilon=1.0)
    made.save(tmp_path / "half")
    found = UniversalPerturbation.load(tmp_path / "half")
    assert found.delta.dtype == torch.float32
    assert torch.equal(found.delta, made.delta.float())
    assert made.apply(noise(1)[:, :, :4, :6]).dtype == torch.float32


def about(**changes):
    made = {
        "format": 1,
        "epsilon": 1.0,
        "ball": "l2",
        "method": "m",
        "saliency": "",
        "model": "",
        "model_digest": "",
        "fitted_to": None,
        "history": [],
        "forwards": 0,
        "backwards": 0,
        "versions": {},
    }
    return {"whyfooled": json.dumps(made | changes)}


def test_the_file_that_damage_is_tried_on_is_sound(tmp_path):
    save_file({"delta": torch.ones(1, 2, 2)}, tmp_path / "sound", about())
    assert UniversalPerturbation.load(tmp_path / "sound").l2 == 2


@pytest.mark.parametrize(
    ("tensors", "metadata"),
    [
        ({"delta": torch.ones(1, 2, 2)}, None),
        ({"delta": torch.ones(1, 2, 2)}, {"format": "pt"}),
        ({"delta": torch.ones(1, 2, 2)}, {"whyfooled": "no json"}),
        ({"delta": torch.ones(1, 2, 2)}, {"whyfooled": "[]"}),
        ({"delta": torch.ones(1, 2, 2)}, about(epsilon="much")),
        ({"delta": torch.ones(1, 2, 2)}, about(epsilon=-1)),
        ({"delta": torch.ones(1, 2, 2)}, about(ball="round")),
        ({"delta": torch.ones(1, 2, 2)}, about(fitted_to=3)),
        ({"delta": torch.ones(1, 2, 2)}, about(history=[3])),
        ({"delta": torch.ones(1, 2, 2)}, about(forwards="many")),
        ({"delta": torch.ones(1, 2, 2)}, about(versions=[])),
        ({"delta": torch.ones(1, 2, 2)}, about(format=2)),
        ({"delta": torch.ones(1, 2, 2, dtype=torch.int64)}, about()),
        ({"delta": torch.ones(1, 1, 2, 2)}, about()),
        ({"delta": torch.ones(1, 2, 0)}, about()),
        ({"delta": torch.full((1, 2, 2), torch.nan)}, about()),
        ({"other": torch.ones(1, 2, 2)}, about()),
    ],
)
def test_a_file_that_is_none_is_refused(tensors, metadata, tmp_path):
    save_file(tensors, tmp_path / "file", metadata)
    with pytest.raises(ImageError, match="file is not a universal perturbation of `whyfooled universal fit`, or is"):
        UniversalPerturbation.load(tmp_path / "file")


def test_a_file_of_a_later_format_is_refused(tmp_path):
    save_file({"delta": torch.ones(1, 2, 2)}, tmp_path / "file", about(format=3))
    with pytest.raises(ImageError, match="was written by another version of whyfooled: its format is 3"):
        UniversalPerturbation.load(tmp_path / "file")


def test_a_file_cut_short_is_refused_and_so_is_none(fitted, tmp_path):
    fitted.save(tmp_path / "whole")
    whole = (tmp_path / "whole").read_bytes()
    for length in (0, 5, 100, len(whole) - 1):
        (tmp_path / "cut").write_bytes(whole[:length])
        with pytest.raises(ImageError, match="cut is not a universal perturbation"):
            UniversalPerturbation.load(tmp_path / "cut")
    with pytest.raises(ImageError, match="There is no file"):
        UniversalPerturbation.load(tmp_path / "nothing")


@pytest.mark.parametrize(
    ("delta", "options", "message"),
    [
        (torch.full((1, 2, 2), torch.inf), {}, "`delta` must have finite values"),
        (torch.ones(1, 0, 2), {}, r"`delta` must have the shape \(c, h, w\); got \(1, 0, 2\)"),
        (torch.ones(1, 2, 2), {"epsilon": 0}, "`epsilon` must be a finite number above 0"),
    ],
)
def test_what_cannot_be_is_refused(delta, options, message):
    with pytest.raises(ParameterError, match=message):
        UniversalPerturbation(delta, **{"epsilon": 1.0, **options})


def test_its_sizes_by_hand():
    made = UniversalPerturbation(torch.tensor([[[0.3, -0.4]]]), epsilon=0.5)
    assert made.l2 == pytest.approx(0.5)
    assert made.linf == pytest.approx(0.4)
    assert made.size_text() == "l2 0.5 (of values from 0 to 255: 127.5), l-infinity 0.4 (102/255)"
    assert repr(made) == f"UniversalPerturbation(made elsewhere, 1x1x2, {made.size_text()})"


def test_it_is_added_and_clipped():
    made = UniversalPerturbation(torch.tensor([[[0.3, -0.4]]]), epsilon=0.5)
    images = torch.tensor([[[[0.9, 0.9]]], [[[0.1, 0.1]]]])
    torch.testing.assert_close(made.apply(images), torch.tensor([[[[1.0, 0.5]]], [[[0.4, 0.0]]]]))
    torch.testing.assert_close(made.apply(images, clip=False), torch.tensor([[[[1.2, 0.5]]], [[[0.4, -0.3]]]]))


def test_another_size_is_refused_with_what_to_do():
    made = some()
    made.check_fits((3, 4, 6))
    with pytest.raises(ImageError, match=r"size of the images, \(3, 8, 8\); got \(3, 4, 6\).*resized\(\(8, 8\)\)"):
        made.apply(noise(1))
    with pytest.raises(ImageError, match=r"got \(3, 4, 6\)\.$"):
        made.check_fits((1, 4, 6))


@pytest.mark.parametrize("size", [(4, 6), (9, 5), (2, 2), (40, 60)])
def test_resized_it_has_the_norm_of_its_ball(size):
    l2, linf = some().resized(size), some(ball="linf").resized(size)
    assert tuple(l2.delta.shape) == tuple(linf.delta.shape) == (3, *size)
    assert l2.l2 == pytest.approx(some().l2, rel=1e-5)
    assert linf.linf == pytest.approx(some().linf, rel=1e-5)
    if size == (4, 6):
        torch.testing.assert_close(l2.delta, some().delta)


def test_resized_of_nothing_is_nothing_and_no_size_is_refused():
    assert not UniversalPerturbation(torch.zeros(3, 4, 4), epsilon=1.0).resized((2, 2)).delta.any()
    with pytest.raises(ParameterError, match="`size` must be a height and a width of at least 1"):
        some().resized((0, 4))
