"""Prediction difference analysis: its samples, its windows and its sums, each against the definition."""

import itertools

import pytest
import torch
from torch import nn

from tests.helpers.models import SmallNet, linear, small
from whyfooled import Classifier, PredictionDifference, count_passes
from whyfooled.errors import ParameterError
from whyfooled.saliency._texture import _NUGGET, Texture
from whyfooled.saliency.prediction_difference import list_windows


def smooth(side=12, seed=0):
    noise = torch.rand(1, 2, side + 4, side + 4, generator=torch.Generator().manual_seed(seed))
    return 0.35 + 0.3 * nn.functional.avg_pool2d(noise, 5, stride=1)[0]


def conditional_by_definition(image, top, left, side, ring):
    """Condition the joint normal distribution of a window and its ring, all covariances summed up pixel by pixel."""
    h, w = image.shape
    centred = image.double() - image.double().mean()

    def covariance(dy, dx):
        pairs = (centred[y, x] * centred[y + dy, x + dx] for y in range(h) for x in range(w)
                 if 0 <= y + dy < h and 0 <= x + dx < w)  # fmt: skip
        return float(sum(pairs)) / (h * w)

    known = {(dy, dx): covariance(dy, dx) for dy in range(-h + 1, h) for dx in range(-w + 1, w)}
    inside = [(y, x) for y in range(top, top + side) for x in range(left, left + side)]
    around = [
        (y, x)
        for y in range(max(0, top - ring), min(h, top + side + ring))
        for x in range(max(0, left - ring), min(w, left + side + ring))
        if (y, x) not in inside
    ]

    def between(first, second):
        rows = [[known[a[0] - b[0], a[1] - b[1]] for b in second] for a in first]
        return torch.tensor(rows, dtype=torch.float64)

    own = between(around, around) + _NUGGET * known[0, 0] * torch.eye(len(around), dtype=torch.float64)
    weights = between(inside, around) @ own.inverse()
    seen = torch.stack([centred[place] for place in around])
    mean = image.double().mean() + weights @ seen
    spread = between(inside, inside) - weights @ between(around, inside)
    return mean, spread


@pytest.mark.parametrize(("top", "left"), [(4, 5), (0, 0), (1, 9)])
def test_samples_have_the_conditional_mean_and_covariance(top, left):
    image, generator = smooth(), torch.Generator().manual_seed(1)
    texture = Texture(image, ring=2)
    draws = []
    for _ in range(60):
        field = texture.field(generator)
        draws += [texture.sample(top, left, 3, field, generator) for _ in range(40)]
    found = torch.stack(draws).flatten(2)
    for channel in range(2):
        mean, spread = conditional_by_definition(image[channel], top, left, 3, 2)
        unconditional = float(image[channel].var())
        error = (found[:, channel].mean(0) - mean).abs().max()
        assert error < 0.15 * unconditional**0.5
        covariance = torch.cov(found[:, channel].T)
        assert (covariance - spread).norm() < 0.2 * spread.norm()
        assert (mean - image[channel].mean()).abs().max() > 0.3 * unconditional**0.5


def test_a_constant_image_continues_itself():
    x = torch.full((1, 3, 16, 16), 0.3)
    assert PredictionDifference()(small(), x, torch.tensor([0])).abs().max() < 1e-4


def test_a_window_may_cover_the_image():
    x, y = torch.rand(2, 3, 16, 16, generator=torch.Generator().manual_seed(0)), torch.tensor([0, 1])
    found = PredictionDifference(window=1.0)(small(), x, y)
    assert torch.isfinite(found).all()
    assert all(len(one.unique()) == 1 for one in found)


def test_windows_reach_from_border_to_border():
    assert list_windows(8, 8, 0.5, 0.5) == (4, list(itertools.product([0, 2, 4], [0, 2, 4])))
    side, windows = list_windows(11, 17, 0.3, 1.0)
    assert side == 3
    assert windows == list(itertools.product([0, 3, 5, 8], [0, 3, 6, 8, 11, 14]))
    assert list_windows(9, 9, 1.0, 0.5) == (9, [(0, 0)])
    assert len(list_windows(224, 224, PredictionDifference.window, PredictionDifference.stride)[1]) == 169
    assert len(list_windows(32, 32, PredictionDifference.window, PredictionDifference.stride)[1]) == 100


