"""Maps of a transformer's attention: their definitions written out, what they are read from, and what is refused."""

import pytest
import torch
import torch.nn.functional as F
from torch import nn

from tests.helpers.models import small
from tests.helpers.small_transformers import MODELS, classifier_of, plainly, random, vit
from whyfooled import Classifier
from whyfooled.errors import MethodError
from whyfooled.saliency import AttentionRelevance, AttentionRollout

METHODS = [AttentionRollout(), AttentionRelevance()]
BOTH = pytest.mark.parametrize("method", METHODS, ids=lambda method: method.card.name)


def weights_and_slopes(classifier, image, label):
    """Take the weights of timm's written-out attention by hooks on the dropout after the softmax, and the gradients."""
    kept = []
    hooks = [
        block.attn.attn_drop.register_forward_hook(lambda part, given, output: kept.append(output))
        for block in classifier.module.blocks
    ]
    slopes = torch.autograd.grad(classifier(image)[0, label], kept)
    for hook in hooks:
        hook.remove()
    return [weights.detach()[0] for weights in kept], [slope[0] for slope in slopes]


def roll(weights, slopes):
    product = one = torch.eye(weights[0].shape[-1], dtype=weights[0].dtype)
    for each in weights:
        mixed = each.mean(0) + one
        product = mixed / mixed.sum(-1, keepdim=True) @ product
    return product


def relate(weights, slopes):
    total = one = torch.eye(weights[0].shape[-1], dtype=weights[0].dtype)
    for each, slope in zip(weights, slopes, strict=True):
        total = total + sum((a * g).clamp(min=0) for a, g in zip(each, slope, strict=True)) / len(each) @ total
    return total - one


# What the logits are read from: the class token, the class token and one of distillation, or the patches.
READ = {
    "ViT": ({}, slice(0, 1), 1),
    "with registers": ({"reg_tokens": 2}, slice(0, 1), 3),
    "pooled": ({"global_pool": "avg", "class_token": False}, slice(None), 0),
    "pooled beside a class token": ({"global_pool": "avg"}, slice(1, None), 1),
}


@pytest.mark.parametrize("kind", READ)
@pytest.mark.parametrize(("method", "mix"), [(METHODS[0], roll), (METHODS[1], relate)], ids=["rollout", "relevance"])
def test_a_map_is_its_definition_written_out(method, mix, kind):
    options, rows, prefix = READ[kind]
    written_out = classifier_of(plainly(vit(img_size=16, depth=3, **options)), 16)
    fused, images = classifier_of(vit(img_size=16, depth=3, **options), 16), random(2, 3, 16, 16)
    expected = []
    for image, label in zip(images, (2, 0), strict=True):
        mixture = mix(*weights_and_slopes(written_out, image[None], label))
        expected.append(mixture[rows].mean(0)[prefix:].view(1, 4, 4))
    enlarged = F.interpolate(torch.stack(expected), size=(16, 16), mode="bilinear")
    for classifier in (written_out, fused):
        torch.testing.assert_close(method(classifier, images, torch.tensor([2, 0])), enlarged, rtol=1e-9, atol=1e-12)


class Written(nn.Module):
    """Two blocks of attention, of two heads, over a class token and 2 × 2 patches; the weights are given."""

    def __init__(self, *blocks):
        super().__init__()
        self.blocks = nn.ParameterList([nn.Parameter(torch.tensor(heads).log(), False) for heads in blocks])
        self.tokens = nn.Identity()

    def forward(self, x):
        patches = F.avg_pool2d(x, 4).flatten(2).transpose(1, 2)
        tokens = self.tokens(torch.cat([patches.new_zeros(len(x), 1, 3), patches], 1))
        heads = tokens[:, None, :, :1].expand(-1, 2, -1, -1)
        for weights in self.blocks:
            heads = (weights + 0 * heads.sum((-2, -1), keepdim=True)).softmax(-1) @ heads
        return heads[:, :, 0, 0]


