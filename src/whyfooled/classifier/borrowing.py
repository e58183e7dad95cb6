"""Everything that is set on a user's module, or in the whole process, for a while: modes, hooks, settings of PyTorch.

A module belongs to its user, who may send images through it from several threads at once. Whatever has to be set on it
is set here and nowhere else, so that what holds for threads holds everywhere:

- Modes are held: the first block that wants a part of a module in evaluation mode puts it there, the last one gives it
  its own mode back. Nobody waits for a forward pass of anybody else.
- Hooks are everybody's, since PyTorch calls them in all threads. Ours do nothing but in the context that they were set
  in (`contextvars`), which `asyncio.to_thread` hands on, and which a thread that is started otherwise begins without.
- Settings of the whole process are set by the first block that wants them, and set back by the last; among them those
  by which a GPU computes in full precision, and the same each time.
- How many threads one operation is computed with is each thread's own, and each sets its own back.
"""

from __future__ import annotations

import copy
import threading
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import AbstractContextManager, contextmanager, nullcontext
from contextvars import ContextVar, copy_context
from dataclasses import dataclass, field, replace
from typing import Any, final
from weakref import WeakKeyDictionary

import torch
from torch import nn
from torch.utils.hooks import RemovableHandle

from whyfooled.errors import at_least

_LOCK = threading.RLock()
"""Held while something is set or set back, never while a module runs."""

_HELD: dict[int, int] = {}
"""How many blocks hold a part in evaluation mode that has another mode of its own, by its id; the blocks keep it."""

_BLOCKS: ContextVar[frozenset[object]] = ContextVar("_BLOCKS", default=frozenset())
"""The blocks with hooks that this context is inside of."""


@contextmanager
def evaluating(module: nn.Module) -> Iterator[None]:
    """Put a module in evaluation mode for a while; every part has its own mode back when the last such block ends."""
    with _LOCK:
        parts = [part for part in module.modules() if part.training or id(part) in _HELD]
        for part in parts:
            part.training = False
            _HELD[id(part)] = _HELD.get(id(part), 0) + 1
    try:
        yield
    finally:
        with _LOCK:
            for part in parts:
                _HELD[id(part)] -= 1
                if not _HELD[id(part)]:
                    del _HELD[id(part)]
                    part.training = True


@contextmanager
def preserving(module: nn.Module) -> Iterator[None]:
    """Lend a module to other code, in evaluation mode; its modes and its parameters' gradients are as before then."""
    gradients = {parameter: parameter.grad for parameter in module.parameters()}
    with evaluating(module):
        try:
            yield
        finally:
            with _LOCK:
                for part in module.modules():
                    part.training = False
            for parameter, gradient in gradients.items():
                parameter.grad = gradient


@final
class _Hook:
    """A hook that acts only in the context of the block that set it."""

    def __init__(self, act: Callable[..., Any], block: object) -> None:
        self.act, self.block = act, block

    def __call__(self, *given: Any) -> Any:
        # PyTorch looks up how a hook is called after it has collected it, so what other threads hand over may differ.
        return self.act(*given) if self.block in _BLOCKS.get() else None


@contextmanager
def hooked_after(hooks: Iterable[tuple[nn.Module, Callable[..., Any]]]) -> Iterator[None]:
    """Call functions after parts of a module ran, inside this context: (part, arguments, output) -> None or another."""
    with _setting_hooks(lambda block: [part.register_forward_hook(_Hook(act, block)) for part, act in hooks]):
        yield


@contextmanager
def hooked_before(module: nn.Module, act: Callable[..., Any]) -> Iterator[None]:
    """Call a function before a module runs, inside this context: (module, arguments, named) -> the arguments, both."""
    with _setting_hooks(lambda block: [module.register_forward_pre_hook(_Hook(act, block), with_kwargs=True)]):
        yield


@contextmanager
def _setting_hooks(register: Callable[[object], list[RemovableHandle]]) -> Iterator[None]:
    block = object()
    # Two hooks that are registered at the same moment would get the same number.
    with _LOCK:
        handles = register(block)
    entered = _BLOCKS.set(_BLOCKS.get() | {block})
    try:
        yield
    finally:
        _BLOCKS.reset(entered)
        with _LOCK:
            for handle in handles:
                handle.remove()


def has_hooks(module: nn.Module) -> bool:
    """Tell whether a part of a module has hooks that act in this context: its user's, or what is set for a while."""
    with _LOCK:
        kinds = [each for part in module.modules() for each in (part._forward_hooks, part._forward_pre_hooks)]
        hooks = [hook for each in kinds for hook in each.values()]
    return any(not isinstance(hook, _Hook) or hook.block in _BLOCKS.get() for hook in hooks)


def copy_at_rest(module: nn.Module, memo: dict[int, Any] | None = None) -> nn.Module:
    """Copy a module as its user has it: with its own modes and hooks, and without what is set for a while.

    Parameters
    ----------
    module
        The module.
    memo
        What stands for tensors or parts in place of a copy, by their id, as `copy.deepcopy` takes it.
    """
    with _LOCK:
        made = copy.deepcopy(module, memo)
        for part, copied in zip(module.modules(), made.modules(), strict=False):
            copied.training = copied.training or id(part) in _HELD
            for hooks in (copied._forward_hooks, copied._forward_pre_hooks):
                for number in [number for number, hook in hooks.items() if isinstance(hook, _Hook)]:
                    del hooks[number]
                    copied._forward_pre_hooks_with_kwargs.pop(number, None)
    return made