class Spy(nn.Module):
    """SmallNet that keeps what it saw."""

    def __init__(self):
        super().__init__()
        self.net = SmallNet().eval()
        self.seen = []

    def forward(self, x):
        self.seen.append(x.clone())
        return self.net(x)


@pytest.mark.parametrize("fill", ["conditional", "marginal"])
@pytest.mark.parametrize("evidence", ["logit", "odds"])
def test_a_pixel_has_the_mean_over_its_windows_and_samples(fill, evidence):
    spy = Spy()
    image = torch.rand(1, 3, 12, 16, generator=torch.Generator().manual_seed(0))
    classes = torch.tensor([[1, 4]])
    method = PredictionDifference(window=0.4, samples=3, fill=fill, evidence=evidence)
    found = method(Classifier(spy, size=(12, 16)), image, classes)
    assert found.shape == (1, 2, 1, 12, 16)
    whole, *changed = torch.cat(spy.seen)
    side, windows = list_windows(12, 16, 0.4, 0.5)
    assert torch.equal(whole, image[0])
    assert len(changed) == 3 * len(windows)
    with torch.no_grad():
        logits = spy.net(torch.stack(changed)).view(3, len(windows), 5).double()
        before = spy.net(image)[0].double()
    total, count = torch.zeros(2, 12, 16, dtype=torch.float64), torch.zeros(12, 16)
    for number, (top, left) in enumerate(windows):
        window = (slice(None), slice(top, top + side), slice(left, left + side))
        for sample in range(3):
            other = changed[sample * len(windows) + number].clone()
            assert not torch.equal(other[window], image[0][window])
            other[window] = image[0][window]
            assert torch.equal(other, image[0])
        for k, cls in enumerate([1, 4]):
            if evidence == "logit":
                value = before[cls] - logits[:, number, cls].mean()
            else:
                p, expected = before.softmax(0)[cls], logits[:, number].softmax(1)[:, cls].mean()
                value = torch.log2(p / (1 - p)) - torch.log2(expected / (1 - expected))
            total[(k, *window[1:])] += value
        count[window[1:]] += 1
    torch.testing.assert_close(found[0, :, 0], (total / count).float(), rtol=1e-4, atol=1e-5)


def test_odds_stay_finite_where_probabilities_do_not():
    weight = torch.zeros(3, 192)
    weight[0] = 10
    method = PredictionDifference(evidence="odds")
    found = method(linear(weight), torch.rand(1, 3, 8, 8), torch.tensor([[0, 1]]))
    assert torch.isfinite(found).all()


def test_only_windows_on_what_the_logit_sees_have_a_value():
    weight = torch.zeros(2, 3, 28, 28)
    weight[0, :, 8:12, 8:12] = 1
    x = torch.rand(1, 3, 28, 28, generator=torch.Generator().manual_seed(0)) / 4
    x[:, :, 8:12, 8:12] += 0.75
    found = PredictionDifference()(linear(weight.flatten(1), side=28), x, torch.tensor([0]))[0, 0]
    assert found[8:12, 8:12].min() > 0
    assert found[8:12, 8:12].mean() > 3 * found.mean()
    outside = found.clone()
    outside[4:16, 4:16] = 0
    assert outside.abs().max() < 1e-5


def test_all_classes_share_the_passes():
    classifier = small()
    with count_passes(classifier) as passes:
        method = PredictionDifference(window=0.5, samples=3)
        method(classifier, torch.rand(2, 3, 16, 16), torch.tensor([[0, 1], [2, 3]]))
    assert (passes.forwards, passes.backwards) == (2 * (1 + 3 * 9), 0)


@pytest.mark.parametrize(
    ("text", "make"),
    [
        ("`window` must be a share, above 0 and at most 1; got 0", lambda: PredictionDifference(window=0)),
        ("`stride` must be a share, above 0 and at most 1; got 1.5", lambda: PredictionDifference(stride=1.5)),
        ("`samples` must be at least 1; got 0", lambda: PredictionDifference(samples=0)),
        ("`ring` must be at least 1; got 0", lambda: PredictionDifference(ring=0)),
    ],
)
def test_bad_parameters_are_named(text, make):
    with pytest.raises(ParameterError, match=text):
        make()
