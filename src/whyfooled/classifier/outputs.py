"""What a model gives, brought to one row of logits for each image, of two classes at least.

A model of one logit z, which is trained so that ``sigmoid(z)`` is the probability of class 1, has the two logits −z/2
(class 0, the negative one) and z/2 (class 1, the positive one). Their softmax gives the same two probabilities, their
difference is z, and each class has a gradient.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import torch.nn.functional as F
from torch import Tensor

from whyfooled.classifier.calling import quote
from whyfooled.errors import ModelError, WhyfooledError, bad_parameter

Output = str | int | Callable[[Any], Tensor]
"""Where a model's logits are in what it gives: a key or an attribute, a place in a tuple, or a function of it."""

_LOGITS = "logits"
_ONE_LOGIT_WEIGHTS = (-0.5, 0.5)


def check_output_choice(output: object) -> None:
    """Raise `ParameterError` for anything but None, a name, a place or a function."""
    if output is None or callable(output) or (isinstance(output, str | int) and not isinstance(output, bool)):
        return
    rule = "must say where the logits are in what the model gives: a name, a place in a tuple, or a function"
    raise bad_parameter("output", rule, repr(output))


def pick_logits(output: Any, choice: Output | None) -> Tensor:
    """Find the tensor of logits in what a module gave.

    Parameters
    ----------
    output
        What it gave.
    choice
        Where the logits are in it; if None, they are all of it, or what it calls ``logits``.

    Raises
    ------
    ModelError
        If there is no such thing, or it is no tensor.
    """
    if choice is None:
        named = output if isinstance(output, Tensor) else _find_named(output, _LOGITS)
        if isinstance(named, Tensor):
            return named
        raise ModelError(
            f"The model must return one tensor of logits; got {describe_answer(output)}. {_advise_choice(output)}"
        )
    picked = _pick(output, choice)
    if not isinstance(picked, Tensor):
        raise ModelError(
            f"`output` must lead to one tensor of logits; {_name_choice(choice)} of what the model returned is "
            f"{describe_answer(picked)}. {_say_what_there_is(output)}"
        )
    return picked


def _pick(output: Any, choice: Output) -> Any:
    if callable(choice):
        try:
            return choice(output)
        except WhyfooledError:
            raise
        except Exception as error:  # whatever a user's function stumbles over
            raise ModelError(
                f"The function `output` failed on what the model returned: {quote(error)}. {_say_what_there_is(output)}"
            ) from error
    if isinstance(choice, str):
        named = _find_named(output, choice)
        if named is not None:
            return named
    elif not isinstance(output, Tensor):
        try:
            return output[choice]
        except (LookupError, TypeError):
            pass
    raise ModelError(f"`output` must be in what the model returns; got {choice!r}. {_say_what_there_is(output)}")


def _find_named(output: Any, name: str) -> Any:
    if isinstance(output, Mapping):
        return output.get(name)
    return None if isinstance(output, Tensor) else getattr(output, name, None)


def _name_choice(choice: Output) -> str:
    return "what it makes" if callable(choice) else repr(choice)


def _say_what_there_is(output: Any) -> str:
    return f"The model returned {describe_answer(output)}."


def describe_answer(output: Any, most: int = 5) -> str:
    """Say what a model returned, in a few words: what is in a tuple or a dictionary, and of which shape."""
    if isinstance(output, Tensor):
        return f"a tensor {tuple(output.shape)}"
    kind = type(output).__name__
    if isinstance(output, Mapping):
        parts = [f"{key!r}: {_describe_part(value)}" for key, value in list(output.items())[:most]]
    elif isinstance(output, tuple | list):
        parts = [f"{place}: {_describe_part(value)}" for place, value in enumerate(output[:most])]
    else:
        return kind
    more = f" and {len(output) - most} more" if len(output) > most else ""
    return f"{kind} with {', '.join(parts) or 'nothing in it'}{more}"


def _describe_part(value: Any) -> str:
    return f"a tensor {tuple(value.shape)}" if isinstance(value, Tensor) else type(value).__name__


def _advise_choice(output: Any) -> str:
    """Say how to name the logits in what a model returned: with the first thing in it that may be some."""
    places: list[Any] = []
    if isinstance(output, Mapping):
        places = list(output)
    elif isinstance(output, tuple | list):
        places = list(range(len(output)))
    of_logits = [place for place in places if isinstance(output[place], Tensor) and output[place].ndim == 2]
    if not of_logits:
        return (
            "Say where the logits are, such as Classifier(module, output=lambda answer: answer.scores), or wrap it in "
            "a module that returns the logits alone."
        )
    return f"Say where the logits are, such as Classifier(module, output={of_logits[0]!r})."


def as_rows(logits: Tensor, count: int) -> Tensor:
    """Bring logits to (n,m), a row for each image; (n,) is one logit each, and places of a side of 1 are left out.

    Raises
    ------
    ModelError
        If they have another shape, or are no floating-point numbers.
    """
    rows = logits.flatten(1) if logits.ndim > 2 and set(logits.shape[2:]) == {1} else logits
    rows = rows.unsqueeze(1) if rows.ndim == 1 else rows
    if rows.ndim != 2 or len(rows) != count or not rows.shape[1]:
        raise ModelError(
            f"The model must return logits of the shape (n, classes) for n={count} images, or (n, 1) for two classes; "
            f"got {tuple(logits.shape)}."
        )
    if not rows.is_floating_point():
        raise ModelError(
            f"The model must return logits as floating-point numbers; got {logits.dtype}. Return what it has before it "
            "rounds them or chooses a class; of complex numbers, their real part or their size."
        )
    return rows


def to_two_logits(rows: Tensor, label: int | None = None) -> Tensor:
    """Turn one logit z for each image, (n,1) or a label's, into (n,2): −z/2 and z/2; leave more as they are."""
    if label is not None and rows.shape[1] == 1:
        raise ModelError(
            "A model of several labels must give a logit for each; this one gives one logit for an image, which is two "
            "classes already. Leave out several_labels, on the command line --several-labels and --ask."
        )
    asked = rows if label is None else rows[:, label : label + 1]
    return asked * rows.new_tensor(_ONE_LOGIT_WEIGHTS) if asked.shape[1] == 1 else asked


def log_probabilities(logits: Tensor, *, several_labels: bool) -> Tensor:
    """Return the logarithms of the probabilities (…,m) of classes of which one is right, or of each label by itself."""
    return F.logsigmoid(logits) if several_labels else logits.log_softmax(-1)
