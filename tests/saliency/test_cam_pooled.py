"""CAM: by hand, against TorchCAM, and which networks it refuses."""

import pytest
import timm
import torch
import torch.nn.functional as F
from torch import nn
from torchcam import methods as torchcam
from torchvision import models

from tests.helpers.models import Decoding, SmallNet, channels_last, linear, small
from whyfooled import CAM, Classifier, GradCAM, GradCAMPlusPlus, count_passes, load_classifier
from whyfooled.errors import MethodError, ParameterError

CLASSES = torch.tensor([1, 7])


def made(name):
    torch.manual_seed(0)
    if name == "lite0":
        return load_classifier("lite0", weights="random").module
    if name.startswith("timm:"):
        return timm.create_model(name.removeprefix("timm:"), pretrained=False).eval()
    return models.get_model(name, weights=None).eval()


def min_max(maps):
    low, high = maps.amin((-2, -1), keepdim=True), maps.amax((-2, -1), keepdim=True)
    return (maps - low) / (high - low)


def theirs(extractor, module, x, classes, **options):
    with extractor:
        # Parameters without gradients leave nothing to differentiate unless the images do.
        scores = module(x.clone().requires_grad_())
        cams = extractor(classes.tolist(), scores, normalized=False, **options)[0]
    return F.interpolate(cams[:, None].detach(), size=x.shape[-2:], mode="bilinear")


NETWORKS = {
    "resnet18": ("layer4", "fc"),
    "densenet121": ("features", "classifier"),
    "mobilenet_v2": ("features", "classifier.1"),
    "regnet_y_400mf": ("trunk_output", "fc"),
    "lite0": ("bn2", "classifier"),
    "timm:resnet26": ("layer4", "fc"),
}


@pytest.mark.parametrize("name", NETWORKS)
class TestOnNetworks:
    def test_it_and_grad_cam_equal_torchcams(self, name):
        module, (layer, head) = made(name), NETWORKS[name]
        x = torch.rand(2, 3, 96, 96, generator=torch.Generator().manual_seed(1))
        classes = module(x).argmax(1)
        expected = theirs(torchcam.CAM(module, layer, head, input_shape=(3, 96, 96)), module, x, classes)
        for method in (CAM(), CAM(layer)):
            found = method(Classifier(module), x, classes)
            torch.testing.assert_close(min_max(found), min_max(expected), rtol=0, atol=1e-4)
            torch.testing.assert_close(found, expected, rtol=1e-3, atol=1e-4 * float(expected.abs().max()))
        extractor = torchcam.GradCAM(module, layer, input_shape=(3, 96, 96))
        # TorchCAM keeps the very tensor, which DenseNet's last ReLU writes into; so what follows is given a copy.
        handed_on = module.get_submodule(layer).register_forward_hook(lambda *given: given[-1].clone())
        expected = theirs(extractor, module, x, classes)
        handed_on.remove()
        assert expected.flatten(1).any(1).all()
        found = GradCAM(layer)(Classifier(module), x, classes)
        torch.testing.assert_close(min_max(found), min_max(expected), rtol=0, atol=1e-4)

    def test_the_mean_of_the_map_and_the_bias_are_the_logit(self, name):
        module = made(name).double()
        x, classes = torch.rand(2, 3, 96, 64).double(), torch.tensor([[1, 7, 3], [4, 7, 5]])
        found = CAM()(Classifier(module), x, classes)
        assert found.shape == (2, 3, 1, 96, 64)
        logits = module(x).gather(1, classes)
        bias = module.get_submodule(NETWORKS[name][1]).bias[classes]
        torch.testing.assert_close(
            found.mean((2, 3, 4)) + bias, logits, rtol=1e-9, atol=1e-9 * float(logits.detach().abs().max())
        )


