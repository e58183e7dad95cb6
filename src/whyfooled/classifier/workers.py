"""Independent pieces of work on one model, shared out over the cores: each piece is computed as one worker alone would.

Which pieces there are never depends on the number of workers, so neither does any digit of what they give.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import suppress
from contextvars import copy_context
from itertools import chain, islice
from threading import Event
from typing import Any, TypeVar

import torch
from torch import Tensor, nn

from whyfooled.classifier.borrowing import compute_with, find_sharing, one_thread
from whyfooled.classifier.classifier import Classifier
from whyfooled.errors import hearing, warn
from whyfooled.types import Images, Logits

Piece = TypeVar("Piece")
Result = TypeVar("Result")


def share_out(classifier: Classifier, work: Callable[[Piece], Result], pieces: Iterable[Piece]) -> Iterator[Result]:
    """Do the work on every piece, on as many at once as there are workers, and yield the results in order.

    Workers are threads, which share the model. On a GPU, inside another worker, and where the calling thread follows
    what is computed in a way that other threads do not (a mode, autocast), the pieces are done one after the other; so
    they are for a model that keeps something from pass to pass, which threads would take from each other.

    Parameters
    ----------
    classifier
        The classifier that the work uses.
    work
        What is done to a piece. It may be called in another thread, in the context of the caller (so that passes are
        counted), with gradients switched on or off as they are for the caller.
    pieces
        Independent of each other, and of the number of workers. They are taken when it is their turn, so that memory
        does not grow with their number.
    """
    waiting = iter(pieces)
    begun = list(islice(waiting, 2))
    sharing = find_sharing()
    if len(begun) < 2 or sharing.workers < 2 or classifier.device.type != "cpu" or _is_followed():
        yield from map(work, chain(begun, waiting))
        return
    if classifier.module not in sharing.keeps:
        before = _take_stock(classifier.module)
        if not _rehearse(classifier):
            # The first piece shows it as well, but nobody else works in the meantime.
            yield work(begun.pop(0))
        sharing.keeps[classifier.module] = _take_stock(classifier.module) != before
    if sharing.keeps[classifier.module]:
        yield from map(work, chain(begun, waiting))
        return
    for result, heard in _work_in_threads(work, chain(begun, waiting), sharing.workers):
        for sentence in heard:
            warn(sentence, stacklevel=3)
        yield result


def _work_in_threads(
    work: Callable[[Piece], Result], pieces: Iterator[Piece], workers: int
) -> Iterator[tuple[Result, list[str]]]:
    """Yield the result of every piece, with what was warned of, in order."""
    # Whoever stops waiting, by Ctrl-C or because of an error, must not wait for what is in work to its end.
    stop = Event()
    recording, inference = torch.is_grad_enabled(), torch.is_inference_mode_enabled()

    def work_alone(piece: Piece) -> tuple[Result, list[str]]:
        with (
            torch.inference_mode(inference),
            torch.set_grad_enabled(recording),
            one_thread(1, stop),
            hearing() as heard,
        ):
            return work(piece), heard

    with ThreadPoolExecutor(workers, initializer=compute_with, initargs=(1,)) as pool:
        running = deque[Future[tuple[Result, list[str]]]]()
        try:
            while True:
                for piece in islice(pieces, _AHEAD * workers - len(running)):
                    running.append(pool.submit(copy_context().run, work_alone, piece))
                if not running:
                    return
                yield running.popleft().result()
        finally:
            stop.set()
            pool.shutdown(wait=False, cancel_futures=True)


_AHEAD = 2
"""How many pieces are in work or wait for their turn, for each worker: nobody is idle, and results do not pile up."""


def cut_by_image(rows: Tensor, images: Tensor, size: int) -> list[Tensor]:
    """Cut what is to be evaluated into pieces of at most so many rows.

    On a CPU, where the size of a batch changes last digits, no piece has rows of several images: what an image gives
    does not depend on its company; and its pieces are as large as each other, but for a row, since one of a few rows is
    computed in another way. On a GPU, which small batches would leave idle, rows are taken as they come.

    Parameters
    ----------
    rows
        (m,...) What is to be evaluated.
    images
        (m,) The image that each row is of; rows of an image stand together.
    size
        How many rows a piece has at most.
    """
    if rows.device.type != "cpu":
        return list(torch.split(rows, size))
    counts = torch.unique_consecutive(images, return_counts=True)[1].tolist()
    return [piece for own in torch.split(rows, counts) for piece in torch.tensor_split(own, -(-len(own) // size))]


LARGE = 96 * 96
"""Pixels from which on images are worked on one at a time on a CPU; small ones take longer so than together. [ours]"""


def are_taken_apart(images: Images) -> bool:
    """Tell whether images are worked on one at a time: large ones, on a CPU.

    The size of a batch changes last digits there, of which a search makes first ones; so each image has what it has by
    itself, whatever its company, and workers can share the images out.
    """
    return _is_taken_apart(images.device, images.shape[-2:])


def are_large(size: Sequence[int]) -> bool:
    """Tell whether images of this height and width are as large as photographs are."""
    return size[0] * size[1] >= LARGE


def most_together(classifier: Classifier, asked: int) -> int:
    """Return how many images are worked on together where so many are asked for: one, where they are taken apart."""
    return 1 if _is_taken_apart(classifier.device, classifier.size) else asked


def _is_taken_apart(device: torch.device, size: Sequence[int]) -> bool:
    return device.type == "cpu" and are_large(size)


def compute_logits(classifier: Classifier, images: Images) -> Logits:
    """Compute the logits of images without a graph, of large ones on a CPU one at a time."""
    if not are_taken_apart(images) or not len(images):
        return classifier.logits(images)
    return torch.cat(list(share_out(classifier, classifier.logits, torch.split(images, 1))))


def _is_followed() -> bool:
    """Tell whether this thread has a state that a new one begins without."""
    modes = torch._C._len_torch_function_stack() + torch._C._len_torch_dispatch_stack()
    return modes > 0 or torch.is_autocast_enabled("cpu")


def _rehearse(classifier: Classifier) -> bool:
    """Send noise of the model's size there and back, so that what it keeps is there; tell whether it could be done.

    A gradient is taken because a model may keep something for that alone. It is no pass of whoever comes first.
    """
    noise = torch.rand(1, classifier.channels, *classifier.size, generator=torch.Generator().manual_seed(0))
    with (
        suppress(Exception),
        hearing(),
        torch.random.fork_rng(devices=[]),
        torch.inference_mode(mode=False),
        torch.enable_grad(),
    ):
        given = noise.to(classifier.mean).requires_grad_()
        logits = classifier.forward(given)
        if logits.requires_grad:
            torch.autograd.grad(logits.sum(), given, allow_unused=True)
        return True
    return False


def _take_stock(module: nn.Module) -> list[tuple[str, str, object]]:
    """List what the parts of a module keep, so that two lists are equal unless a pass in between has written there."""
    return [
        (name, key, mark_state(value))
        for name, part in module.named_modules()
        for key, value in vars(part).items()
        # What is set for a while, by other threads too.
        if key != "training" and "_hooks" not in key
    ]


def mark_state(value: Any, depth: int = 3) -> object:
    """Return what is another thing after a value was replaced or written into."""
    if isinstance(value, Tensor):
        return id(value), None if value.is_inference() else value._version
    if isinstance(value, dict) and depth:
        return id(value), [(key, mark_state(one, depth - 1)) for key, one in value.items()]
    if isinstance(value, list | tuple | set) and depth:
        return id(value), [mark_state(one, depth - 1) for one in value]
    return value if isinstance(value, bool | int | float | str) else id(value)
