"""Meaningful perturbation, where the best mask is known, and step by step against a plain optimisation."""

import pytest
import torch
import torch.nn.functional as F

from tests.helpers.models import linear, small
from whyfooled import MeaningfulPerturbation, count_passes
from whyfooled.errors import ParameterError, WhyfooledWarning
from whyfooled.saliency.meaningful_perturbation import mask_size
from whyfooled.tensors.fills import FILLS, filled
from whyfooled.tensors.randomness import image_generators

QUICK = {"steps": 15, "learning_rate": 0.2}


def pictures(side=32):
    return torch.rand(2, 3, side, side, generator=torch.Generator().manual_seed(0))


@pytest.mark.parametrize("fill", ["zero", "mean"])
def test_it_deletes_what_the_logit_is_made_of_and_nothing_else(fill):
    # Logit 0 is the brightness of one square, logit 1 that of another, each above the image's mean.
    weight = torch.zeros(2, 3, 32, 32)
    weight[0, :, 4:12, 4:12] = 1
    weight[1, :, 20:28, 12:20] = 1
    x = pictures() / 4
    x[:, :, 4:12, 4:12] += 0.75
    x[:, :, 20:28, 12:20] += 0.75
    classes = torch.tensor([[0, 1], [1, 0]])
    found = MeaningfulPerturbation(fill=fill, tv=0.1)(linear(weight.flatten(1), side=32), x, classes)
    assert found.shape == (2, 2, 1, 32, 32)
    assert found.min() >= 0
    assert found.max() <= 1
    for i in range(2):
        for k in range(2):
            seen = weight[classes[i, k], 0] > 0
            near = F.max_pool2d(seen[None, None].float(), 13, 1, 6)[0, 0] > 0
            deleted = found[i, k, 0]
            assert deleted[seen].mean() > 0.8
            assert deleted[~near].abs().max() < 0.05


def test_it_takes_adams_steps_on_the_stated_objective():
    classifier, x = small(32), pictures()[:1, :, :, :24]
    y, method = torch.tensor([1]), MeaningfulPerturbation(steps=4, l1=0.3, tv=2.0, beta=2.0, jitter=0.1, seed=4)
    reference = filled(x, "blur")
    generator = image_generators(x, 4)[0]
    shifts = torch.randint(5, (4, 2), generator=generator).tolist()
    with torch.no_grad():
        whole, nothing = classifier(x)[0], classifier(reference)[0]
    scale = float((whole - nothing).max())
    mask = torch.full((1, 1, 8, 6), 0.5, requires_grad=True)
    optimiser = torch.optim.Adam([mask], lr=0.1)
    for dy, dx in shifts:
        optimiser.zero_grad()
        big = F.interpolate(mask, size=(32, 24), mode="bilinear")
        moved, blank = (F.pad(v, (2,) * 4, mode="replicate")[:, :, dy : dy + 32, dx : dx + 24] for v in (x, reference))
        logit = classifier(big * moved + (1 - big) * blank)[0, 1]
        rough = (mask[..., 1:, :] - mask[..., :-1, :]).square().sum() + (mask[..., 1:] - mask[..., :-1]).square().sum()
        (logit / scale + 0.3 * (1 - mask).mean() + 2.0 * rough / 48).backward()
        optimiser.step()
        with torch.no_grad():
            mask.clamp_(0, 1)
    expected = 1 - F.interpolate(mask.detach(), size=(32, 24), mode="bilinear")
    torch.testing.assert_close(method(classifier, x, y), expected, rtol=1e-3, atol=1e-4)


@pytest.mark.parametrize("fill", FILLS)
def test_no_even_mask_and_no_random_one_is_as_good(fill):
    classifier, x = small(32), pictures()
    y = classifier.predict(x)
    found = 1 - MeaningfulPerturbation(steps=60, fill=fill, l1=0.5, tv=1.0, jitter=0.0)(classifier, x, y)
    reference = filled(x, fill, image_generators(x, 0))
    scale = (classifier.logits(x) - classifier.logits(reference)).amax(1)

    def objective(mask):
        logit = classifier.logits(mask * x + (1 - mask) * reference).gather(1, y.unsqueeze(1)).squeeze(1)
        rough = F.avg_pool2d(mask, 4).diff(dim=-1).abs().pow(3).sum((1, 2, 3))
        return logit / scale + 0.5 * (1 - mask).mean((1, 2, 3)) + rough / 64

    others = [torch.full((2, 1, 32, 32), level) for level in (0.0, 0.25, 0.5, 0.75, 1.0)]
    cells = torch.rand(10, 2, 1, 8, 8, generator=torch.Generator().manual_seed(1))
    others += [F.interpolate(one, size=(32, 32), mode="bilinear") for one in cells]
    for other in others:
        assert (objective(found) < objective(other)).all()


def test_where_deleting_costs_more_than_it_gains_nothing_is_deleted():
    with pytest.warns(WhyfooledWarning, match="nothing whose deletion"):
        found = MeaningfulPerturbation(**QUICK, l1=1000.0)(small(32), pictures(), torch.tensor([0, 1]))
    assert not found.any()


def test_masks_have_cells_of_four_pixels_at_least():
    assert mask_size((224, 224), 28) == (28, 28)
    assert mask_size((224, 336), 28) == (28, 42)
    assert mask_size((32, 48), 28) == (8, 12)
    assert mask_size((2, 2), 28) == (1, 1)


def test_passes_are_counted_and_bounded():
    classifier, x, y = small(), torch.rand(3, 3, 16, 16), torch.tensor([[0, 1], [2, 3], [0, 4]])
    sizes = set()
    classifier.register_forward_pre_hook(lambda _, inputs: sizes.add(len(inputs[0])))
    with count_passes(classifier) as passes:
        MeaningfulPerturbation(steps=3)(classifier, x, y)
    assert (passes.forwards, passes.backwards) == (6 + 3 * 6, 3 * 6)
    assert sizes == {1}


def test_not_a_bit_depends_on_the_batch():
    classifier, x = small(32), pictures()
    y = (classifier.logits(x) - classifier.logits(torch.zeros_like(x))).topk(2).indices
    method = MeaningfulPerturbation(steps=40, fill="zero", l1=0.0, tv=0.1)
    together = method(classifier, x, y)
    assert torch.equal(method(classifier, x[1:], y[1:]), together[1:])
    assert torch.equal(method(classifier, x, y[:, 1]), together[:, 1])


@pytest.mark.parametrize(
    ("text", "make"),
    [
        ("`steps` must be at least 1; got 0", lambda: MeaningfulPerturbation(steps=0)),
        ("`learning_rate` must be a finite number above 0; got 0", lambda: MeaningfulPerturbation(learning_rate=0)),
        ("`cells` must be at least 1; got 0", lambda: MeaningfulPerturbation(cells=0)),
        ("`l1` must be a finite number, at least 0; got -1", lambda: MeaningfulPerturbation(l1=-1)),
        ("`tv` must be a finite number, at least 0; got inf", lambda: MeaningfulPerturbation(tv=float("inf"))),
        ("`beta` must be at least 1; got 0.5", lambda: MeaningfulPerturbation(beta=0.5)),
        ("`jitter` must be a share of the image's side, at least 0", lambda: MeaningfulPerturbation(jitter=1)),
    ],
)
def test_bad_parameters_are_named(text, make):
    with pytest.raises(ParameterError, match=text):
        make()