def test_grad_cam_plus_plus_is_torchcams_once_its_weights_are_divided():
    # TorchCAM divides a copy of α, so that what should be under the fraction is missing from its weights.
    module, x = made("resnet18"), torch.rand(2, 3, 96, 96)
    with torchcam.GradCAMpp(module, "layer4", input_shape=(3, 96, 96)) as extractor:
        weights = extractor._get_weights(CLASSES.tolist(), module(x))[0]
        features = extractor.hook_a[0].detach()
    g = module.fc.weight[CLASSES].detach() / 9
    weights = weights / (2 * g**2 + features.sum((2, 3)) * g**3)
    cams = (weights[..., None, None] * features).sum(1, keepdim=True).clamp_min(0)
    expected = F.interpolate(cams, size=(96, 96), mode="bilinear")
    found = GradCAMPlusPlus("layer4")(Classifier(module), x, CLASSES)
    torch.testing.assert_close(min_max(found), min_max(expected), rtol=0, atol=1e-4)


def test_it_is_the_definition_on_a_network_of_functions():
    classifier, x, classes = small(), torch.rand(2, 3, 16, 16), torch.tensor([[0, 1], [2, 3]])
    net = classifier.module
    features = F.relu(net.second(F.relu(net.first((x - 0.5) / 0.25)))).detach()
    found = CAM()(classifier, x, classes)
    assert (found < 0).any()
    for i in range(2):
        for k in range(2):
            cam = sum(net.head.weight[classes[i, k], c] * features[i, c] for c in range(16)).detach()
            expected = F.interpolate(cam[None, None], size=(16, 16), mode="bilinear")[0]
            torch.testing.assert_close(found[i, k], expected)
    torch.testing.assert_close(CAM()(classifier, x[:1], classes[:1]), found[:1])


class Head(nn.Module):
    """Features of eight channels, whatever brings them to one place, and a head."""

    def __init__(self, pool, head=None):
        super().__init__()
        torch.manual_seed(0)
        self.features = nn.Conv2d(3, 8, 3)
        self.pool = pool
        self.head = head or nn.Linear(8, 4)

    def forward(self, x):
        return self.head(self.pool(F.silu(self.features(x))))


def pooled_by_hand(classifier, x, cls, head):
    features = F.silu(classifier.module.features(x))
    cam = (head.weight.flatten(1)[cls].view(8, 1, 1) * features[0]).sum(0)
    return F.interpolate(cam[None, None], size=x.shape[-2:], mode="bilinear").detach()


class OwnMean(torch.autograd.Function):
    """A mean that no function of PyTorch computes."""

    @staticmethod
    def forward(ctx, x):
        return x.mean((2, 3))


class Apply(nn.Module):
    def __init__(self, function):
        super().__init__()
        self.function = function

    def forward(self, x):
        return self.function(x)


SPELLINGS = {
    "module": nn.Sequential(nn.AdaptiveAvgPool2d(1), nn.Flatten()),
    "dropout": nn.Sequential(nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Dropout(0.5)),
    "function": Apply(lambda x: F.adaptive_avg_pool2d(x, (1, 1)).squeeze(3).squeeze(2)),
    "one after the other": Apply(lambda x: x.mean(3).mean(2)),
    "sum": Apply(lambda x: torch.sum(input=x, dim=(2, 3)) / (x.shape[2] * x.shape[3])),
    "flattened": Apply(lambda x: x.flatten(2).mean(-1)),
    "einsum": Apply(lambda x: torch.einsum("ndhw->nd", x) / x[0, 0].numel()),
    "window": Apply(lambda x: F.avg_pool2d(x, x.shape[-2:]).reshape(len(x), -1)),
}


@pytest.mark.parametrize("pool", SPELLINGS.values(), ids=SPELLINGS.keys())
@pytest.mark.parametrize("shape", [(8, 8), (7, 12)], ids=str)
def test_a_mean_is_found_however_it_is_spelled(pool, shape):
    classifier, x = Classifier(Head(pool).eval()), torch.rand(1, 3, *shape)
    expected = pooled_by_hand(classifier, x, 2, classifier.module.head)
    torch.testing.assert_close(CAM()(classifier, x, torch.tensor([2])), expected)


