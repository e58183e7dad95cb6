"""Sums of activations and of what passes them by, as models write them out."""

import torch


def accumulated(a):
    total = torch.zeros_like(a)
    for part in (a.relu(), a.roll(1, 1)):
        total += part
    return total


def in_slices(a):
    halves = a.relu()
    halves[:, :8] += a.roll(1, 1)[:, :8]
    halves[:, 8:].add_(a.roll(1, 1)[:, 8:])
    return halves
