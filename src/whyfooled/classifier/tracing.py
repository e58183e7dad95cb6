"""What happens to tensors in a forward pass: where their values come from, and which of them the logits depend on."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from contextlib import ExitStack, contextmanager
from typing import Any, NamedTuple, final

import torch
from torch import Tensor
from torch.multiprocessing.reductions import StorageWeakRef
from torch.utils._python_dispatch import TorchDispatchMode

from whyfooled.classifier.origins import NOWHERE, Call, Origin, follow, has_memory, tensors_among


class Seen(NamedTuple):
    """A tensor as it was at one moment of a forward pass: where its values come from, and the step that made it."""

    origin: Origin
    step: int


NOTHING = Seen(NOWHERE, -1)
"""What is known of a tensor that was not seen."""


@final
class Moment:
    """A tensor as it was at one moment of a forward pass, whatever was written into it later.

    Parameters
    ----------
    tensor
        The tensor, as it is by now.
    seen
        What was known of it then.
    """

    def __init__(self, tensor: Tensor, seen: Seen) -> None:
        self.tensor, self.seen = tensor, seen
        self.copy: Tensor | None = None

    @property
    def value(self) -> Tensor:
        """What it was then, without its graph."""
        return self.tensor.detach() if self.copy is None else self.copy


@contextmanager
def without_inference_mode() -> Iterator[None]:
    """Leave inference mode: in it, PyTorch takes operations for one that are several otherwise. There is no graph."""
    if not torch.is_inference_mode_enabled():
        yield
        return
    with torch.inference_mode(mode=False), torch.no_grad():
        yield


@final
class PassTrace(TorchDispatchMode):  # type: ignore[no-untyped-call]
    """While active, follows where values come from, from the images through all that is computed of them.

    Operations are seen below whatever spells them: layers, functions, methods, scripted parts. They run as they would
    otherwise. What is computed out of PyTorch's sight, in NumPy, comes from nowhere.

    Parameters
    ----------
    images
        (n,c,h,w) What the pass is given.
    """

    def __init__(self, images: Tensor) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self._left = ExitStack()
        height, width = images.shape[-2:]
        self._pixels = (height, width)
        # Memory that is referred to, even weakly, is not given out again, so these keys stay unique.
        self._storages: dict[int, tuple[StorageWeakRef, int]] = {}
        self._origins: dict[int, dict[Any, Origin]] = {}
        self._parents: list[set[int]] = []
        self._tidy_at = 1000
        self._held: dict[int, list[Moment]] = {}
        rows = torch.arange(height, dtype=torch.float32).view(-1, 1).expand(images.shape)
        columns = torch.arange(width, dtype=torch.float32).expand(images.shape)
        self._note_step([images], [])
        self._note_origin(images, Origin(rows, columns))

    def __enter__(self) -> PassTrace:
        self._left.enter_context(without_inference_mode())
        super().__enter__()  # type: ignore[no-untyped-call]
        return self

    def __exit__(self, *raised: Any) -> None:
        super().__exit__(*raised)  # type: ignore[no-untyped-call]
        self._left.close()

    def look(self, tensor: Tensor) -> Seen:
        """Return what is known of a tensor now."""
        if not has_memory(tensor):
            return NOTHING
        return Seen(self._find_origin(tensor), self._find_step(tensor))

    def find_ancestors(self, tensor: Tensor) -> set[int]:
        """Return the steps on which a tensor depends."""
        waiting, steps = [self._find_step(tensor)], set[int]()
        while waiting:
            step = waiting.pop()
            if step >= 0 and step not in steps:
                steps.add(step)
                waiting.extend(self._parents[step])
        return steps

    def hold(self, tensor: Tensor) -> Moment:
        """Hold on to a tensor as it is now: a copy is made as soon as something is about to write into it."""
        moment = Moment(tensor, self.look(tensor))
        if has_memory(tensor):
            self._held.setdefault(_find_storage(tensor), []).append(moment)
        return moment

    def __torch_dispatch__(
        self, func: Any, types: Any, args: tuple[Any, ...] = (), kwargs: dict[str, Any] | None = None
    ) -> Any:
        named = kwargs or {}
        writes = func._schema.is_mutable
        if self._held and writes:
            self._copy_before(func, args, named)
        result = func(*args, **named)
        outputs = list(tensors_among([result]))
        self._note_step(outputs, tensors_among((*args, *named.values())), writes=writes)
        origins = follow(Call(func, args, named, outputs, self._find_origin, self._pixels))
        for output, origin in zip(outputs, origins, strict=True):
            self._note_origin(output, origin)
        return result

    def _find_step(self, tensor: Tensor) -> int:
        known = self._storages.get(_find_storage(tensor))
        return -1 if known is None else known[1]

    def _note_step(self, outputs: Iterable[Tensor], given: Iterable[Tensor], *, writes: bool = False) -> None:
        """Note what was made of what; by storage, so that what is written into a part is in the whole."""
        before = {_find_storage(tensor): self._find_step(tensor) for tensor in given}
        made = {_find_storage(output): output for output in outputs}
        new = {storage: output for storage, output in made.items() if writes or storage not in before}
        if new:
            self._parents.append(set(before.values()))
        for storage, output in new.items():
            self._storages[storage] = _refer_weakly(output), len(self._parents) - 1
        if len(self._storages) > self._tidy_at:
            self._tidy()

    def _find_origin(self, tensor: Tensor) -> Origin:
        return self._origins.get(_find_storage(tensor), {}).get(_identify(tensor), NOWHERE)

    def _note_origin(self, tensor: Tensor, origin: Origin) -> None:
        self._origins.setdefault(_find_storage(tensor), {})[_identify(tensor)] = origin

    def _tidy(self) -> None:
        """Forget what is gone."""
        gone = [
            storage
            for storage, (reference, _) in self._storages.items()
            if reference.expired()  # type: ignore[no-untyped-call]
        ]
        for storage in gone:
            del self._storages[storage]
            self._origins.pop(storage, None)
        self._tidy_at = 2 * len(self._storages) + 1000

    def _copy_before(self, func: Any, args: tuple[Any, ...], kwargs: dict[str, Any]) -> None:
        for place, argument in enumerate(func._schema.arguments):
            if argument.alias_info is not None and argument.alias_info.is_write:
                given = args[place] if place < len(args) else kwargs.get(argument.name)
                for written in tensors_among([given]):
                    for moment in self._held.pop(_find_storage(written), []):
                        moment.copy = moment.tensor.detach().clone()


def _refer_weakly(tensor: Tensor) -> StorageWeakRef:
    return StorageWeakRef(tensor.untyped_storage())  # type: ignore[no-untyped-call]


def _find_storage(tensor: Tensor) -> int:
    address: int = tensor.untyped_storage()._cdata
    return address


def _identify(tensor: Tensor) -> Any:
    # Not by the object: views are handed on as other objects than they are made as.
    return tensor.storage_offset(), tensor.shape, tensor.stride()
