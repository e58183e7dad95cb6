"""Transformers of a few channels, of every kind that people use, and networks of tokens beside them."""

from __future__ import annotations

import timm
import torch
from torchvision import models

from tests.helpers.timm_families import waken
from whyfooled import Classifier


def random(*shape, seed=0):
    return torch.rand(*shape, dtype=torch.float64, generator=torch.Generator().manual_seed(seed))


def classifier_of(module, side, biases=True):
    module = module.double().eval()
    waken(module)
    with torch.no_grad():
        for name, parameter in module.named_parameters():
            if "bias" in name and "table" not in name:
                parameter.copy_(0.1 * torch.randn_like(parameter) if biases else 0 * parameter)
    return Classifier(module, size=(side, side)).double()


def vit(**options):
    torch.manual_seed(0)
    sizes = {"img_size": 8, "patch_size": 4, "embed_dim": 6, "depth": 2, "num_heads": 2, "num_classes": 3}
    return timm.models.VisionTransformer(**{**sizes, **options})


def plainly(module):
    for part in module.modules():
        if hasattr(part, "fused_attn"):
            part.fused_attn = False
    return module


def swin():
    torch.manual_seed(0)
    two = (1, 2)
    return timm.models.SwinTransformer(32, 2, embed_dim=8, depths=two, num_heads=two, window_size=4, num_classes=3)


def torchvision_swin():
    torch.manual_seed(0)
    return models.SwinTransformer([2, 2], 8, [2, 2], [2, 4], [4, 4], num_classes=3)


def torchvision_vit():
    torch.manual_seed(0)
    return models.VisionTransformer(16, 4, num_layers=2, num_heads=2, hidden_dim=8, mlp_dim=16, num_classes=3)


def distilled():
    torch.manual_seed(0)
    return timm.models.VisionTransformerDistilled(
        img_size=16, patch_size=4, embed_dim=8, depth=2, num_heads=2, num_classes=3
    )


def eva():
    torch.manual_seed(0)
    sizes = {"img_size": 16, "patch_size": 4, "embed_dim": 8, "depth": 2, "num_heads": 2, "num_classes": 3}
    return timm.models.Eva(**sizes, swiglu_mlp=True, use_rot_pos_emb=True)


# A name: how it is made, the side of its images, and whether nothing but they takes a share of its logits.
MODELS = {
    "ViT": (lambda: vit(img_size=16), 16, False),
    "ViT, attention written out": (lambda: plainly(vit(img_size=16)), 16, False),
    "ViT, pooled": (lambda: vit(img_size=16, global_pool="avg", qk_norm=True), 16, False),
    "DeiT": (distilled, 16, False),
    "torchvision's ViT": (torchvision_vit, 16, False),
    "EVA": (eva, 16, False),
    "CaiT": (
        lambda: timm.models.Cait(16, 4, embed_dim=8, depth=2, num_heads=2, num_classes=3, init_values=0.5),
        16,
        False,
    ),
    "Swin": (swin, 32, True),
    "Swin, attention written out": (lambda: plainly(swin()), 32, True),
    "torchvision's Swin": (torchvision_swin, 32, True),
    "ConvNeXt": (
        lambda: timm.models.ConvNeXt(num_classes=3, depths=(1,) * 4, dims=(8,) * 4, ls_init_value=0.5),
        64,
        True,
    ),
    "MLP-Mixer": (
        lambda: timm.models.MlpMixer(num_classes=3, img_size=16, patch_size=4, num_blocks=2, embed_dim=8),
        16,
        True,
    ),
}


def small_vit():
    """Make a vision transformer of 5 classes in single precision, as `tests.helpers.models.small` is a network."""
    return classifier_of(vit(img_size=16, num_classes=5, embed_dim=8), 16).float()