def test_rollout_of_two_blocks_by_hand():
    even, to_first = [[0.2] * 5] * 5, [[0.2, 0.8, 1e-30, 1e-30, 1e-30], *[[0.2] * 5] * 4]
    classifier = Classifier(Written([even, even], [even, to_first]).double(), size=(8, 8)).double()
    maps = AttentionRollout()(classifier, random(1, 3, 8, 8), torch.tensor([1]))
    # The class token's row of the second block is half itself and half (.2, .5, .1, .1, .1): (.6, .25, .05, .05, .05).
    # In the first block a token keeps .6 of itself and has .1 of each other.
    first = 0.6 * 0.1 + 0.25 * 0.6 + 3 * 0.05 * 0.1
    other = 0.6 * 0.1 + 0.25 * 0.1 + 0.05 * 0.6 + 2 * 0.05 * 0.1
    expected = torch.tensor([[[[first, other], [other, other]]]], dtype=torch.float64)
    torch.testing.assert_close(maps, F.interpolate(expected, (8, 8), mode="bilinear"))


def test_rollout_does_not_know_the_class_and_relevance_does():
    make, side, _ = MODELS["ViT"]
    classifier, images = classifier_of(make(), side), random(2, 3, side, side)
    both = torch.tensor([[0, 1], [0, 1]])
    first, second = AttentionRollout()(classifier, images, both).unbind(1)
    assert torch.equal(first, second)
    first, second = AttentionRelevance()(classifier, images, both).unbind(1)
    assert (first - second).norm() > 0.1 * first.norm()


@BOTH
@pytest.mark.parametrize("name", ["DeiT", "torchvision's ViT", "EVA"])
def test_transformers_of_other_spellings_have_maps(name, method):
    make, side, _ = MODELS[name]
    maps = method(classifier_of(make(), side), random(2, 3, side, side), torch.tensor([0, 1]))
    assert maps.flatten(1).any(1).all()
    assert (maps >= 0).all()


def test_pytorchs_attention_with_heads_is_its_definition_written_out():
    """torchvision's, whose weights PyTorch itself gives when asked for."""
    make, side, _ = MODELS["torchvision's ViT"]
    classifier, images = classifier_of(make(), side), random(1, 3, side, side)
    layers, given = [block.self_attention for block in classifier.module.encoder.layers], []
    hooks = [layer.register_forward_pre_hook(lambda part, tokens: given.append(tokens)) for layer in layers]
    classifier(images)
    for hook in hooks:
        hook.remove()
    options = {"need_weights": True, "average_attn_weights": False}
    weights = [layer(*tokens, **options)[1][0] for layer, tokens in zip(layers, given, strict=True)]
    expected = F.interpolate(roll(weights, [])[0, 1:].view(1, 1, 4, 4), (16, 16), mode="bilinear")
    maps = AttentionRollout()(classifier, images, torch.tensor([0]))
    torch.testing.assert_close(maps, expected, rtol=1e-9, atol=1e-12)


ADVICE = " Use gradient or gradcam, which need no attention."
SAID = {
    "CaiT": "needs attention that weights its values by a softmax as it is; of the 4 softmaxes of this model 2 are "
    "used so, the others in another way, such as mixed between heads.",
    "Swin": "needs attention between all tokens, the same in every block; this model has another (32 × 1 × 16 × 16 "
    "weights for 2 images), as in windows or where tokens are merged.",
    "MLP-Mixer": "needs attention; this model has none.",
}


@BOTH
@pytest.mark.parametrize("name", SAID)
def test_another_attention_is_refused_in_a_sentence(name, method):
    make, side, _ = MODELS[name]
    with pytest.raises(MethodError) as error:
        method(classifier_of(make(), side), random(2, 3, side, side), torch.tensor([0, 1]))
    assert str(error.value) == f"{method.card.title} {SAID[name]}{ADVICE}"


@BOTH
def test_a_convolutional_network_has_no_attention(method):
    with pytest.raises(MethodError, match="needs attention; this model has none"):
        method(small(), torch.rand(1, 3, 16, 16), torch.tensor([0]))