def test_a_pooling_that_is_not_seen_is_found_by_the_layer_before():
    module = Head(Apply(OwnMean.apply))
    features = module.features
    module.features = nn.Sequential(features, nn.SiLU())
    module.forward = lambda x: module.head(module.pool(module.features(x)))
    classifier, x = Classifier(module), torch.rand(1, 3, 8, 8)
    cam = (module.head.weight[2].view(8, 1, 1) * module.features(x)[0]).sum(0)
    expected = F.interpolate(cam[None, None], size=(8, 8), mode="bilinear").detach()
    torch.testing.assert_close(CAM()(classifier, x, torch.tensor([2])), expected)


def test_a_convolution_of_one_place_is_a_linear_layer_too():
    head = nn.Conv2d(8, 4, 1)
    classifier = Classifier(Head(nn.AdaptiveAvgPool2d(1), nn.Sequential(head, nn.Flatten())).eval())
    x = torch.rand(1, 3, 9, 9)
    expected = pooled_by_hand(classifier, x, 3, head)
    torch.testing.assert_close(CAM()(classifier, x, torch.tensor([3])), expected)


def test_a_compiled_network_has_the_maps_of_the_plain_one():
    plain, x, classes = SmallNet().eval(), torch.rand(2, 3, 16, 16), torch.tensor([0, 3])
    compiled = torch.compile(plain, backend="eager")
    compiled(x)
    for wrapped in (compiled, nn.Sequential(compiled)):
        assert torch.equal(CAM()(Classifier(wrapped), x, classes), CAM()(Classifier(plain), x, classes))


def test_one_forward_pass_serves_all_classes_and_no_backward():
    classifier = small()
    with count_passes(classifier) as passes:
        found = CAM()(classifier, torch.rand(2, 3, 16, 16).requires_grad_(), torch.tensor([[0, 1, 2], [2, 3, 4]]))
    assert (passes.forwards, passes.backwards) == (2, 0)
    assert not found.requires_grad


@pytest.mark.parametrize("layer", [None, "norm"])
def test_channels_may_come_last(layer):
    classifier, x, y = channels_last(), torch.rand(2, 3, 16, 12), torch.tensor([[1, 3], [0, 2]])
    expected = CAM()(channels_last(turned=True), x, y)
    assert expected.any()
    torch.testing.assert_close(CAM(layer)(classifier, x, y), expected)
    bias = classifier.module.head.bias[y]
    torch.testing.assert_close(CAM(layer)(classifier, x, y).mean((2, 3, 4)) + bias, classifier(x).gather(1, y))


def test_a_decoder_on_the_side_does_not_count():
    classifier, x, y = Classifier(Decoding().eval(), size=(32, 32)), torch.rand(2, 3, 32, 32), torch.tensor([1, 3])
    assert torch.equal(CAM()(classifier, x, y), CAM("encoder")(classifier, x, y))


class MeanOfTokens(nn.Module):
    """Tokens that attend to each other; the logits are a linear layer of their mean."""

    def __init__(self):
        super().__init__()
        torch.manual_seed(0)
        self.patches = nn.Conv2d(3, 8, 4, 4)
        self.mix = nn.TransformerEncoderLayer(8, 2, 16, 0.0, batch_first=True)
        self.head = nn.Linear(8, 5)

    def forward(self, x):
        return self.head(self.mix(self.patches(x).flatten(2).transpose(1, 2)).mean(1))


def test_tokens_of_a_named_layer_are_put_on_their_places():
    module, x, y = MeanOfTokens().eval(), torch.rand(2, 3, 16, 20), torch.tensor([1, 3])
    found = CAM("mix")(Classifier(module, size=(16, 20)), x, y)
    tokens = module.mix(module.patches(x).flatten(2).transpose(1, 2)).detach()
    cam = torch.einsum("nd,ntd->nt", module.head.weight[y].detach(), tokens).view(2, 1, 4, 5)
    torch.testing.assert_close(found, F.interpolate(cam, size=(16, 20), mode="bilinear"))


