"""Relevance through transformers: in matrix form, one step after the other; and where all of a logit goes."""

import pytest
import torch
import torch.nn.functional as F
from torch import nn

from tests.helpers.models import attentive
from tests.helpers.small_transformers import MODELS, classifier_of, plainly, random, swin, vit
from whyfooled import LRP, Classifier, ContrastiveLRP
from whyfooled.errors import MethodError
from whyfooled.saliency.backward.attention import as_norm, attend_with_heads
from whyfooled.saliency.backward.calls import Call

EXACT = {"rule": "epsilon", "epsilon": 0.0}
ATTENDING = pytest.mark.parametrize("attention", ["value", "attnlrp"])


# ------------------------------------------------------------------------------------------------ in matrix form


def through_matrix(matrix, bias, inputs, relevance):
    """Share each output's relevance by the terms of ``matrix @ inputs + bias``, one output at a time."""
    shares = torch.zeros_like(inputs)
    for out, weights in enumerate(matrix):
        shares += inputs * weights / (inputs @ weights + bias[out]) * relevance[out]
    return shares


def through_linear(layer, inputs, relevance):
    pairs = zip(inputs, relevance, strict=True)
    return torch.stack([through_matrix(layer.weight, layer.bias, *pair) for pair in pairs])


def through_norm(norm, inputs, relevance):
    width = inputs.shape[1]
    centre = torch.eye(width, dtype=inputs.dtype) - 1 / width
    shares = []
    for row, received in zip(inputs, relevance, strict=True):
        sigma = (((centre @ row) ** 2).mean() + norm.eps) ** 0.5
        shares.append(through_matrix(norm.weight[:, None] * centre / sigma, norm.bias, row, received))
    return torch.stack(shares)


def through_attention(block, inputs, relevance, attention):
    """Go back through the heads; `inputs` are what queries, keys and values are made of."""
    tokens, width = inputs.shape
    heads, size = block.num_heads, width // block.num_heads
    queries, keys, values = block.qkv(inputs).view(tokens, 3, heads, size).unbind(1)
    logits = torch.einsum("thc,shc->hts", queries, keys)
    weights = (logits * size**-0.5).softmax(-1)
    outputs = torch.einsum("hts,shc->thc", weights, values)
    received = through_linear(block.proj, outputs.reshape(tokens, width), relevance).view(tokens, heads, size)
    own = [torch.zeros_like(values) for _ in range(3)]
    for h in range(heads):
        for t in range(tokens):
            of_weights = torch.zeros(tokens, dtype=inputs.dtype)
            for c in range(size):
                terms = weights[h, t] * values[:, h, c] / outputs[t, h, c] * received[t, h, c]
                own[2][:, h, c] += terms if attention == "value" else terms / 2
                of_weights += terms / 2
            if attention == "attnlrp":
                scaled = logits[h, t] * size**-0.5
                of_logits = scaled * (of_weights - weights[h, t] * of_weights.sum())
                for s in range(tokens):
                    terms = queries[t, h] * keys[s, h] / logits[h, t, s] * of_logits[s] / 2
                    own[0][t, h] += terms
                    own[1][s, h] += terms
    return through_linear(block.qkv, inputs, torch.stack(own, 1).reshape(tokens, 3 * width))


