"""What stands in for a pixel that is taken away."""

import torch

from whyfooled.tensors.fills import blurred


def test_blur_is_a_gaussian_that_keeps_constants():
    torch.testing.assert_close(blurred(torch.full((1, 3, 20, 20), 0.3), 2.0), torch.full((1, 3, 20, 20), 0.3))
    dot = torch.zeros(1, 1, 41, 41)
    dot[0, 0, 20, 20] = 1
    x = torch.arange(41.0) - 20
    bell = torch.exp(-(x**2) / 8)
    expected = torch.outer(bell, bell) / bell.sum() ** 2
    torch.testing.assert_close(blurred(dot, 2.0)[0, 0], expected, atol=1e-4, rtol=0)