class TestRefusals:
    @staticmethod
    def refusal(module, *, layer=None, side=64):
        classifier = Classifier(module.eval())
        with pytest.raises(MethodError) as error:
            CAM(layer)(classifier, torch.rand(1, 3, side, side), torch.tensor([0]))
        assert not any(part._forward_hooks for part in classifier.modules())
        assert "gradcam" in str(error.value)
        return str(error.value)

    def test_a_head_of_several_layers(self):
        assert (
            "the logits come from 'classifier.6', which takes 4096 numbers that are not the mean of a spatial layer's "
            "channels" in self.refusal(made("vgg16"))
        )

    def test_a_normalisation_after_the_mean(self):
        text = self.refusal(made("convnext_tiny"))
        assert "'classifier.2', which takes 768 numbers" in text
        assert "768 channels of 2 × 2 places, more follows than the mean over its places, such as a norm" in text

    def test_a_transformer(self):
        assert "'head', which takes 192 numbers" in self.refusal(made("timm:vit_tiny_patch16_224"), side=224)

    def test_logits_that_no_linear_layer_gives(self):
        assert "not the output of a linear layer" in self.refusal(made("squeezenet1_1"))
        assert "not the output of a linear layer" in self.refusal(linear(torch.rand(3, 12), side=2).module, side=2)

    def test_logits_that_are_changed_after_the_linear_layer(self):
        for change in (lambda z: 2 * z, lambda z: z.mul_(2), lambda z: z + z.softmax(1)):
            module = Head(SPELLINGS["module"])
            module.head = nn.Sequential(module.head, Apply(change))
            assert "not the output of a linear layer" in self.refusal(module)

    def test_another_pooling_than_the_mean(self):
        text = self.refusal(Head(nn.Sequential(nn.AdaptiveMaxPool2d(1), nn.Flatten())), side=9)
        assert "after the last with so many, 8 channels of 7 × 7 places, more follows" in text

    def test_a_single_place(self):
        assert "2 × 2 places at least" in self.refusal(made("resnet18"), side=32)

    def test_a_layer_that_is_not_what_the_head_sees(self):
        text = self.refusal(made("resnet18"), layer="layer3")
        assert "'fc', which takes 512 numbers that are not the mean of the output of 'layer3', 256 channels of" in text
        assert "4 × 4 places" in text
        text = self.refusal(made("densenet121"), layer="features.conv0")
        assert "the output of 'features.conv0', 64 channels of 32 × 32 places" in text
        assert "the output of 'fc' is not (n, channels, height, width)" in self.refusal(made("resnet18"), layer="fc")

    def test_a_layer_of_tokens(self):
        text = self.refusal(made("timm:vit_tiny_patch16_224"), layer="blocks.3.attn.q_norm", side=224)
        assert "of 'blocks.3.attn.q_norm' is not (n, channels, height, width), but (n, 3, 197, 64): tokens, not" in text

    def test_an_unknown_layer(self):
        with pytest.raises(ParameterError, match="Did you mean second"):
            CAM("secnd")(small(), torch.rand(1, 3, 16, 16), torch.tensor([0]))


def test_a_layer_whose_mean_is_not_the_last_can_be_named():
    pool = nn.Sequential(nn.AvgPool2d(2), nn.AdaptiveAvgPool2d(1), nn.Flatten())
    module = Head(pool)
    module.features = nn.Sequential(module.features, nn.Identity())
    module.forward = lambda x: module.head(module.pool(module.features(x)))
    classifier, x = Classifier(module.eval()), torch.rand(1, 3, 10, 10)
    fine, coarse = CAM("features")(classifier, x, torch.tensor([1])), CAM()(classifier, x, torch.tensor([1]))
    sides = {"features": 8, "pool.0": 4}
    for found, (name, side) in zip((fine, coarse), sides.items(), strict=True):
        features = module.features(x) if name == "features" else pool[0](module.features(x))
        assert features.shape[-1] == side
        cam = torch.einsum("d,ndhw->nhw", module.head.weight[1], features)[:, None].detach()
        torch.testing.assert_close(found, F.interpolate(cam, size=(10, 10), mode="bilinear"))


def test_the_other_methods_errors_speak_of_them():
    for method in (GradCAM("head"), GradCAMPlusPlus("head")):
        with pytest.raises(MethodError, match=rf"^{method.card.title.replace('+', '[+]')} needs a layer.*'head'"):
            method(small(), torch.rand(1, 3, 16, 16), torch.tensor([0]))
