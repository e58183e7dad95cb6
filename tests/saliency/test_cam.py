"""Grad-CAM, by hand and against Captum."""

import pytest
import timm
import torch
import torch.nn.functional as F
from captum.attr import GuidedGradCam, LayerGradCam
from torch import nn
from torchvision import models

from tests.helpers.models import Decoding, SmallNet, channels_last, small
from tests.helpers.oracles import grad_cam_by_hand, grad_cam_of_layer, grad_cam_plus_plus_by_derivatives
from whyfooled import CAM, Classifier, GradCAM, GradCAMPlusPlus, GuidedBackprop, GuidedGradCAM, count_passes
from whyfooled.classifier.layers import LAST_STAGE, choose_layers
from whyfooled.errors import MethodError, ModelError, ParameterError
from whyfooled.saliency import _spatial
from whyfooled.saliency._spatial import choose_alike


class Pooled(nn.Module):
    """SmallNet with its last ReLU as a module, so that it can be named."""

    def __init__(self):
        super().__init__()
        net = SmallNet()
        self.features = nn.Sequential(net.first, nn.ReLU(), net.second, nn.ReLU())
        self.head = net.head

    def forward(self, x):
        return self.head(self.features(x).mean((2, 3)))


def test_it_is_the_definition_for_a_pooled_linear_head():
    module, x = Pooled().double(), torch.rand(2, 3, 16, 16, dtype=torch.float64)
    found = GradCAM()(Classifier(module, size=(16, 16)), x, torch.tensor([[0, 1], [2, 3]]))
    assert found.shape == (2, 2, 1, 16, 16)
    with torch.no_grad():
        features = module.features(x)
        for i in range(2):
            for k, cls in enumerate([[0, 1], [2, 3]][i]):
                cam = grad_cam_by_hand(features[i], module.head, cls)
                expected = F.interpolate(cam[None, None], size=(16, 16), mode="bilinear")[0]
                torch.testing.assert_close(found[i, k], expected)


def test_it_equals_captums_at_the_same_layer():
    torch.manual_seed(0)
    module = models.resnet18(weights=None).eval()
    x, y = torch.rand(2, 3, 96, 96), torch.tensor([1, 7])
    cam = LayerGradCam(module, module.layer4).attribute(x, target=y, relu_attributions=True)
    theirs = F.interpolate(cam, size=(96, 96), mode="bilinear")
    for method in (GradCAM(layer="layer4"), GradCAM()):
        torch.testing.assert_close(method(Classifier(module), x, y), theirs.detach(), rtol=1e-4, atol=1e-6)


class Spread(nn.Module):
    """Features whose places have weights of their own, so that gradients differ from place to place."""

    def __init__(self):
        super().__init__()
        torch.manual_seed(1)
        self.features = nn.Sequential(nn.Conv2d(3, 4, 3, stride=2), nn.ReLU())
        self.head = nn.Linear(4 * 9, 3)

    def forward(self, x):
        return self.head(self.features(x).flatten(1))


def test_grad_cam_plus_plus_is_its_definition_by_derivatives():
    module, x = Spread().double(), torch.rand(2, 3, 8, 8, dtype=torch.float64)
    classes = torch.tensor([[0, 1], [2, 0]])
    found = GradCAMPlusPlus(layer="features")(Classifier(module, size=(8, 8)), x, classes)
    features = module.features(x).detach()
    for i in range(2):
        for k in range(2):
            cls = int(classes[i, k])
            cam = grad_cam_plus_plus_by_derivatives(features[i], lambda a, cls=cls: module.head(a.flatten())[cls])
            expected = F.interpolate(cam[None, None], size=(8, 8), mode="bilinear")[0]
            assert expected.any()
            torch.testing.assert_close(found[i, k], expected)


def test_grad_cam_plus_plus_is_zero_where_the_gradient_is():
    module = Pooled()
    with torch.no_grad():
        module.head.weight[1] = 0
    assert not GradCAMPlusPlus()(Classifier(module), torch.rand(1, 3, 16, 16), torch.tensor([1])).any()


