"""Segments of a module, one after the other, compute what it does, and are as short as they can be."""

import threading

import pytest
import torch
from torch import nn

from whyfooled.classifier.segments import cut_into_segments


class Residual(nn.Module):
    """Cannot be cut inside: what comes in is needed at the end."""

    def __init__(self):
        super().__init__()
        self.first, self.second = nn.Conv2d(4, 4, 3, padding=1), nn.Conv2d(4, 4, 3, padding=1)
        self.scale = nn.Parameter(torch.full((1, 4, 1, 1), 0.5))

    def forward(self, x):
        return torch.relu(x + self.scale * self.second(torch.relu(self.first(x))))


class InCode(nn.Module):
    """Written as code: functions, in place, methods, a parameter used twice."""

    def __init__(self):
        super().__init__()
        self.inner = nn.Sequential(nn.Conv2d(3, 4, 3, stride=2), nn.ReLU(inplace=True))
        self.block = Residual()
        self.shift = nn.Parameter(torch.ones(4, 1, 1))

    def forward(self, x):
        x = self.inner(x) + self.shift
        x = nn.functional.max_pool2d(self.block(x), 2).mul_(2.0)
        return (x - self.shift).flatten(1).mean(1, keepdim=True)


def run(segments, given):
    for segment in segments:
        given = segment(given)
    return given


@torch.no_grad()
def test_segments_compute_what_the_module_does():
    module = InCode().eval()
    given = torch.rand(2, 3, 17, 19, generator=torch.Generator().manual_seed(0))
    segments = cut_into_segments(module)
    assert torch.equal(run(segments, given.clone()), module(given.clone()))
    # Convolution, rectifier, sum, the block up to its sum, its rectifier, pool, product, difference, flattening, mean.
    assert len(segments) == 10


@torch.no_grad()
def test_what_is_used_later_is_kept_together():
    module = nn.Sequential(Residual(), Residual(), nn.Flatten()).eval()
    assert len(cut_into_segments(module)) == 5

    class Both(nn.Module):
        def __init__(self):
            super().__init__()
            self.one, self.other = nn.Conv2d(3, 2, 1), nn.Conv2d(3, 2, 1)

        def forward(self, x):
            first = self.one(x)
            return torch.cat([first, self.other(x)], 1)

    both = Both().eval()
    (whole,) = cut_into_segments(both)
    given = torch.rand(1, 3, 4, 4)
    assert torch.equal(whole(given), both(given))


@torch.no_grad()
def test_parts_that_work_are_shared_with_the_module():
    module = nn.Sequential(nn.Conv2d(3, 2, 1, bias=False), nn.ReLU())
    first, _ = cut_into_segments(module)
    given = torch.rand(1, 3, 4, 4)
    before = first(given)
    module[0].weight.mul_(2)
    assert torch.equal(first(given), 2 * before)


def test_code_that_asks_for_values_cannot_be_followed():
    class Asks(nn.Module):
        def forward(self, x):
            return x if x.sum() > 0 else -x

    with pytest.raises(torch.fx.proxy.TraceError):
        cut_into_segments(Asks())


@torch.no_grad()
def test_what_other_threads_run_meanwhile_is_run_as_ever():
    module, other = InCode().eval(), nn.Sequential(nn.Conv2d(3, 4, 3), nn.BatchNorm2d(4), nn.ReLU()).eval()
    given = torch.rand(1, 3, 17, 19)
    expected = [module(given.clone()), other(given)]
    stop, wrong, runs = threading.Event(), [], []

    def run_both():
        while not stop.is_set():
            try:
                with torch.no_grad():
                    made = [module(given.clone()), other(given)]
                wrong.extend(one for one, right in zip(made, expected, strict=True) if not torch.equal(one, right))
            except Exception as error:  # whatever breaks in this thread
                wrong.append(error)
            runs.append(1)

    threads = [threading.Thread(target=run_both) for _ in range(2)]
    for thread in threads:
        thread.start()
    try:
        lengths = {len(cut_into_segments(module)) for _ in range(60)}
    finally:
        stop.set()
        for thread in threads:
            thread.join()
    assert not wrong
    assert runs
    assert lengths == {10}
