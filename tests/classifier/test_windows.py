"""Images that differ in windows give the logits that they give as a whole, of whatever the model is made."""

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn

from whyfooled import Classifier
from whyfooled.classifier.borrowing import one_thread
from whyfooled.classifier.folding import quicken
from whyfooled.classifier.windows import Reach, Windowed, _find_reach, find_windows

SIDE = 96


class Residual(nn.Module):
    def __init__(self, channels, norm=nn.Identity):
        super().__init__()
        self.norm = norm()
        self.first = nn.Conv2d(channels, channels, 3, padding=1)
        self.second = nn.Conv2d(channels, channels, 3, padding=2, dilation=2)

    def forward(self, x):
        return torch.relu(x + self.second(torch.relu(self.first(self.norm(x)))))


class Squeeze(nn.Module):
    """Looks at the mean of everything."""

    def forward(self, x):
        return x * torch.sigmoid(x.mean((2, 3), keepdim=True))


class Rows(nn.Module):
    """Adds the number of each row, in any size."""

    def forward(self, x):
        return x + torch.arange(x.shape[2]).view(-1, 1) / 50


class Places(nn.Module):
    """Adds a number to each place, in one size."""

    def __init__(self, side):
        super().__init__()
        self.numbers = nn.Parameter(torch.rand(1, 1, side, side))

    def forward(self, x):
        return x + self.numbers


class Hides(nn.Module):
    """Spreads what it is given, and lets no NaN out."""

    def __init__(self):
        super().__init__()
        self.spread = nn.Conv2d(6, 6, 5, padding=2)

    def forward(self, x):
        made = self.spread(x)
        return torch.where(made > 0, made, torch.zeros_like(made))