@torch.no_grad()
def in_matrix_form(module, image, out, attention):
    """Return the map of one image (c,h,w)."""
    patches = module.patch_embed.proj
    side = patches.kernel_size[0]
    pixels = F.unfold(image[None], side, stride=side)[0].T
    embedded = pixels @ patches.weight.flatten(1).T + patches.bias
    joined = torch.cat([module.cls_token[0], embedded])
    before = joined + module.pos_embed[0]
    steps, stream = [], before
    for block in module.blocks:
        normed = block.norm1(stream)
        middle = stream + block.attn(normed[None])[0]
        hidden = block.mlp.fc1(block.norm2(middle))
        after = middle + block.mlp.fc2(F.gelu(hidden))
        steps.append((block, stream, normed, middle, hidden, after))
        stream = after
    final = module.norm(stream)
    received = torch.zeros_like(final)
    logit = final[0] @ module.head.weight[out] + module.head.bias[out]
    received[0] = through_matrix(module.head.weight[out][None], module.head.bias[out][None], final[0], logit[None])
    received = through_norm(module.norm, stream, received)
    for block, stream, normed, middle, hidden, after in reversed(steps):
        inside = received * (after - middle) / after
        inside = through_linear(block.mlp.fc2, F.gelu(hidden), inside)
        inside = through_linear(block.mlp.fc1, block.norm2(middle), inside)
        received = received * middle / after + through_norm(block.norm2, middle, inside)
        inside = through_attention(block.attn, normed, received * (middle - stream) / middle, attention)
        received = received * stream / middle + through_norm(block.norm1, stream, inside)
    received = (received * joined / before)[1:]
    shares = [
        through_matrix(patches.weight.flatten(1), patches.bias, *pair) for pair in zip(pixels, received, strict=True)
    ]
    return F.fold(torch.stack(shares).T[None], image.shape[-2:], side, stride=side)[0]


@ATTENDING
@pytest.mark.parametrize("fused", [True, False])
def test_it_is_that_in_matrix_form(fused, attention):
    module = vit()
    classifier, images = classifier_of(module, 8), random(2, 3, 8, 8)
    for block in module.blocks:
        block.attn.fused_attn = fused
    found = LRP(**EXACT, attention=attention)(classifier, images, torch.tensor([[0, 2], [1, 0]]))
    for image, classes, maps in zip(images, [[0, 2], [1, 0]], found, strict=True):
        for out, each in zip(classes, maps, strict=True):
            expected = in_matrix_form(module, image, out, attention)
            assert expected.any()
            torch.testing.assert_close(each, expected, rtol=1e-6, atol=1e-9 * float(expected.abs().max()))


# --------------------------------------------------------------------------------------------------- conservation


@pytest.mark.parametrize("name", MODELS)
def test_without_biases_all_of_the_logit_is_found(name):
    make, side, is_all_image = MODELS[name]
    classifier = classifier_of(make(), side, biases=False)
    images, classes = random(2, 3, side, side), torch.tensor([[0, 1], [2, 1]])
    shares = LRP(**EXACT).shares(classifier, images, classes)
    whole = shares["image"] + shares["joined"] + shares["added"]
    torch.testing.assert_close(whole, torch.ones_like(whole), rtol=0, atol=1e-7)
    assert shares["lost"].abs().max() < 1e-7
    leak = LRP(**EXACT).leak(classifier, images, classes)
    torch.testing.assert_close(1 - leak, shares["image"])
    if is_all_image:
        assert leak.abs().max() < 1e-7
    else:
        # A class token or positions have some of it.
        assert leak.abs().min() > 1e-4
    # AttnLRP's rule of the softmax keeps less, or more.
    halves = LRP(**EXACT, attention="attnlrp").shares(classifier, images, classes)["lost"]
    assert (halves.abs().max() < 1e-7) == (name in ("ConvNeXt", "MLP-Mixer"))


@pytest.mark.parametrize("name", ["ViT", "Swin"])
@ATTENDING
def test_attention_in_one_call_is_attention_written_out(name, attention):
    make, side, _ = MODELS[name]
    images, classes = random(2, 3, side, side), torch.tensor([0, 1])
    maps = []
    for module in (make(), plainly(make())):
        torch.manual_seed(1)
        maps.append(LRP("epsilon", attention=attention)(classifier_of(module, side), images, classes))
    assert maps[0].any()
    torch.testing.assert_close(*maps, rtol=1e-6, atol=1e-9 * float(maps[0].abs().max()))


@pytest.mark.parametrize("method", [LRP(), ContrastiveLRP()], ids=lambda method: method.card.name)
@pytest.mark.parametrize("name", MODELS)
def test_every_rule_holds_on_transformers(name, method):
    make, side, _ = MODELS[name]
    images, classes = random(2, 3, side, side), torch.tensor([[0, 1], [2, 1]])
    maps = method(classifier_of(make(), side), images, classes)
    assert torch.isfinite(maps).all()
    assert maps.flatten(2).any(2).all()


