"""`explain` in several threads is `explain` alone, on one model in training mode."""

from concurrent.futures import ThreadPoolExecutor

import torch
import torch.nn.functional as F
from torch import nn

from whyfooled import FGSM, Classifier, explain


class Trained(nn.Module):
    """Has parts that behave otherwise in training mode."""

    def __init__(self):
        super().__init__()
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(0)
            self.first, self.norm = nn.Conv2d(3, 6, 3), nn.BatchNorm2d(6)
            self.second, self.head = nn.Conv2d(6, 6, 3), nn.Linear(6, 4)

    def forward(self, x):
        x = F.relu(self.second(F.relu(self.norm(self.first(x)))))
        return self.head(F.dropout(x.mean((2, 3)), training=self.training))


def describe(explanation):
    tensors = [explanation.clean, explanation.adversarial, explanation.clean_logits, explanation.logits]
    maps = [each.maps for each in (explanation.headline, *explanation.evidence)]
    curves = [curve.probability for each in explanation.recovery for curve in each.curves.values()]
    return [*tensors, *maps, *curves], explanation.passes, explanation.notes


def test_explanations_in_threads_are_those_of_one_alone():
    classifier = Classifier(Trained(), size=(10, 10))
    images = torch.rand(8, 1, 3, 10, 10, generator=torch.Generator().manual_seed(1))
    before = classifier.digest()

    def work(number):
        return describe(explain(classifier, images[number], attack=FGSM(epsilon=0.1), label=number % 4))

    alone = [work(number) for number in range(8)]
    with ThreadPoolExecutor(8) as pool:
        together = list(pool.map(work, range(8)))
    for (tensors, passes, notes), (expected, expected_passes, expected_notes) in zip(together, alone, strict=True):
        assert all(map(torch.equal, tensors, expected))
        assert passes == expected_passes
        assert notes == expected_notes
    # They have something to say, and not all the same.
    assert len({notes for _, _, notes in alone}) > 1
    assert classifier.digest() == before
    assert all(part.training for part in classifier.module.modules())
