"""Singular vectors of a layer's Jacobians: against the matrices themselves."""

from itertools import pairwise

import numpy as np
import pytest
import torch
from torch import nn

from tests.helpers.models import linear, small
from whyfooled import Classifier
from whyfooled.errors import MethodError, ParameterError
from whyfooled.universal import SingularUAP
from whyfooled.universal._fitting import Part
from whyfooled.universal.uap_singular import JacobianStep, run_to_layer


class Inplace(nn.Module):
    """A layer whose output is overwritten by what follows, and one that runs twice."""

    def __init__(self) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.first, self.twice = nn.Conv2d(3, 4, 3, padding=1), nn.Conv2d(4, 4, 3, padding=1)
        self.asleep, self.head = nn.Linear(4, 4), nn.Linear(4, 5)

    def forward(self, x):
        x = torch.relu_(self.first(x))
        x = torch.relu_(self.twice(torch.relu_(self.twice(x))))
        return self.head(x.mean((2, 3)))


def images(n=4, side=6, dtype=torch.float32):
    return torch.rand(n, 3, side, side, generator=torch.Generator().manual_seed(2)).to(dtype)


def jacobian(values, given):
    """Stack the Jacobians of every image, row by row: (n·m,p)."""
    rows = []
    for one in given:
        found = torch.autograd.functional.jacobian(lambda x: values(x[None]).flatten(), one)
        rows.append(found.flatten(1))
    return torch.cat(rows).double()


def psi(values, r):
    return values.sign() * values.abs() ** (r - 1)


def fitted(method, classifier, given):
    return method.fit(classifier, (given, classifier.predict(given)), batch_size=4)


def test_with_p_and_q_2_it_is_the_top_right_singular_vector_of_a_linear_model():
    weight = torch.randn(3, 192, generator=torch.Generator().manual_seed(0))
    classifier, given = linear(weight), images(side=8)
    found = fitted(SingularUAP(epsilon=2.0, q=2, passes=30), classifier, given).delta
    top = np.linalg.svd(weight.numpy())[2][0]
    assert abs(found.flatten().numpy() @ top) / 2.0 > 0.9999


def test_with_p_and_q_2_it_is_the_top_right_singular_vector_of_the_stacked_jacobians():
    classifier, given = small(side=6), images()
    found = fitted(SingularUAP(epsilon=1.0, q=2, passes=30), classifier, given)
    _, sizes, rows = np.linalg.svd(jacobian(classifier, given).numpy())
    assert abs(found.delta.flatten().double().numpy() @ rows[0]) > 0.999
    assert found.history[-2]["size"] == pytest.approx(sizes[0], rel=1e-4)
    assert found.history[-2]["agreement"] > 0.9999


def test_of_a_layer_too():
    # Its largest singular values lie close together, so that vectors of nearly the largest one are as good.
    classifier, given = small(side=6), images()
    found = fitted(SingularUAP(epsilon=1.0, q=2, layer="second", passes=30), classifier, given).delta
    matrix = jacobian(lambda x: run_to_layer(classifier, x, "second"), given)
    sizes = torch.linalg.svdvals(matrix)
    assert 0.99 * sizes[0] < (matrix @ found.flatten().double()).norm() <= 1.00001 * sizes[0]


@pytest.mark.parametrize(("ball", "q"), [("l2", 10.0), ("l2", 3.0), ("linf", 10.0), ("linf", 1.5)])
def test_a_fixed_point_of_the_power_method(ball, q):
    classifier, given = small(side=6), images()
    matrix = jacobian(classifier, given)
    found = fitted(SingularUAP(epsilon=0.5, ball=ball, q=q, passes=50), classifier, given)
    vector = found.delta.flatten().double() / 0.5
    turned = matrix.T @ psi(matrix @ vector, q)
    turned = turned.sign() if ball == "linf" else turned / turned.norm()
    if ball == "linf":
        assert torch.equal(turned, vector.sign())
    else:
        assert torch.cosine_similarity(turned, vector, dim=0) > 0.999
    sizes = [step["size"] for step in found.history if "size" in step]
    assert sizes[-1] == pytest.approx(float((matrix @ vector).norm(p=q)), rel=1e-3)
    # Boyd's method never goes down, and what it finds is more than chance.
    assert all(after >= before * (1 - 1e-5) for before, after in pairwise(sizes))
    chance = torch.randn(100, len(vector), generator=torch.Generator().manual_seed(1)).double()
    chance = chance.sign() if ball == "linf" else chance / chance.norm(dim=1, keepdim=True)
    assert sizes[-1] > (matrix @ chance.T).norm(p=q, dim=0).max()


