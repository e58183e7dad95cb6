"""Small models with known behaviour."""

from __future__ import annotations

from itertools import pairwise

import torch
import torch.nn.functional as F
from torch import nn

from whyfooled import Classifier


class SmallNet(nn.Module):
    """Two convolutions, ReLU as a function, global average pooling, a linear head."""

    def __init__(self, classes: int = 5, seed: int = 0) -> None:
        super().__init__()
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(seed)
            self.first = nn.Conv2d(3, 12, 3, padding=1)
            self.second = nn.Conv2d(12, 16, 3, stride=2, padding=1)
            self.head = nn.Linear(16, classes)

    def forward(self, x):
        x = F.relu(self.first(x))
        x = F.relu(self.second(x))
        return self.head(x.mean((2, 3)))


class Block(nn.Module):
    """Two convolutions and a way around them, which drops every other pixel and adds empty channels if need be."""

    def __init__(self, before: int, channels: int) -> None:
        super().__init__()
        self.stride = channels // before
        self.first = nn.Conv2d(before, channels, 3, stride=self.stride, padding=1, bias=False)
        self.first_norm = nn.BatchNorm2d(channels)
        self.second = nn.Conv2d(channels, channels, 3, padding=1, bias=False)
        self.second_norm = nn.BatchNorm2d(channels)

    def forward(self, x):
        around = x[:, :, :: self.stride, :: self.stride]
        missing = self.second.out_channels - x.shape[1]
        around = F.pad(around, (0, 0, 0, 0, missing // 2, missing - missing // 2))
        inside = self.second_norm(self.second(F.relu(self.first_norm(self.first(x)))))
        return F.relu(inside + around)


class ResNet20(nn.Module):
    """The residual network for CIFAR of He et al. 2016, sec. 4.2, with 20 layers and ReLU as a function."""

    def __init__(self, classes: int = 10, seed: int = 0) -> None:
        super().__init__()
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(seed)
            self.stem = nn.Conv2d(3, 16, 3, padding=1, bias=False)
            self.norm = nn.BatchNorm2d(16)
            widths = [16, 16, 16, 16, 32, 32, 32, 64, 64, 64]
            self.blocks = nn.Sequential(*[Block(*pair) for pair in pairwise(widths)])
            self.head = nn.Linear(64, classes)

    def forward(self, x):
        x = self.blocks(F.relu(self.norm(self.stem(x))))
        return self.head(x.mean((2, 3)))


class Attentive(nn.Module):
    """Patches of 4 x 4 pixels that attend to each other, as in a vision transformer, and a linear head."""

    def __init__(self, classes: int = 5, seed: int = 0) -> None:
        super().__init__()
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(seed)
            self.patches = nn.Conv2d(3, 16, 4, stride=4)
            self.mix = nn.TransformerEncoderLayer(16, 2, 32, dropout=0.0, activation="gelu", batch_first=True)
            self.head = nn.Linear(16, classes)

    def forward(self, x):
        return self.head(self.mix(self.patches(x).flatten(2).transpose(1, 2)).mean(1))


class ChannelsLast(nn.Module):
    """Patches of 2 x 2 pixels with their channels last, as in Swin; a norm, and a linear head after their mean.

    With ``turned``, what the norm gives is turned so that channels come first, by a layer of its own; with ``tokens``,
    the patches are tokens, in a row: the same network.
    """

    def __init__(self, classes: int = 5, *, turned: bool = False, tokens: bool = False) -> None:
        super().__init__()
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(0)
            self.patches = nn.Conv2d(3, 6, 2, stride=2)
            self.mix = nn.Sequential(nn.Linear(6, 12), nn.GELU(), nn.Linear(12, 6))
            self.norm = nn.LayerNorm(6)
            self.turn = Turn() if turned else nn.Identity()
            self.tokens = tokens
            self.head = nn.Linear(6, classes)

    def forward(self, x):
        x = self.patches(x).permute(0, 2, 3, 1)
        x = x.flatten(1, 2) if self.tokens else x
        x = self.turn(self.norm(x + self.mix(x)))
        return self.head(x.mean(1) if self.tokens else x.mean((2, 3) if isinstance(self.turn, Turn) else (1, 2)))


class Turn(nn.Module):
    """Puts channels that come last first."""

    def forward(self, x):
        return x.permute(0, 3, 1, 2)


class Decoding(nn.Module):
    """Classifies, and reconstructs the image on the side, after that; gives the logits alone."""

    def __init__(self) -> None:
        super().__init__()
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(0)
            self.encoder = nn.Sequential(nn.Conv2d(3, 8, 3, 2, 1), nn.ReLU(), nn.Conv2d(8, 6, 3, 2, 1), nn.ReLU())
            self.head = nn.Linear(6, 5)
            self.decoder = nn.ConvTranspose2d(6, 3, 4, 4)

    def forward(self, x):
        features = self.encoder(x)
        logits = self.head(features.mean((2, 3)))
        self.reconstruction = self.decoder(features)
        return logits


class Linear(nn.Module):
    """Logits that are linear in the image: the nearest adversarial image is known in closed form."""

    def __init__(self, weight: torch.Tensor, bias: torch.Tensor | None = None) -> None:
        super().__init__()
        self.weight = nn.Parameter(weight)
        self.bias = nn.Parameter(torch.zeros(len(weight)) if bias is None else bias)

    def forward(self, x):
        return x.flatten(1) @ self.weight.T + self.bias


class Cubes(nn.Module):
    """Logits that are sums of weighted cubes of the pixels: integrated gradients are the terms of the sum."""

    def __init__(self, weight):
        super().__init__()
        self.weight = nn.Parameter(weight)

    def forward(self, x):
        return x.flatten(1) ** 3 @ self.weight.T


class LateStart(nn.Module):
    """Logits that do not change below half brightness."""

    def forward(self, x):
        bright = F.relu(x - 0.5).sum((1, 2, 3))
        return torch.stack([bright, -bright], 1)


def small(side: int = 16, seed: int = 0) -> Classifier:
    return Classifier(SmallNet(seed=seed).eval(), mean=(0.5,) * 3, std=(0.25,) * 3, size=(side, side), name="small")


def blind(side: int = 16) -> Classifier:
    """Make a classifier whose logits do not change with the image, so that its maps are empty."""
    return Classifier(nn.Sequential(nn.Flatten(), _zero(3 * side * side)), size=(side, side), name="blind")


def _zero(inputs: int) -> nn.Linear:
    layer = nn.Linear(inputs, 3)
    nn.init.zeros_(layer.weight)
    return layer


def attentive(side: int = 8) -> Classifier:
    return Classifier(Attentive().eval(), size=(side, side), name="attentive")


def channels_last(side: int = 16, *, turned: bool = False, tokens: bool = False) -> Classifier:
    module = ChannelsLast(turned=turned, tokens=tokens).eval()
    return Classifier(module, (0.5,) * 3, (0.25,) * 3, (side, side), name="channels last")


def resnet20() -> Classifier:
    return Classifier(ResNet20().eval(), mean=(0.5,) * 3, std=(0.25,) * 3, size=(32, 32), name="resnet20")


def linear(weight: torch.Tensor, bias: torch.Tensor | None = None, side: int = 8) -> Classifier:
    return Classifier(Linear(weight, bias), size=(side, side), name="linear")