def test_of_a_batch_each_image_has_its_own_shares():
    classifier, images, classes = classifier_of(swin(), 32), random(3, 3, 32, 32), torch.tensor([0, 1, 2])
    together = LRP().shares(classifier, images, classes)
    alone = LRP().shares(classifier, images[1:2], classes[1:2])
    for name, part in together.items():
        torch.testing.assert_close(part[1:2], alone[name], rtol=1e-6, atol=1e-9)
    torch.testing.assert_close(sum(together.values()), torch.ones(3, dtype=torch.float64))


# ------------------------------------------------------------------------------------------- reading single calls


NORMS = {
    "layer norm": lambda a: Call(F.layer_norm, (a, (6,), random(6), random(6, seed=1)), {}),
    "layer norm by name": lambda a: Call(F.layer_norm, (), {"input": a, "normalized_shape": (6,), "eps": 0.1}),
    "group norm": lambda a: Call(F.group_norm, (a, 2, random(4), random(4, seed=1)), {}),
    "one group": lambda a: Call(torch.group_norm, (a, 1), {}),
    "rms norm": lambda a: Call(F.rms_norm, (a, (6,), random(6)), {"eps": 0.1}),
    "length": lambda a: Call(F.normalize, (a,), {"dim": -1}),
}


@pytest.mark.parametrize("name", NORMS)
def test_a_norm_is_linear_once_its_statistics_are_held(name):
    inputs = random(2, 4, 6) + 0.2
    call = NORMS[name](inputs)
    held = as_norm(call)
    torch.testing.assert_close(held.linear(inputs) + held.bias, call())
    other = random(2, 4, 6, seed=3)
    torch.testing.assert_close(held.linear(2 * inputs - other), 2 * held.linear(inputs) - held.linear(other))


MASKS = {
    "none": None,
    "booleans": torch.ones(5, 5, dtype=torch.bool).triu(1),
    "numbers": random(5, 5, seed=8),
    "of each head": random(4, 5, 5, seed=9),
}


@pytest.mark.parametrize("mask", MASKS)
def test_attention_with_heads_is_pytorchs_step_by_step(mask):
    torch.manual_seed(0)
    layer = nn.MultiheadAttention(8, 2, batch_first=True).double().eval()
    tokens, calls = random(2, 5, 8), []

    class Seen(torch.overrides.TorchFunctionMode):
        def __torch_function__(self, func, types, args=(), kwargs=None):
            if func is F.multi_head_attention_forward:
                calls.append(Call(func, args, kwargs or {}))
            return func(*args, **(kwargs or {}))

    options = [{"need_weights": False}, {}, {"average_attn_weights": False}]
    for number, option in enumerate(options):
        given = MASKS[mask]
        if given is not None and given.ndim == 3:
            given = given[:2].repeat(2, 1, 1)
        with Seen():
            expected = layer(tokens, tokens, tokens, attn_mask=given, **option)
        outputs, weights = attend_with_heads(calls[number])
        torch.testing.assert_close(outputs.transpose(0, 1), expected[0])
        assert (weights is None) == (number == 0)
        if number:
            torch.testing.assert_close(weights, expected[1])


def test_pytorchs_encoder_layer_has_relevance():
    maps = LRP()(attentive().double(), random(1, 3, 8, 8), torch.tensor([1]))
    assert maps.any()


class Asking(nn.Module):
    """Asks for the weights of attention beside what it gives, and may use them."""

    def __init__(self, uses):
        super().__init__()
        torch.manual_seed(0)
        self.attention, self.uses = nn.MultiheadAttention(3, 1, batch_first=True), uses

    def forward(self, x):
        tokens = x.flatten(2).transpose(1, 2)
        outputs, weights = self.attention(tokens, tokens, tokens)
        return outputs.mean(1) + (weights.amax(1)[:, :3] if self.uses else 0)


def test_weights_of_attention_that_the_logits_are_made_of_are_refused():
    images, classes = torch.rand(1, 3, 4, 4), torch.tensor([1])
    assert LRP()(Classifier(Asking(uses=False).eval(), size=(4, 4)), images, classes).any()
    with pytest.raises(MethodError, match=r"Relevance has no rule for .*a product of two signals"):
        LRP()(Classifier(Asking(uses=True).eval(), size=(4, 4)), images, classes)