@pytest.mark.parametrize("layer", ["", "first", "twice"])
@pytest.mark.parametrize("q", [2.0, 10.0])
def test_one_turn_is_the_product_with_the_jacobians(layer, q):
    classifier = Classifier(Inplace().double(), size=(6, 6))
    given = images(dtype=torch.float64)
    vector = torch.randn(3, 6, 6, generator=torch.Generator().manual_seed(3), dtype=torch.float64)
    matrix = jacobian(lambda x: run_to_layer(classifier, x, layer), given)
    pushed = matrix @ vector.flatten()
    sums = JacobianStep(vector, layer, q)(classifier, Part(given, torch.zeros(4).long(), 0))
    torch.testing.assert_close(sums["turned"].flatten(), matrix.T @ psi(pushed, q), rtol=1e-8, atol=1e-30)
    torch.testing.assert_close(sums["size"], pushed.abs().pow(q).sum(), rtol=1e-8, atol=1e-30)


def test_the_values_are_the_layers_own_and_its_last_ones():
    module = Inplace()
    classifier, given = Classifier(module, size=(6, 6)), images()
    torch.testing.assert_close(run_to_layer(classifier, given.clone().requires_grad_(), "first"), module.first(given))
    once = module.twice(module.first(given).relu()).relu()
    found = run_to_layer(classifier, given.clone().requires_grad_(), "twice")
    torch.testing.assert_close(found, module.twice(once))


def test_large_values_do_not_leave_the_range_of_numbers():
    weight = 1e12 * torch.randn(3, 192, generator=torch.Generator().manual_seed(0))
    given = images(side=8)
    found = fitted(SingularUAP(epsilon=1.0, passes=5), linear(weight), given).delta
    usual = fitted(SingularUAP(epsilon=1.0, passes=5), linear(weight / 1e12), given).delta
    assert torch.cosine_similarity(found.flatten(), usual.flatten(), dim=0).abs() > 0.9999


def test_the_sign_is_the_one_that_the_fitting_images_like_less():
    # One logit depends on the image, and the class is 0: less of it, not more.
    weight = torch.zeros(2, 192)
    weight[0] = torch.rand(192, generator=torch.Generator().manual_seed(1))
    given = images(side=8)
    for seed in range(4):
        found = SingularUAP(epsilon=1.0, passes=3, seed=seed).fit(linear(weight), (given, torch.zeros(4).long()))
        assert torch.cosine_similarity(found.delta.flatten(), -weight[0], dim=0) > 0.999
        last = found.history[-1]
        assert last["probability of other classes"] > last["probability of other classes of the other sign"]


def test_no_hook_stays_behind_a_layer_that_fails():
    classifier, given = Classifier(Inplace(), size=(6, 6)), images()
    with pytest.raises(MethodError, match="'asleep' must give a tensor that has a row for each image"):
        fitted(SingularUAP(epsilon=1.0, layer="asleep"), classifier, given)
    assert not any(part._forward_hooks or part._forward_pre_hooks for part in classifier.modules())


def test_an_unknown_layer_is_refused_with_the_nearest():
    with pytest.raises(ParameterError, match=r"`layer` must be a layer of the model; got 'frist'. Did you mean first"):
        fitted(SingularUAP(epsilon=1.0, layer="frist"), small(side=6), images())


def test_values_that_do_not_change_or_are_too_large_are_refused():
    given = images(side=8)
    with pytest.raises(MethodError, match="The values of the logits do not change with any image"):
        fitted(SingularUAP(epsilon=1.0), linear(torch.zeros(3, 192)), given)
    with pytest.raises(MethodError, match="The values of the logits are too large for q=1000"):
        fitted(SingularUAP(epsilon=1.0, q=1000), linear(1e3 * torch.ones(3, 192)), given)


@pytest.mark.parametrize(
    ("given", "message"), [({"q": 0.5}, "`q` must be at least 1"), ({"passes": 0}, "`passes` must be at least 1")]
)
def test_refusals(given, message):
    with pytest.raises(ParameterError, match=message):
        SingularUAP(**given)
