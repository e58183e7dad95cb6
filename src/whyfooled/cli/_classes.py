"""``whyfooled classes``."""

from __future__ import annotations

from whyfooled.cli._app import Device, Seed, app, interruptible, plain_warnings, say
from whyfooled.cli._model import LITE0, ModelOptions, takes_model


@app.command()
@takes_model
@interruptible("Stopped.")
def classes(model: ModelOptions = LITE0, device: Device = "cpu", seed: Seed = 0) -> None:
    """List the names of a model's classes, a line for each, the first for class 0, as --class-names takes them."""
    with plain_warnings():
        names = model.load(device, seed).class_names
    if names is None:
        say(f"{model.model} does not say what its classes are called: use their numbers, or --class-names.")
    for name in names or ():
        print(name)
