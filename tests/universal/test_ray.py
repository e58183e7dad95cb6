"""A fit on two simulated machines is the fit in one process."""

import pytest
import torch

from tests.helpers.machines import two_machines
from tests.helpers.models import small
from tests.helpers.small_studies import write_images
from whyfooled.universal import UPIPCA, UPIGrad


@pytest.fixture(scope="module")
def cluster():
    with two_machines() as cluster:
        yield cluster


@pytest.mark.parametrize(
    "method",
    [UPIPCA(epsilon=1, passes=2, samples=2), UPIGrad(epsilon=1, passes=1, images_per_step=4, penalty=0.1)],
    ids=["pca", "grad"],
)
def test_machines_share_the_images_and_find_the_same(method, cluster, tmp_path):
    images = write_images(tmp_path / "images.npz", count=11, side=8)
    classifier = small(side=8)
    here = method.fit(classifier, images, batch_size=2, workers=1)
    there = method.fit(classifier, images, batch_size=2, workers=1, engine="ray")
    torch.testing.assert_close(there.delta, here.delta, rtol=0, atol=1e-5)
    assert there.passes == here.passes
    assert there.fitted_to == here.fitted_to
    assert [set(step) for step in there.history] == [set(step) for step in here.history]