class Same(nn.Conv2d):
    """Pads as much as the size asks for, more at the end, as TensorFlow does."""

    def forward(self, x):
        pads = []
        for side, kernel, step in zip(x.shape[:1:-1], self.kernel_size, self.stride, strict=True):
            more = max((-(-side // step) - 1) * step + kernel - side, 0)
            pads += [more // 2, more - more // 2]
        return super().forward(nn.functional.pad(x, pads))


def make(*parts, stem=None):
    torch.manual_seed(0)
    stem = stem or nn.Conv2d(3, 6, 3, stride=2, padding=1)
    body = [part() for part in parts]
    head = (nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(6, 5))
    module = nn.Sequential(stem, nn.ReLU(inplace=True), *body, *head).eval()
    return Classifier(module, (0.5, 0.4, 0.3), (0.2, 0.3, 0.2), size=(SIDE, SIDE))


LOCAL = {
    "residual": (lambda: Residual(6),),
    "pool": (lambda: nn.MaxPool2d(3, 2, 1), lambda: Residual(6)),
    "pool that rounds up": (lambda: nn.MaxPool2d(3, 2, ceil_mode=True), lambda: nn.AvgPool2d(2, ceil_mode=True)),
    "mean pool": (lambda: nn.AvgPool2d(3, 2, 1, count_include_pad=False), lambda: nn.Conv2d(6, 6, 1, 2)),
    "same": (lambda: Same(6, 6, 3, 2), lambda: Same(6, 6, 5, 2), lambda: Same(6, 6, 4, 1)),
    "batch norm": (lambda: nn.BatchNorm2d(6), lambda: Residual(6, lambda: nn.BatchNorm2d(6))),
    "no padding": (lambda: nn.Conv2d(6, 6, (5, 3)), lambda: nn.Conv2d(6, 6, 3, (3, 2))),
    "channels shuffled": (lambda: nn.ChannelShuffle(3), lambda: nn.Conv2d(6, 6, 3, groups=3)),
    "reflected": (lambda: nn.Conv2d(6, 6, 3, padding=1, padding_mode="reflect"),),
    "squeezed after it": (lambda: Residual(6), Squeeze, lambda: Residual(6)),
    "places after it": (lambda: Residual(6), lambda: Places(SIDE // 2), lambda: Residual(6)),
}


def windows_of(classifier):
    images = torch.zeros(1, 3, SIDE, SIDE)
    return find_windows(classifier, quicken(classifier, images), images)


def change(image, top, left, height, width, seed):
    changed = image.clone()
    noise = torch.rand(image.shape, generator=torch.Generator().manual_seed(seed))
    changed[:, :, top : top + height, left : left + width] = noise[:, :, top : top + height, left : left + width]
    return changed


@torch.no_grad()
@pytest.mark.parametrize("name", LOCAL)
@given(data=st.data())
@settings(max_examples=8, deadline=None)
def test_windows_give_what_whole_images_do(name, data):
    with one_thread():
        classifier = make(*LOCAL[name])
        windows = windows_of(classifier)
        assert windows.layers, windows.said
        image = torch.rand(1, 3, SIDE, SIDE, generator=torch.Generator().manual_seed(data.draw(st.integers(0, 99))))
        starts, sizes = st.integers(0, SIDE - 1), st.integers(0, 40)
        places = data.draw(st.lists(st.tuples(starts, starts, sizes, sizes), min_size=1, max_size=5))
        images = torch.cat([change(image, *place, seed=number) for number, place in enumerate(places)])
        windowed = windows.around(classifier.normalise(image))
        expected = classifier.logits(images)
        assert (classifier.logits(images, windowed) - expected).abs().max() <= 1e-5 * (expected.max() - expected.min())


@torch.no_grad()
def test_a_window_is_all_that_a_layer_is_given():
    class Seen(nn.Conv2d):
        sides = ()

        def forward(self, x):
            Seen.sides = (*Seen.sides, tuple(x.shape[-2:]))
            return super().forward(x)

    classifier = make(lambda: Seen(6, 6, 3, padding=1))
    windowed = windows_of(classifier).around(torch.zeros(1, 3, SIDE, SIDE))
    Seen.sides = ()
    windowed(change(torch.zeros(1, 3, SIDE, SIDE), 40, 50, 4, 6, seed=0))
    # 2 × 3 outputs of the stem are different, or one more; the next convolution needs two beyond its own three or so.
    (side,) = Seen.sides
    assert 6 <= side[0] <= 7
    assert 7 <= side[1] <= 8


@pytest.mark.parametrize(
    ("stem", "said"),
    [
        (Squeeze, "the first layer"),
        (lambda: nn.Upsample(scale_factor=2), "the first layer"),
        (lambda: nn.Conv2d(3, 3, 41, padding=20), "the first layer"),
        (Rows, "other logits"),
    ],
)
def test_what_sees_more_than_a_window_is_computed_whole(stem, said):
    windows = windows_of(make(stem=nn.Sequential(stem(), nn.Conv2d(3, 6, 1))))
    assert not windows.layers
    assert said in windows.said


@torch.no_grad()
def test_where_nan_is_hidden_windows_end():
    classifier = make(Hides, lambda: Residual(6))
    windows = windows_of(classifier)
    # The stem and the convolution; not what hides it, nor what comes later.
    assert [layer.reach is not None for layer in windows.layers] == [True, True, False]


class Asks(nn.Module):
    """Decides by what it sees."""

    def forward(self, x):
        return x if x.sum() > 0 else -x


class AsksForNumber(nn.Module):
    """Decides by a number that it takes out of what it sees."""

    def forward(self, x):
        return x if x.max().item() > 0.5 else -x


@pytest.mark.parametrize("inference", [False, True])
def test_looking_at_values_is_seen_in_inference_mode_too(inference):
    classifier = make(AsksForNumber, lambda: Residual(6))
    with torch.inference_mode(inference):
        windows = windows_of(classifier)
    assert [layer.reach is not None for layer in windows.layers] == [True, False]


class Holds(nn.Module):
    """Decides by what it sees, among its parts."""

    def __init__(self):
        super().__init__()
        self.asks, self.other = Asks(), nn.Identity()

    def forward(self, x):
        return self.other(x) if x.mean() > 0 else self.asks(x)


@torch.no_grad()
def test_windows_end_where_values_decide():
    classifier = make(lambda: Residual(6), Asks, lambda: Residual(6))
    windows = windows_of(classifier)
    assert [layer.reach is not None for layer in windows.layers] == [True, True, False]
    image = torch.rand(1, 3, SIDE, SIDE)
    changed = change(image, 10, 10, 9, 9, seed=1)
    windowed = windows.around(classifier.normalise(image))
    torch.testing.assert_close(classifier.logits(changed, windowed), classifier.logits(changed))


def test_what_cannot_be_copied_or_followed_is_computed_whole():
    assert "cannot be cut into layers" in windows_of(make(Holds)).said
    hooked = make()
    hooked.module.register_forward_hook(lambda *_: None)
    assert not windows_of(hooked).layers


@pytest.mark.parametrize("kernel", [1, 2, 3, 5])
@pytest.mark.parametrize(("step", "dilation", "padding"), [(1, 1, 0), (1, 2, 2), (2, 1, 1), (3, 1, 1), (4, 1, 0)])
def test_a_convolution_sees_its_kernel(kernel, step, dilation, padding):
    part = nn.Conv2d(2, 3, (kernel, 3), (step, 1), (padding, 1), (dilation, 1))
    reach = _find_reach(part, torch.rand(1, 2, 60, 60))
    if reach is None:
        # Padded so much that there is more than went in.
        assert 2 * padding > dilation * (kernel - 1)
    else:
        assert reach == (Reach(step, padding, dilation * (kernel - 1) - padding), Reach(1, 1, 1))


@given(st.integers(1, 4), st.integers(0, 4), st.integers(0, 4), st.integers(0, 30), st.integers(1, 9))
def test_outputs_and_inputs_of_a_reach_are_those_of_its_definition(step, before, after, start, size):
    reach, count = Reach(step, before, after), 40
    depends = [range(step * output - before, step * output + after + 1) for output in range(count)]
    touched = [output for output in range(count) if set(depends[output]) & set(range(start, start + size))]
    first, end = reach.find_outputs(start, size, count)
    assert list(range(first, end)) == touched
    begin, finish = reach.find_inputs(start, size, count)
    places = [place for output in range(start, start + size) for place in depends[output]]
    assert {place for place in places if 0 <= place < count} <= set(range(begin, finish))
    # No more than that, but for the step, and none that there is not.
    assert begin == max(min(places), 0) // step * step
    assert finish == min(max(places) + 1, count)


def test_an_image_that_does_not_differ_is_the_image():
    classifier = make(lambda: Residual(6))
    image = torch.rand(1, 3, SIDE, SIDE)
    windowed = windows_of(classifier).around(classifier.normalise(image))
    assert isinstance(windowed, Windowed)
    torch.testing.assert_close(classifier.logits(image, windowed), classifier.logits(image))
