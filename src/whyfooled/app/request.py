"""What a visitor may set, and how that becomes the arguments of ``whyfooled explain``.

`FIELDS` has every option of the command that the page offers. The others are said when the page is started, as every
option of a model can be. The command line's own words describe them.
"""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal, final

from whyfooled.errors import ParameterError, bad_parameter

Kind = Literal["file", "text", "names", "switch", "either"]


@final
@dataclass(frozen=True)
class Field:
    """One setting of the page.

    Parameters
    ----------
    name
        The parameter of ``whyfooled explain``.
    label
        What the page calls it.
    kind
        ``"file"`` is dropped, ``"text"`` typed or chosen, ``"names"`` are several, ``"switch"`` is an option without a
        value, and ``"either"`` one that can be said to be so or not to be so.
    about
        What the page says of it, where the command line's words are about what the page has not.
    """

    name: str
    label: str
    kind: Kind
    about: str | None = None

    @property
    def option(self) -> str:
        """What the command line calls it."""
        return f"--{self.name.replace('_', '-')}"


FIELDS = (
    Field("images", "Photograph", "file"),
    Field("attack", "Attack", "text", "Choose one, or type it with settings: pgd(steps=40, epsilon=4/255)."),
    Field("target", "To be taken for", "text"),
    Field("methods", "Saliency methods", "names", "Shown beside the enhanced map; the usual four if left empty."),
    Field("model", "Model", "text", "Or type torchvision:NAME or timm:NAME, whose weights are fetched at first use."),
    Field("adversarial", "Adversarial image made elsewhere", "file"),
    Field("label", "True class", "text"),
    Field("epsilon", "Radius of the attack", "text"),
    Field("steps", "Steps of the attack", "text"),
    Field(
        "checks",
        "Check whether the maps are stable",
        "either",
        "See whether each map stays the same under noise and other seeds, and depends on the weights. Left as it is, "
        "this is done where it takes at most a fifth of the other work; “yes” does it always, and runs an attack with "
        "a seed once more.",
    ),
    Field("forge", "Try to forge the explanation", "switch", "Could its map look as if there were no attack?"),
    Field("regions", "Label map", "file"),
    Field("names", "Names of its labels", "file"),
    Field("attack_in", "Attack in this region alone", "text"),
    Field(
        "trust",
        "Universal perturbation",
        "file",
        "A file that whyfooled universal fit wrote: see how much it changes the photograph's maps.",
    ),
    Field("resize", "Bring it to the model's size", "switch"),
    Field("weights", "Weights of the model", "file", "A file with the model's state dict: .safetensors or .pt."),
    Field("class_names", "Names of the classes", "file"),
    Field("figures", "Figures for a paper", "text"),
    Field("seed", "Seed", "text"),
)
"""What a visitor may set, in the order of the page."""

LIBRARIES = ("torchvision:", "timm:")
"""How the names of models begin that a visitor may type: no file and no folder of this machine is named by them."""

USUAL_MODEL = "lite0"
"""The model of the command line where none is named."""

_LONGEST = 2000
"""Characters of a text that is typed. [ours]"""


@final
@dataclass(frozen=True)
class Started:
    """What was said when the page was started.

    Parameters
    ----------
    model
        The model that is explained if no other is chosen.
    model_arguments
        The options that say what this model is, as its input's mean.
    arguments
        The options of every job, such as the device.
    models
        The models that may be chosen by name alone.
    dissection
        The options of every job with this model, as its dissection.
    """

    model: str = USUAL_MODEL
    model_arguments: tuple[str, ...] = ()
    arguments: tuple[str, ...] = ()
    models: tuple[str, ...] = ()
    dissection: tuple[str, ...] = ()


_OPTION = re.compile(r"whyfooled \w+(?: --[\w-]+ \S+)*|([`']?)--([a-z][a-z-]*)\1")
"""A command with its options, which stays as it is, or an option, perhaps in quotation marks."""


def name_by_labels(text: str) -> str:
    """Say in the page's words what the command line says of its options: “Seed” for ``--seed``."""
    labels = {field.name.replace("_", "-"): f"“{field.label}”" for field in FIELDS}
    return _OPTION.sub(lambda found: labels.get(found[2], found[0]), text)


def write_arguments(values: Mapping[str, object], started: Started) -> list[str]:
    """Write what a visitor set as arguments of ``whyfooled explain``, but for the folder to write.

    Parameters
    ----------
    values
        For each field what was set: a path, a text, a list of texts, or True, None where the choice is left open. What
        is empty is not said, so that the command line's own defaults hold.
    started
        What was said when the page was started.

    Raises
    ------
    ParameterError
        If a text is no text that can be typed on a command line, or names a file of this machine.
    """
    given = {field: values.get(field.name) for field in FIELDS}
    arguments: list[str] = []
    for field, value in given.items():
        if field.name == "model":
            model = str(value or started.model).strip()
            arguments += [*write_model(model, started), *(started.dissection if model == started.model else ())]
        else:
            arguments += _write_argument(field, value)
    return [*arguments, *started.arguments]


def _write_argument(field: Field, value: object) -> list[str]:
    if value is None or value == "" or value == []:
        return []
    if field.kind == "switch":
        return [field.option] if value else []
    if field.kind == "either":
        return [field.option if value is True else f"--no-{field.name}"]
    if field.kind == "file":
        return [str(Path(str(value)))] if field.name == "images" else [field.option, str(value)]
    parts = value if isinstance(value, Sequence) and not isinstance(value, str) else [value]
    text = ",".join(check_text(field.option, str(part)) for part in parts)
    return [field.option, text] if text else []


def write_model(model: str, started: Started) -> list[str]:
    """Write the options that say which model it is; raise `ParameterError` if a visitor may not choose it."""
    option = "--model"
    check_text(option, model)
    if model == started.model:
        return [*([option, model] if model != USUAL_MODEL else []), *started.model_arguments]
    if model not in started.models and not model.startswith(LIBRARIES):
        raise bad_parameter(
            option,
            f"must be one of {', '.join(started.models)}, torchvision:NAME or timm:NAME on this page",
            repr(model),
            "A library's is written with its name before it, as torchvision:resnet50; one in a file or a folder is "
            "named when the page is started: whyfooled app --model FILE.py:NAME",
        )
    return [option, model]


def check_text(option: str, text: str) -> str:
    """Return a text without the blanks around it; raise `ParameterError` if it cannot stand on a command line."""
    if len(text) > _LONGEST:
        raise bad_parameter(option, f"must have at most {_LONGEST} characters", len(text))
    if any(unicodedata.category(sign) in ("Cc", "Cs") for sign in text):
        raise ParameterError(f"`{option}` must be one line of letters, numbers and signs; got {text[:40]!r}.")
    return text.strip()