@final
class SharedSetting:
    """A setting of the whole process: the first block that wants it sets it, the last one sets it back.

    Parameters
    ----------
    make
        Makes the context manager that sets it.
    """

    def __init__(self, make: Callable[[], AbstractContextManager[Any]]) -> None:
        self._make = make
        self._blocks = 0
        self._context: AbstractContextManager[Any] | None = None
        # What it notes of the context that it was set in must be there when another thread sets it back.
        self._home = copy_context()

    @contextmanager
    def __call__(self) -> Iterator[None]:
        """Have it set inside the block."""
        with _LOCK:
            if not self._blocks:
                self._context, self._home = self._make(), copy_context()
                self._home.run(self._context.__enter__)
            self._blocks += 1
        try:
            yield
        finally:
            with _LOCK:
                self._blocks -= 1
                if not self._blocks and self._context is not None:
                    self._home.run(self._context.__exit__, None, None, None)
                    self._context = None


@final
@dataclass(frozen=True, eq=False)
class Sharing:
    """How independent pieces of work are shared out, inside the blocks of `one_thread`.

    Parameters
    ----------
    workers
        Over how many workers at most.
    stop
        Set when nobody waits for what a worker does any more: its next pass then ends it.
    keeps
        Whether a module was seen to keep something from pass to pass.
    copies
        What computes a classifier more quickly, which lives no longer than the outermost block; and what was found out
        about that.
    """

    workers: int
    stop: threading.Event | None = None
    keeps: WeakKeyDictionary[nn.Module, bool] = field(default_factory=WeakKeyDictionary)
    copies: WeakKeyDictionary[Any, Any] = field(default_factory=WeakKeyDictionary)


_SHARING: ContextVar[Sharing | None] = ContextVar("_SHARING", default=None)
"""Of the innermost block that this context is inside of; None outside of all."""


@contextmanager
def one_thread(workers: int | None = None, stop: threading.Event | None = None) -> Iterator[None]:
    """Compute every operation with one thread inside the block; the caller's number of threads is set back afterwards.

    The threads of one operation share out its sums, so that another number of them gives other last digits, and they
    wait for each other, beside a busy process for longer than the operation takes. The cores that the caller meant to
    use are for independent pieces of work instead (`whyfooled.classifier.workers`), whose results are the same
    whoever computes them. A GPU that is in use computes in full single precision meanwhile, not in TF32, and by
    algorithms that give the same each time, where PyTorch has them. Usable as a decorator too.

    Parameters
    ----------
    workers
        Over how many workers such pieces are shared out; if None, over as many as the block around, or where there is
        none as many as the threads that PyTorch is set to (`torch.set_num_threads`).
    stop
        When it is set, the next pass inside the block is not begun.
    """
    if workers is not None:
        at_least("workers", workers, 1)
    threads = torch.get_num_threads()
    around = _SHARING.get() or Sharing(threads)
    entered = _SHARING.set(replace(around, workers=workers or around.workers, stop=stop or around.stop))
    try:
        with _EXACT() if torch.cuda.is_initialized() else nullcontext():  # type: ignore[no-untyped-call]
            if threads == 1:
                yield
                return
            compute_with(1)
            try:
                yield
            finally:
                compute_with(threads)
    finally:
        _SHARING.reset(entered)


@contextmanager
def _computing_exactly() -> Iterator[None]:
    """Let a GPU compute in full single precision, by algorithms that give the same each time, where there are such."""
    settings = _list_exact_settings()
    before = [getattr(owner, name) for owner, name, _ in settings]
    strict, warns = torch.are_deterministic_algorithms_enabled(), torch.is_deterministic_algorithms_warn_only_enabled()
    try:
        for owner, name, value in settings:
            setattr(owner, name, value)
        # Whoever wants an error where there is no such algorithm still gets it.
        torch.use_deterministic_algorithms(True, warn_only=warns or not strict)
        yield
    finally:
        for (owner, name, _), value in zip(settings, before, strict=True):
            setattr(owner, name, value)
        torch.use_deterministic_algorithms(strict, warn_only=warns)


def _list_exact_settings() -> list[tuple[Any, str, object]]:
    """List the settings of PyTorch that it takes: whose, which, and its value."""
    matmul, cudnn = torch.backends.cuda.matmul, torch.backends.cudnn
    name, value = ("fp32_precision", "ieee") if hasattr(cudnn, "conv") else ("allow_tf32", False)
    return [
        (matmul, name, value),
        (getattr(cudnn, "conv", cudnn), name, value),
        (cudnn, "deterministic", True),
        (cudnn, "benchmark", False),
        # That uninitialised memory is filled shows a fault in a program, and takes time.
        (torch.utils.deterministic, "fill_uninitialized_memory", False),
    ]


_EXACT = SharedSetting(_computing_exactly)


def end_if_nobody_waits() -> None:
    """Raise `KeyboardInterrupt` in a worker whose result nobody waits for any more."""
    sharing = _SHARING.get()
    if sharing is not None and sharing.stop is not None and sharing.stop.is_set():
        raise KeyboardInterrupt


def compute_with(threads: int) -> None:
    """Set how many threads this thread computes an operation with; threads that have yet to start keep the usual."""
    # PyTorch sets what later threads begin with, too. A thread that just started knows that number, and sets it back.
    with _LOCK, ThreadPoolExecutor(1) as started:
        usual = started.submit(torch.get_num_threads).result()
        torch.set_num_threads(threads)
        started.submit(torch.set_num_threads, usual).result()


def find_sharing() -> Sharing:
    """Return how independent pieces of work are shared out in this context."""
    return _SHARING.get() or Sharing(torch.get_num_threads())
