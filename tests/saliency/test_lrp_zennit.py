"""LRP against Zennit's, with the same rules, on networks like VGG and ResNet."""

import itertools

import pytest
import torch
from torch import nn
from torchvision.models.resnet import BasicBlock, Bottleneck, ResNet
from zennit import attribution, composites, rules, types
from zennit import torchvision as canonizers

from whyfooled import LRP, Classifier

MEAN, STD = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)
EPSILON = 1e-12


def vgg():
    channels, features = (3, 16, 24, 32), []
    for before, after in itertools.pairwise(channels):
        convolution = nn.Conv2d(before, after, 3, padding=1)
        features += [convolution, nn.BatchNorm2d(after), nn.ReLU(inplace=True), nn.MaxPool2d(2)]
    dense = [nn.Linear(32 * 4, 40), nn.ReLU(), nn.Dropout(), nn.Linear(40, 20)]
    return nn.Sequential(*features, nn.AdaptiveAvgPool2d(2), nn.Flatten(), *dense)


MODELS = {
    "vgg": vgg,
    "resnet": lambda: ResNet(BasicBlock, [2, 1, 1, 1], num_classes=20),
    "bottlenecks": lambda: ResNet(Bottleneck, [2, 1, 1, 1], num_classes=20),
}


def build(name):
    torch.manual_seed(0)
    module = MODELS[name]().double().eval()
    for part in module.modules():
        if isinstance(part, nn.BatchNorm2d):
            # As after training: untrained, batch norm does nothing, and fusing it would be no test.
            nn.init.uniform_(part.weight, 0.5, 1.5)
            nn.init.uniform_(part.bias, -0.3, 0.3)
            nn.init.uniform_(part.running_mean, -0.3, 0.3)
            nn.init.uniform_(part.running_var, 0.5, 1.5)
            # Zennit leaves it in the batch norm that it has emptied, which then still scales.
            part.eps = 0.0
        elif isinstance(part, nn.Conv2d | nn.Linear) and part.bias is not None:
            nn.init.uniform_(part.bias, -0.1, 0.1)
    return module


def constants(values):
    return torch.tensor(values, dtype=torch.float64).view(1, 3, 1, 1)


def z_box():
    ends = ((constants([end] * 3) - constants(MEAN)) / constants(STD) for end in (0.0, 1.0))
    return rules.ZBox(*ends, stabilizer=EPSILON)


def their_maps(name, convolution, linear, first, x, y):
    canonizer = (canonizers.VGGCanonizer if name == "vgg" else canonizers.ResNetCanonizer)()
    composite = composites.SpecialFirstLayerMapComposite(
        layer_map=[
            *composites.layer_map_base(EPSILON),
            (types.Convolution, convolution),
            (nn.Linear, linear),
        ],
        first_map=[(types.Linear, first)],
        canonizers=[canonizer],
    )
    module, normalised = build(name), (x - constants(MEAN)) / constants(STD)
    logits = module(normalised).detach()
    start = torch.zeros_like(logits).scatter(1, y[:, None], logits.gather(1, y[:, None]))
    with attribution.Gradient(model=module, composite=composite) as attributor:
        return attributor(normalised, start)[1].detach()


CASES = {
    "z-plus, flat": lambda: (
        LRP(epsilon=EPSILON, first="flat", bias=True),
        rules.ZPlus(stabilizer=EPSILON),
        rules.Epsilon(epsilon=EPSILON),
        rules.Flat(stabilizer=EPSILON),
    ),
    "z-plus without biases, box": lambda: (
        LRP(epsilon=EPSILON),
        rules.ZPlus(stabilizer=EPSILON, zero_params="bias"),
        rules.Epsilon(epsilon=EPSILON),
        z_box(),
    ),
    "alpha 2 beta 1 everywhere, box": lambda: (
        LRP("alpha-beta", alpha=2.0, bias=True),
        rules.AlphaBeta(alpha=2, beta=1, stabilizer=EPSILON),
        rules.AlphaBeta(alpha=2, beta=1, stabilizer=EPSILON),
        z_box(),
    ),
    "epsilon everywhere": lambda: (
        LRP("epsilon", epsilon=EPSILON),
        rules.Epsilon(epsilon=EPSILON),
        rules.Epsilon(epsilon=EPSILON),
        rules.Epsilon(epsilon=EPSILON),
    ),
}


@pytest.mark.parametrize("case", CASES)
@pytest.mark.parametrize("name", MODELS)
def test_maps_equal_zennits(name, case):
    x = torch.rand(2, 3, 32, 32, dtype=torch.float64, generator=torch.Generator().manual_seed(1))
    y = torch.tensor([3, 11])
    ours, *rest = CASES[case]()
    classifier = Classifier(build(name), MEAN, STD, size=(32, 32)).double()
    classifier.mean, classifier.std = constants(MEAN), constants(STD)
    theirs = their_maps(name, *rest, x, y)
    found = ours(classifier, x, y)
    assert theirs.any()
    assert (found - theirs).norm() <= 1e-5 * theirs.norm()
    assert (found - theirs).abs().max() <= 1e-5 * theirs.abs().max()
