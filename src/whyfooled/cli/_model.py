"""The options that say which model, what it takes and what its classes are: the same for every command."""

from __future__ import annotations

import functools
import inspect
from collections.abc import Callable
from dataclasses import dataclass, fields
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, cast

import typer

from whyfooled.cli._app import whole_number
from whyfooled.errors import at_least, bad_parameter, one_of

if TYPE_CHECKING:
    from whyfooled.classifier import Classifier
    from whyfooled.classifier.inputs import InputFormat
    from whyfooled.running.engines import ModelRecipe


@dataclass(frozen=True)
class ModelOptions:
    """What the options said of the model, as it was written."""

    model: str = "lite0"
    weights: str | None = None
    float32: bool = False
    num_classes: int | None = None
    class_names: Path | None = None
    mean: str | None = None
    std: str | None = None
    channels: str = "rgb"
    layout: str | None = None
    input_scale: str | None = None
    size: str | None = None
    shorter_side: int | None = None
    squash: bool = False
    interpolation: str | None = None
    model_output: str | None = None
    several_labels: bool = False
    ask: str | None = None

    def recipe(self, seed: int) -> ModelRecipe:
        """Return how to load it, wherever that is done."""
        from whyfooled.classifier.names import read_class_list
        from whyfooled.running.engines import ModelRecipe

        if self.shorter_side is not None:
            at_least("--shorter-side", self.shorter_side, 1)
        names = None if self.class_names is None else read_class_list(self.class_names, "--class-names")
        return ModelRecipe(
            self.model,
            self.weights,
            seed,
            self.float32,
            names,
            self.num_classes,
            self._read_inputs(),
            output=_read_output(self.model_output),
            shorter_side=self.shorter_side,
            squash=self.squash,
            interpolation=self.interpolation,
            several_labels=self.several_labels,
            ask=self.ask,
        )

    def write(self) -> str:
        """Write what was said, as on the command line, but for the folders of files; "" where nothing was."""
        import shlex

        from whyfooled.running.publishing import hide_folders

        words: list[str] = []
        for option in fields(self):
            value = getattr(self, option.name)
            if value != option.default:
                words.append(f"--{option.name.replace('_', '-')}")
                words += [] if value is True else [hide_folders(str(value))]
        return shlex.join(words)

    def load(self, device: str, seed: int) -> Classifier:
        """Load it onto a device."""
        return self.recipe(seed).load(device)

    def _read_inputs(self) -> InputFormat:
        from whyfooled.classifier.inputs import CHANNELS, LAYOUTS, Channels, InputFormat, Layout
        from whyfooled.registry import number

        one_of("--channels", self.channels, CHANNELS)
        if self.layout is not None:
            one_of("--layout", self.layout, LAYOUTS)
        return InputFormat(
            mean=_read_numbers("--mean", self.mean),
            std=_read_numbers("--std", self.std),
            channels=cast(Channels, self.channels),
            layout=cast(Layout | None, self.layout),
            scale=1.0 if self.input_scale is None else number("--input-scale", self.input_scale),
            size=_read_size(self.size),
        )


LITE0 = ModelOptions()
"""The bundled model."""


def _read_numbers(option: str, text: str | None) -> tuple[float, ...] | None:
    from whyfooled.registry import number

    return None if text is None else tuple(number(option, part) for part in text.split(","))


def _read_output(text: str | None) -> str | int | None:
    return int(text) if text is not None and text.isdecimal() and len(text) < 10 else text


def _read_size(text: str | None) -> tuple[int, ...] | None:
    if text is None:
        return None
    sides = text.lower().replace("x", ",").replace("×", ",").split(",")
    if len(sides) > 2 or not all(side.strip().isdecimal() and len(side) < 10 for side in sides):
        raise bad_parameter("--size", "must be a number of pixels, or two: height x width", repr(text))
    return tuple(map(int, sides))