def test_guided_grad_cam_equals_captums():
    torch.manual_seed(0)
    module = models.resnet18(weights=None).eval()
    x, y = torch.rand(2, 3, 64, 64), torch.tensor([1, 7])
    theirs = GuidedGradCam(module, module.layer3).attribute(x.clone().requires_grad_(), y, interpolate_mode="bilinear")
    found = GuidedGradCAM(layer="layer3")(Classifier(module), x, y)
    torch.testing.assert_close(found, theirs.detach(), rtol=1e-4, atol=1e-5 * float(found.abs().max()))


def test_guided_grad_cam_is_a_product():
    classifier, x, y = small(), torch.rand(2, 3, 16, 16), torch.tensor([[0, 1], [2, 3]])
    product = GuidedBackprop()(classifier, x, y) * GradCAM()(classifier, x, y)
    assert torch.equal(GuidedGradCAM()(classifier, x, y), product)


@pytest.mark.parametrize("method", [CAM(), GradCAM(), GradCAMPlusPlus(), GuidedGradCAM()])
@pytest.mark.parametrize("shape", [(0,), (0, 2)])
def test_of_no_images_there_are_no_maps(method, shape):
    maps = method(small(), torch.zeros(0, 3, 16, 16), torch.zeros(shape, dtype=torch.int64))
    assert maps.shape[: len(shape)] == shape
    assert maps.shape[-2:] == (16, 16)


def test_no_hook_stays_behind():
    classifier = small()
    GradCAM()(classifier, torch.rand(1, 3, 16, 16), torch.tensor([0]))
    assert not any(part._forward_hooks for part in classifier.modules())


def test_all_classes_share_one_forward_pass():
    classifier = small()
    with count_passes(classifier) as passes:
        GradCAM()(classifier, torch.rand(2, 3, 16, 16), torch.tensor([[0, 1, 2], [2, 3, 4]]))
    assert passes.forwards == 2


@pytest.mark.parametrize("method", [GradCAM, GradCAMPlusPlus, GuidedGradCAM])
def test_an_unknown_layer_is_named_with_the_nearest(method):
    with pytest.raises(ParameterError, match="Did you mean second"):
        method(layer="secnd")(small(), torch.rand(1, 3, 16, 16), torch.tensor([0]))


def test_a_layer_that_is_not_spatial_is_refused():
    with pytest.raises(MethodError, match="'head'"):
        GradCAM(layer="head")(small(), torch.rand(1, 3, 16, 16), torch.tensor([0]))


def without_class_token(output, size):
    return output[:, -size[0] * size[1] :].transpose(1, 2).unflatten(2, size)


def vit(**options):
    torch.manual_seed(0)
    sizes = {"img_size": (32, 48), "patch_size": 8, "embed_dim": 16, "depth": 3, "num_heads": 2, "num_classes": 5}
    return timm.models.VisionTransformer(**{**sizes, **options}).eval()


def torchvision_vit():
    torch.manual_seed(0)
    module = models.VisionTransformer(32, 8, num_layers=3, num_heads=2, hidden_dim=16, mlp_dim=32, num_classes=5)
    nn.init.normal_(module.heads.head.weight)
    return module.eval()


def mixer():
    torch.manual_seed(0)
    module = timm.models.MlpMixer(num_classes=5, img_size=32, patch_size=8, num_blocks=2, embed_dim=16)
    nn.init.normal_(module.head.weight)
    return module.eval()


