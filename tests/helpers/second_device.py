"""A second device, played by the CPU: it refuses what a GPU refuses, and computes what the CPU computes.

Its tensors lie in the CPU's memory. What is asked of them is handed on to the CPU, unless it comes with a tensor of the
CPU, as on a GPU. Once a process has taken the device in, it stays: that is for processes of their own.
"""

from __future__ import annotations

import ctypes
from functools import partial
from typing import Any

import torch
from torch import Tensor
from torch.library import Library
from torch.utils import backend_registration
from torch.utils._pytree import tree_leaves, tree_map

NAME = "elsewhere"

# Of DLPack: by them, two tensors can have the same memory on two devices.
_CPU, _OTHER = 1, 12
_TYPE, _INDEX = 8, 12

_MIXING = {"copy_", "_copy_from", "_to_copy", "index", "index_put", "index_put_", "_index_put_impl_"}
"""What takes tensors of two devices, on a GPU too: copies, and places in a tensor."""
_BY_ITSELF = {"copy", "convolution_overrideable", "convolution_backward_overrideable"}
"""What is not handed on under its own name."""
_LIBRARIES: list[Library] = []


def is_supported() -> bool:
    """Tell whether this PyTorch lets a device be written in Python."""
    return hasattr(backend_registration, "_setup_privateuseone_for_python_backend")


def take_in() -> None:
    """Make the device known to PyTorch, for the rest of the process."""
    module = type("Module", (backend_registration._DummyBackendModule,), {"get_amp_supported_dtype": _list_amp_dtypes})
    backend_registration._setup_privateuseone_for_python_backend(NAME, module())
    everything = Library("_", "IMPL")
    everything.fallback(_hand_on, "PrivateUse1")
    aten = Library("aten", "IMPL")
    for name in torch._C._dispatch_get_all_op_names():
        if name.startswith("aten::") and _would_write_into_an_empty_tensor(name):
            operator = _find_operator(name)
            aten.impl(name.removeprefix("aten::"), partial(_hand_on, operator), "PrivateUse1")
    aten.impl("_copy_from", _copy_from, "PrivateUse1")
    aten.impl("convolution_overrideable", partial(_hand_on, torch.ops.aten.convolution.default), "PrivateUse1")
    aten.impl("convolution_backward_overrideable", _convolve_back, "PrivateUse1")
    # They last as long as they are kept.
    _LIBRARIES.extend((everything, aten))
    _copy_plainly()


def _list_amp_dtypes(self: object) -> list[torch.dtype]:
    return [torch.float16, torch.bfloat16]


def _find_operator(name: str) -> Any:
    packet, _, overload = name.removeprefix("aten::").partition(".")
    return getattr(getattr(torch.ops.aten, packet), overload or "default")


def _would_write_into_an_empty_tensor(name: str) -> bool:
    """Tell whether PyTorch composes an operator of its form with `out`, whose memory cannot grow here."""
    packet = name.removeprefix("aten::").partition(".")[0]
    if packet in _BY_ITSELF or packet.startswith("empty"):
        return False
    has_kernel = partial(torch._C._dispatch_has_kernel_for_dispatch_key, name)
    structured = has_kernel("CompositeExplicitAutogradNonFunctional")
    if not structured and not has_kernel("CompositeExplicitAutograd"):
        return False
    forms = getattr(torch.ops.aten, packet)
    takes_out = any(each.is_out for form in forms.overloads() for each in getattr(forms, form)._schema.arguments)
    if not structured and not takes_out:
        return False
    arguments = _find_operator(name)._schema.arguments
    placed = any("Tensor" in str(argument.type) or argument.name == "device" for argument in arguments)
    return placed and not any(argument.alias_info and argument.alias_info.is_write for argument in arguments)


def _is_here(value: object) -> bool:
    return isinstance(value, Tensor) and value.device.type == NAME


def _move(tensor: Tensor, device: int) -> Tensor:
    """Return a tensor of another device with the same memory."""
    capsule = torch._C._to_dlpack(tensor.detach().resolve_conj())
    get_pointer = ctypes.pythonapi.PyCapsule_GetPointer
    get_pointer.restype, get_pointer.argtypes = ctypes.c_void_p, [ctypes.py_object, ctypes.c_char_p]
    address = get_pointer(capsule, b"dltensor")
    ctypes.c_int32.from_address(address + _TYPE).value = device
    ctypes.c_int32.from_address(address + _INDEX).value = 0
    return torch._C._from_dlpack(capsule)


def _hand_on(operator: Any, *args: Any, **kwargs: Any) -> Any:
    """Let the CPU compute an operator."""
    leaves = tree_leaves((args, kwargs))
    _refuse_two_devices(operator, [leaf for leaf in leaves if isinstance(leaf, Tensor)])
    devices = [torch.device(leaf) for leaf in (*args, kwargs.get("device")) if isinstance(leaf, torch.device)]
    leaves_here = any(device.type != NAME for device in devices)
    moved: dict[int, tuple[Tensor, Tensor]] = {}

    def enter(value: Any) -> Any:
        if _is_here(value):
            tensor = _move(value, _CPU)
            moved[id(tensor)] = tensor, value
            return tensor
        return torch.device("cpu") if isinstance(value, torch.device) else value

    def leave(value: Any) -> Any:
        if not isinstance(value, Tensor) or any(value is leaf for leaf in leaves):
            return value
        # What was written into is given back.
        return moved[id(value)][1] if id(value) in moved else value if leaves_here else _move(value, _OTHER)

    inner_args, inner_kwargs = tree_map(enter, (args, kwargs))
    with torch.no_grad():
        return tree_map(leave, operator(*inner_args, **inner_kwargs))


def _refuse_two_devices(operator: Any, tensors: list[Tensor]) -> None:
    if operator._schema.name.removeprefix("aten::") in _MIXING or not any(map(_is_here, tensors)):
        return
    # A number goes with every device.
    if any(not _is_here(tensor) and tensor.dim() for tensor in tensors):
        raise RuntimeError(f"{operator}: all tensors must be on one device, but some are on {NAME}, some on the CPU.")


def _copy_from(source: Tensor, target: Tensor, non_blocking: bool = False) -> Tensor:
    values = _move(source, _CPU) if _is_here(source) else source
    (_move(target, _CPU) if _is_here(target) else target).copy_(values)
    return target


def _convolve_back(grad: Tensor, inputs: Tensor, weight: Tensor, *settings: Any) -> Any:
    *geometry, mask = settings
    biases = [weight.shape[0]] if mask[2] else None
    return _hand_on(torch.ops.aten.convolution_backward.default, grad, inputs, weight, biases, *geometry, mask)


def _copy_plainly() -> None:
    """Let copies of a module have tensors of this device: PyTorch would ask the device for memory."""
    copy_tensor = Tensor.__deepcopy__

    def deepcopy(tensor: Tensor, memo: dict[int, Any]) -> Tensor:
        if not _is_here(tensor):
            return copy_tensor(tensor, memo)
        return memo.setdefault(id(tensor), tensor.detach().clone().requires_grad_(tensor.requires_grad))

    Tensor.__deepcopy__ = deepcopy
