"""One network of every family of torchvision: those whose activations are ReLUs, and the others."""

from __future__ import annotations

import torch
from torchvision import models

REFUSED = {
    "convnext_tiny": "GELU",
    "efficientnet_b0": "SiLU",
    "efficientnet_v2_s": "SiLU",
    "maxvit_t": "GELU",
    "mobilenet_v3_small": "Hardswish",
    "swin_t": "GELU",
    "vit_b_16": "GELU",
}
RULED = [
    "alexnet",
    "densenet121",
    "googlenet",
    "inception_v3",
    "mnasnet0_5",
    "mobilenet_v2",
    "regnet_x_400mf",
    "regnet_y_400mf",
    "resnet18",
    "resnext50_32x4d",
    "shufflenet_v2_x0_5",
    "squeezenet1_1",
    "vgg11",
    "wide_resnet50_2",
]


def build(name):
    torch.manual_seed(0)
    quick = {"init_weights": False} if name in ("googlenet", "inception_v3") else {}
    return models.get_model(name, weights=None, **quick).eval()
