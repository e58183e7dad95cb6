"""The median filter, beside SciPy's."""

import scipy.ndimage
import torch

from whyfooled.tensors.medians import median_of_four


def test_it_is_scipys_filter_of_size_two():
    images = torch.rand(2, 3, 7, 5, generator=torch.Generator().manual_seed(0))
    expected = scipy.ndimage.median_filter(images.numpy(), size=(1, 1, 2, 2))
    assert torch.equal(median_of_four(images), torch.from_numpy(expected))


def test_its_gradient_goes_to_the_value_that_was_taken():
    image = torch.tensor([[[[0.1, 0.5], [0.7, 0.3]]]], requires_grad=True)
    last = median_of_four(image)[0, 0, 1, 1]
    # Of .1, .3, .5 and .7, the larger of the two in the middle.
    assert float(last.detach()) == 0.5
    assert torch.autograd.grad(last, image)[0].flatten().tolist() == [0, 1, 0, 0]
