"""How many images fit into memory together."""

from __future__ import annotations

import contextlib
import os
from pathlib import Path

import torch
from torch import Tensor

from whyfooled.classifier.classifier import Classifier
from whyfooled.classifier.workers import are_large

MOST_ON_CPU, MOST_ON_GPU = 8, 64
SHARE = 0.25
"""Share of the free memory that a batch may take. [ours]"""
COPIES = 4
"""How often what a forward pass keeps is held at once by the hungriest method: gradients, several classes. [ours]"""


def batch_size_for(classifier: Classifier) -> int:
    """Choose how many images to work on together: as many as fit; on a CPU one that is large, or a few small ones.

    More would be a little quicker there, and a large image's digits would depend on its company.
    """
    on_gpu = classifier.device.type == "cuda"
    if not on_gpu and are_large(classifier.size):
        return 1
    needed = COPIES * max(1, measure_forward_memory(classifier))
    fitting = int(SHARE * _find_free_memory(classifier.device) // needed)
    return max(1, min(fitting, MOST_ON_GPU if on_gpu else MOST_ON_CPU))


def measure_forward_memory(classifier: Classifier) -> int:
    """Return how many bytes a forward pass of one image keeps for its backward pass, the weights not counted."""
    weights = {parameter.data_ptr() for parameter in classifier.module.parameters()}
    kept: dict[int, int] = {}

    def note(tensor: Tensor) -> Tensor:
        if tensor.data_ptr() not in weights:
            kept[tensor.data_ptr()] = tensor.numel() * tensor.element_size()
        return tensor

    size = (1, classifier.channels, *classifier.size)
    # Once where a model that needs another size says so in a sentence.
    classifier.logits(torch.zeros(size).to(classifier.mean))
    blank = torch.zeros(size).to(classifier.mean).requires_grad_()
    with torch.enable_grad(), torch.autograd.graph.saved_tensors_hooks(note, lambda tensor: tensor):
        logits = classifier(blank)
    del logits
    return sum(kept.values())


def _find_free_memory(device: torch.device) -> int:
    if device.type == "cuda":
        return torch.cuda.mem_get_info(device)[0]
    with contextlib.suppress(OSError, StopIteration, ValueError):
        lines = Path("/proc/meminfo").read_text().splitlines()
        return 1024 * int(next(line for line in lines if line.startswith("MemAvailable")).split()[1])
    # Where Linux's account of what can be freed is missing, half of what is built in.
    return memory_built_in() // 2


def memory_built_in() -> int:
    """Return how many bytes of memory the machine has, apart from its accelerators'."""
    return os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")