_OPTIONS: dict[str, Any] = {
    "model": Annotated[
        str,
        typer.Option(
            help="lite0 (bundled), lite1, lite2, torchvision:NAME, timm:NAME, hf:FOLDER, onnx:FILE, or your own: "
            "path/to/file.py:factory or 'path/to/file.py:Net(depth=3)'."
        ),
    ],
    "weights": Annotated[
        str | None, typer.Option(help="A file with the model's state dict, or 'random' for the untrained model.")
    ],
    "float32": Annotated[
        bool, typer.Option("--float32", help="Run a model of half or double precision in single precision, on a copy.")
    ],
    "num_classes": Annotated[
        int | None,
        whole_number(
            help="How many classes there are, where model and weights do not tell; without weights, with an untrained "
            "head."
        ),
    ],
    "class_names": Annotated[
        Path | None,
        typer.Option(
            help="A file with the names of the classes: a line for each, the first for class 0; or JSON. One is enough "
            "for two classes."
        ),
    ],
    "mean": Annotated[
        str | None,
        typer.Option(help="What your own model's input is centred at: a number, or one for each channel: 0.5,0.5,0.4."),
    ],
    "std": Annotated[str | None, typer.Option(help="What your own model's input is divided by, as --mean.")],
    "channels": Annotated[str, typer.Option(help="What your own model takes: rgb, bgr or grey.")],
    "layout": Annotated[
        str | None,
        typer.Option(
            help="The order of axes that your own model takes: nchw, or nhwc; an ONNX file says it.",
            show_default="nchw",
        ),
    ],
    "input_scale": Annotated[
        str | None,
        typer.Option(help="The value of white that your own model takes, and --mean and --std are for: 1 or 255."),
    ],
    "size": Annotated[
        str | None,
        typer.Option(
            help="Height and width of your own model's input, in pixels: 224, or 224x320; an ONNX file may say it.",
            show_default="224",
        ),
    ],
    "shorter_side": Annotated[
        int | None,
        whole_number(
            help="The length of a photograph's shorter side, in pixels, before the centre is cut out; with --squash, "
            "of both sides."
        ),
    ],
    "squash": Annotated[
        bool,
        typer.Option(
            "--squash",
            help="Squash the whole photograph into the model's input, as published dissections do, in place of the "
            "model's own cut-out.",
        ),
    ],
    "interpolation": Annotated[
        str | None, typer.Option(help="How photographs are resized: nearest, bilinear, bicubic or lanczos.")
    ],
    "model_output": Annotated[
        str | None, typer.Option(help="Where the logits are, if the model gives several things: a name, or a place.")
    ],
    "several_labels": Annotated[
        bool, typer.Option("--several-labels", help="Each output is a label, which is on or off by itself.")
    ],
    "ask": Annotated[
        str | None, typer.Option(help="The one of several labels that is asked about: it, or its absence.")
    ],
}


def takes_model(command: Callable[..., None]) -> Callable[..., None]:
    """Give a command the options of `ModelOptions` in place of its parameter ``model``, which gets what they said."""
    signature = inspect.signature(command, eval_str=True)
    parameters: list[inspect.Parameter] = []
    for parameter in signature.parameters.values():
        if parameter.name == "model":
            parameters += [
                inspect.Parameter(
                    name, parameter.kind, default=getattr(LITE0, name), annotation=_spell(name, signature)
                )
                for name in _OPTIONS
            ]
        else:
            parameters.append(parameter)

    @functools.wraps(command)
    def run(**given: Any) -> None:
        options = ModelOptions(**{name: given.pop(name) for name in _OPTIONS})
        command(model=options, **given)

    run.__signature__ = signature.replace(parameters=parameters)  # type: ignore[attr-defined]
    run.__annotations__ = {parameter.name: parameter.annotation for parameter in parameters}
    return run


def _spell(name: str, signature: inspect.Signature) -> Any:
    """Return an option; the scale is called ``--scale`` too, where the command has no other one."""
    if name != "input_scale":
        return _OPTIONS[name]
    spellings = ["--input-scale"] if "scale" in signature.parameters else ["--input-scale", "--scale"]
    kind, option = _OPTIONS[name].__origin__, _OPTIONS[name].__metadata__[0]
    return Annotated[kind, typer.Option(*spellings, help=option.help, show_default="1")]


def describe_run(model: ModelOptions) -> dict[str, str]:
    """Return what a report says of how it was made on the command line: the command, and how the model was given."""
    from whyfooled.cli._app import write_command
    from whyfooled.explanations.report.verdict import MODEL_OPTIONS

    given = model.write()
    return {"command": write_command(), **({MODEL_OPTIONS: given} if given else {})}