TRANSFORMERS = {
    # After the last attention, a class token alone is read.
    "ViT": (vit, (32, 48), "blocks.2.norm1"),
    "ViT with registers": (lambda: vit(reg_tokens=4), (32, 48), "blocks.2.norm1"),
    "DeiT, distilled": (
        lambda: timm.models.VisionTransformerDistilled(
            img_size=(32, 48), patch_size=8, embed_dim=16, depth=3, num_heads=2, num_classes=5
        ).eval(),
        (32, 48),
        "blocks.2.norm1",
    ),
    "ViT, attention written out": (lambda: plainly(vit()), (32, 48), "blocks.2.norm1"),
    # Pooled over the patches, or all tokens, they are read to the end.
    "ViT, pooled": (lambda: vit(global_pool="avg"), (32, 48), "norm"),
    "ViT without a class token": (lambda: vit(global_pool="avg", class_token=False, fc_norm=False), (32, 48), "norm"),
    "torchvision's ViT": (torchvision_vit, (32, 32), "encoder.layers.encoder_layer_2.ln_1"),
    "MLP-Mixer": (
        mixer,
        (32, 32),
        "norm",
    ),
}


def plainly(module):
    for block in module.blocks:
        block.attn.fused_attn = False
    return module


@pytest.mark.parametrize("name", TRANSFORMERS)
def test_of_a_transformer_it_is_that_of_the_last_patches_that_are_read(name):
    make, (height, width), layer = TRANSFORMERS[name]
    module, x, y = make(), torch.rand(2, 3, height, width), torch.tensor([1, 3])
    classifier = Classifier(module, size=(height, width))
    expected = grad_cam_of_layer(
        module, layer, x, y, to_grid=lambda output: without_class_token(output, (height // 8, width // 8))
    )
    assert expected.flatten(1).any(1).all()
    for _again in range(2):
        found = GradCAM()(classifier, x, y)
        torch.testing.assert_close(found, expected, rtol=1e-5, atol=1e-5 * float(expected.max()))
    torch.testing.assert_close(GradCAM(layer)(classifier, x, y), expected)
    assert [one.name for one in choose_layers(classifier, LAST_STAGE)] == [layer]
    assert GradCAMPlusPlus()(classifier, x, y).any()
    assert torch.equal(GuidedGradCAM()(classifier, x, y), found * GuidedBackprop()(classifier, x, y))


LAYERED = [GradCAM, GradCAMPlusPlus, GuidedGradCAM]


def last_first(output):
    return output.movedim(-1, 1)


@pytest.mark.parametrize("layer", [None, "norm"])
def test_channels_may_come_last(layer):
    classifier, turned = channels_last(), channels_last(turned=True)
    x, y = torch.rand(2, 3, 16, 12), torch.tensor([1, 3])
    expected = grad_cam_of_layer(classifier.module, "norm", (x - 0.5) / 0.25, y, to_grid=last_first)
    assert expected.flatten(1).any(1).all()
    torch.testing.assert_close(GradCAM(layer)(classifier, x, y), expected)
    torch.testing.assert_close(GradCAM("turn")(turned, x, y), expected)
    other = GradCAMPlusPlus("turn")(turned, x, y[:, None])
    torch.testing.assert_close(GradCAMPlusPlus(layer)(classifier, x, y[:, None]), other)


def test_swins_map_is_that_of_its_channels():
    torch.manual_seed(0)
    two = (2, 2)
    swin = timm.models.SwinTransformer(
        32, 2, embed_dim=8, depths=two, num_heads=two, window_size=4, num_classes=5
    ).eval()
    x, y = torch.rand(2, 3, 32, 32), torch.tensor([1, 3])
    expected = grad_cam_of_layer(swin, "norm", x, y, to_grid=last_first)
    found = GradCAM()(Classifier(swin, size=(32, 32)), x, y)
    assert found.any()
    torch.testing.assert_close(found, expected)


class Mirrored(nn.Module):
    """Looks at the mirror image, upside down and turned by a right angle."""

    def __init__(self):
        super().__init__()
        self.net = Pooled()

    def forward(self, x):
        return self.net(x.flip(3).flip(2).transpose(2, 3))


def test_maps_of_a_turned_image_are_turned_back():
    module = Mirrored()
    x, y = torch.rand(2, 3, 16, 12), torch.tensor([1, 3])
    turned = GradCAM()(Classifier(module.net), x.flip(3).flip(2).transpose(2, 3), y)
    torch.testing.assert_close(GradCAM()(Classifier(module), x, y), turned.transpose(2, 3).flip(2).flip(3))


@pytest.mark.parametrize(("name", "layer"), [("vgg11", "features.18"), ("vgg11", "features.0"), ("densenet121", None)])
@pytest.mark.parametrize("again", [False, True])
def test_what_a_layer_gave_is_kept_from_layers_that_work_in_place(name, layer, again):
    torch.manual_seed(0)
    module = models.get_model(name, weights=None, num_classes=10).eval()
    classifier, x, y = Classifier(module, size=(64, 64)), torch.rand(2, 3, 64, 64), torch.tensor([3, 5])
    if again:
        GradCAM(layer)(classifier, x, y)
    expected = grad_cam_of_layer(module, layer or "features", x, y)
    found = GradCAM(layer)(classifier, x, y)
    torch.testing.assert_close(found, expected, rtol=1e-4, atol=1e-5 * float(expected.max()))


def test_a_decoder_on_the_side_does_not_count():
    classifier, x, y = Classifier(Decoding().eval(), size=(32, 32)), torch.rand(2, 3, 32, 32), torch.tensor([1, 3])
    expected = grad_cam_of_layer(classifier.module, "encoder", x, y)
    torch.testing.assert_close(GradCAM()(classifier, x, y), expected)
    for method in LAYERED:
        with pytest.raises(ModelError, match="logits do not depend on the output of 'decoder' by operations that have"):
            method("decoder")(classifier, x, y)


class Cut(nn.Module):
    """A small network, cut off somewhere."""

    def __init__(self, before=lambda x: x, after=lambda x: x):
        super().__init__()
        net = Pooled()
        self.features, self.head, self.before, self.after = net.features, net.head, before, after

    def forward(self, x):
        return self.head(self.after(self.features(self.before(x))).mean((2, 3)))


CUTS = {"detached": lambda x: x.detach(), "numpy": lambda x: torch.from_numpy(x.detach().numpy())}


@pytest.mark.parametrize("cut", CUTS)
@pytest.mark.parametrize("method", LAYERED)
def test_features_that_are_cut_off_from_the_logits_are_said_so(cut, method):
    classifier, x, y = Classifier(Cut(after=CUTS[cut])), torch.rand(1, 3, 16, 16), torch.tensor([1])
    for layer, which in ((None, "any layer whose output has places"), ("features", "'features'")):
        with pytest.raises(ModelError, match=f"logits do not depend on the output of {which} by operations that have"):
            method(layer)(classifier, x, y)


def test_a_frozen_backbone_is_said_to_have_no_gradient():
    module = Cut()
    features = module.features
    module.forward = lambda x: module.head(torch.no_grad()(features)(x).mean((2, 3)))
    with pytest.raises(ModelError, match=r"such as torch\.no_grad\(\)"):
        GradCAM()(Classifier(module), torch.rand(1, 3, 16, 16), torch.tensor([1]))


@pytest.mark.parametrize("cut", CUTS)
def test_a_cut_before_the_layer_does_no_harm(cut):
    x, y = torch.rand(1, 3, 16, 16), torch.tensor([1])
    expected = GradCAM()(Classifier(Cut()), x, y)
    torch.testing.assert_close(GradCAM()(Classifier(Cut(before=CUTS[cut])), x, y), expected)


class Tokens(nn.Module):
    """A vision transformer with register tokens; the logits are the class token's, or those of the tokens' mean."""

    def __init__(self, *, pooled=False):
        super().__init__()
        torch.manual_seed(0)
        self.pooled = pooled
        self.patches = nn.Conv2d(3, 8, 4, 4)
        self.first, self.second = (nn.TransformerEncoderLayer(8, 2, 16, 0.0, batch_first=True) for _ in range(2))
        self.head = nn.Linear(8, 5)

    def forward(self, x):
        tokens = self.patches(x).flatten(2).transpose(1, 2)
        tokens = self.second(self.first(torch.cat([torch.ones(len(x), 3, 8), tokens], 1)))
        return self.head(tokens.mean(1) if self.pooled else tokens[:, 0])


def test_tokens_of_a_named_layer_are_put_on_their_places():
    module, x, y = Tokens().eval(), torch.rand(2, 3, 16, 20), torch.tensor([1, 3])
    classifier = Classifier(module, size=(16, 20))
    expected = grad_cam_of_layer(
        module, "first", x, y, to_grid=lambda output: output[:, 3:].transpose(1, 2).unflatten(2, (4, 5))
    )
    assert expected.any()
    torch.testing.assert_close(GradCAM("first")(classifier, x, y), expected)
    torch.testing.assert_close(GradCAM("first")(classifier, x, y[:, None])[:, 0], expected)


def test_places_that_the_logits_do_not_depend_on_are_said_so():
    x, y = torch.rand(1, 3, 16, 16), torch.tensor([1])
    with pytest.raises(
        MethodError, match=r"after 'second' they depend on none of its 4 × 4, only on tokens that have no"
    ):
        GradCAM("second")(Classifier(Tokens().eval(), size=(16, 16)), x, y)
    assert GradCAM("second")(Classifier(Tokens(pooled=True).eval(), size=(16, 16)), x, y).any()


class Folded(nn.Module):
    """Attends with two heads, which are told apart as channels might be, and then flattens the tokens."""

    def __init__(self):
        super().__init__()
        torch.manual_seed(0)
        self.patches, self.queries, self.head = nn.Conv2d(3, 8, 4, 4), nn.Identity(), nn.Linear(8, 5)

    def forward(self, x):
        tokens = self.patches(x).flatten(2).transpose(1, 2)
        queries = self.queries(tokens.view(len(x), -1, 2, 4).transpose(1, 2))
        return self.head((queries.softmax(-1) * queries).transpose(1, 2).flatten(2).mean(1))


@pytest.mark.parametrize("method", LAYERED)
def test_heads_of_attention_are_no_channels(method):
    classifier, x, y = Classifier(Folded().eval(), size=(16, 16)), torch.rand(1, 3, 16, 16), torch.tensor([1])
    with pytest.raises(MethodError, match=r"that of 'queries' is \(n, 2, 16, 4\): tokens, not channels and places"):
        method("queries")(classifier, x, y)
    with pytest.raises(
        MethodError, match=r"goes on with others after 'patches', up to 'queries', whose output is \(n, 2"
    ):
        method()(classifier, x, y)


class Idle(nn.Module):
    """Has a layer that does not run."""

    def __init__(self):
        super().__init__()
        self.net, self.idle = Pooled(), nn.Conv2d(3, 3, 1)

    def forward(self, x):
        return self.net(x)


def test_a_layer_that_does_not_run_is_named():
    with pytest.raises(MethodError, match="that of 'idle' is none with a row for each image"):
        GradCAM("idle")(Classifier(Idle()), torch.rand(1, 3, 16, 16), torch.tensor([1]))


class Windows(nn.Module):
    """Looks at the quarters of an image as at more images."""

    def __init__(self):
        super().__init__()
        self.net = Pooled()

    def forward(self, x):
        quarters = torch.cat([x[:, :, a::2, b::2] for a in (0, 1) for b in (0, 1)])
        return self.net(quarters).view(4, len(x), -1).mean(0)


def test_a_layer_without_a_row_for_each_image_is_refused():
    classifier, x, y = Classifier(Windows()), torch.rand(2, 3, 16, 16), torch.tensor([1, 2])
    with pytest.raises(MethodError, match="every layer of this model has another"):
        GradCAM()(classifier, x, y)
    with pytest.raises(MethodError, match="is none with a row for each image"):
        GradCAM("net.features")(classifier, x, y)


@pytest.mark.parametrize("method", [CAM(), *(method() for method in LAYERED)])
def test_a_model_that_was_seen_before_has_the_same_maps(method):
    x, y = torch.rand(2, 3, 16, 16), torch.tensor([[0, 1], [2, 3]])
    seen = small()
    for images in (x, x[:1], torch.rand(2, 3, 12, 20)):
        classes = y[: len(images)]
        method(seen, torch.rand_like(images), classes)
        with count_passes(seen) as passes:
            again = method(seen, images, classes)
        assert passes.forwards == len(images) * (2 if isinstance(method, GuidedGradCAM) else 1)
        assert torch.equal(again, method(small(), images, classes))


class Moody(nn.Module):
    """Goes through one stage more where images are dark."""

    def __init__(self):
        super().__init__()
        torch.manual_seed(0)
        self.stem, self.stage, self.head = nn.Conv2d(3, 8, 3), nn.Conv2d(8, 8, 3), nn.Linear(8, 5)

    def forward(self, x):
        x = self.stem(x)
        return self.head((self.stage(x) if x.mean() < self.stem.bias.mean() else x).mean((2, 3)))


def test_a_model_that_goes_another_way_is_looked_at_again():
    torch.manual_seed(0)
    module, x, y = Moody(), torch.rand(1, 3, 16, 16), torch.tensor([1])
    classifier = Classifier(module, size=(16, 16))
    for images in (x, -x, x):
        dark = module.stem(images).mean() < module.stem.bias.mean()
        expected = grad_cam_of_layer(module, "stage" if dark else "stem", images, y)
        torch.testing.assert_close(GradCAM()(classifier, images, y), expected)


def test_a_view_that_is_written_into_is_refused():
    class Written(nn.Module):
        def __init__(self):
            super().__init__()
            self.stem, self.turn, self.head = nn.Conv2d(3, 8, 3), nn.Identity(), nn.Linear(8, 5)
            self.turn.forward = lambda x: x.permute(0, 2, 3, 1)

        def forward(self, x):
            return self.head(self.turn(self.stem(x)).mul_(2).mean((1, 2)))

    classifier, x, y = Classifier(Written()), torch.rand(1, 3, 8, 8), torch.tensor([1])
    with pytest.raises(MethodError, match="the model writes into its output, which is a view"):
        GradCAM("turn")(classifier, x, y)


class Fork(nn.Module):
    """Goes one of two ways, by a weight; along the second there are fewer places."""

    def __init__(self):
        super().__init__()
        self.first, self.second = nn.Conv2d(3, 4, 3, padding=1), nn.Conv2d(3, 4, 3, stride=2, padding=1)
        self.way, self.head = nn.Parameter(torch.tensor(1.0)), nn.Linear(4, 3)

    def forward(self, x):
        return self.head((self.first if self.way > 0 else self.second)(x).mean((2, 3)))


@pytest.mark.parametrize("way", [1.0, -1.0])
def test_a_copy_with_other_weights_is_looked_at_where_the_original_was_unless_it_goes_another_way(way, monkeypatch):
    classifier, x, y = Classifier(Fork()), torch.rand(1, 3, 16, 16), torch.tensor([1])
    GradCAM()(classifier, x, y)
    made, alike = (classifier.copy("to change it") for _ in range(2))
    for each in (made, alike):
        with torch.no_grad():
            each.module.way.fill_(way)
            each.module.first.weight.mul_(-2)
    choose_alike(alike, classifier)
    found_out, find_out = [], _spatial._choose
    monkeypatch.setattr(_spatial, "_choose", lambda *given: found_out.append(1) or find_out(*given))
    again = GradCAM()(alike, x, y)
    assert bool(found_out) == (way < 0)
    assert torch.equal(again, GradCAM()(made, x, y))
