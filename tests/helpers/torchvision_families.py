"""One network of every family of torchvision, small where the size adds nothing: with ReLUs alone, and with others."""

from __future__ import annotations

import torch
from torch import nn
from torchvision import models
from torchvision.models.convnext import CNBlock
from torchvision.models.vgg import cfgs, make_layers

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
    "resnet50",
    "resnext50_32x4d",
    "shufflenet_v2_x0_5",
    "squeezenet1_1",
    "vgg11",
]
PLANS = {"vgg11": "A", "vgg16": "D"}
SIDES = {"inception_v3": 128}
"""How large images must be, where it is not 64 pixels."""


def build(name: str, classes: int = 1000) -> nn.Module:
    """Make a network with random weights; of VGG and of what is refused by its first attention, a narrow one."""
    torch.manual_seed(0)
    if name in PLANS:
        module = narrow_vgg(name, classes)
    elif name == "convnext_tiny":
        module = models.get_model(name, weights=None, num_classes=classes)
        for part in module.modules():
            if isinstance(part, CNBlock):
                # It begins at 1e-6, where no block would do anything.
                nn.init.constant_(part.layer_scale, 0.5)
    elif name == "vit_b_16":
        module = models.VisionTransformer(64, 16, num_layers=2, num_heads=2, hidden_dim=32, mlp_dim=64)
        # It begins at 0, and no logit would change with the image.
        nn.init.normal_(module.heads.head.weight, 0, 0.1)
    elif name == "maxvit_t":
        module = models.MaxVit((64, 64), 16, 2, [16, 32], [1, 1], head_dim=8, stochastic_depth_prob=0.1)
    else:
        quick = {"init_weights": False} if name in ("googlenet", "inception_v3") else {}
        module = models.get_model(name, weights=None, num_classes=classes, **quick)
    return module.eval()


def narrow_vgg(name: str, classes: int) -> models.VGG:
    """Make torchvision's VGG with an eighth of its channels: four fifths of its weights are those of a single layer."""
    # On no device: the layers that are replaced are not filled first.
    with torch.device("meta"):
        module = models.VGG(nn.Identity(), init_weights=False)
    module.features = make_layers([part if part == "M" else part // 8 for part in cfgs[PLANS[name]]])
    wide, narrow = 512 // 8 * 7 * 7, 4096 // 8
    module.classifier = nn.Sequential(
        nn.Linear(wide, narrow),
        nn.ReLU(True),
        nn.Dropout(),
        nn.Linear(narrow, narrow),
        nn.ReLU(True),
        nn.Dropout(),
        nn.Linear(narrow, classes),
    )
    for part in module.modules():
        if isinstance(part, nn.Conv2d):
            nn.init.kaiming_normal_(part.weight, mode="fan_out", nonlinearity="relu")
            nn.init.zeros_(part.bias)
        elif isinstance(part, nn.Linear):
            nn.init.normal_(part.weight, 0, 0.01)
            nn.init.zeros_(part.bias)
    return module
