"""The form: a Gradio component for each field of `whyfooled.app.request`, described in the command line's own words."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from typing import Any

import gradio as gr

from whyfooled.app import views
from whyfooled.app.desk import look_at
from whyfooled.app.request import FIELDS, Field, Started, name_by_labels
from whyfooled.images.reading import TENSOR_SUFFIXES
from whyfooled.registry import EVERY, Kind, available, parameters

_FIRST = ("images", "attack", "target", "methods", "model")
"""What stands open; the adversarial image follows, folded, and then all the rest."""
_YES, _NO = "yes", "no"
_FORMATS = ("pdf", "svg", "png")


def draw_form(started: Started, words: Mapping[str, str]) -> tuple[dict[str, Any], Any, Any]:
    """Draw all fields, in the block that is open.

    Parameters
    ----------
    started
        What was said when the page was started.
    words
        What the command line says of each of its options, by their parameters' names.

    Returns
    -------
    tuple
        The components by the names of their fields, in the order of `FIELDS`, the place under the photograph where it
        is shown, and the button, which follows: what is below it need not be read.
    """
    fields = {field.name: field for field in FIELDS}
    drawn: dict[str, Any] = {}

    def draw(*names: str) -> None:
        for name in names:
            drawn[name] = _draw_field(fields[name], started, fields[name].about or name_by_labels(words[name]))

    draw("images")
    preview = gr.HTML(views.show_photograph(look_at(None)), elem_id="wf-photograph")
    button = gr.Button("Explain", variant="primary", size="lg", elem_id="wf-go")
    draw(*_FIRST[1:])
    with gr.Accordion("An adversarial image made elsewhere", open=False):
        gr.Markdown(
            f"In place of an attack: the tensor that fooled the model ({', '.join(TENSOR_SUFFIXES)}), or a picture. A "
            "file of `whyfooled attack` has the photograph too."
        )
        draw("adversarial")
    with gr.Accordion("More settings", open=False):
        for name in [name for name in fields if name not in drawn]:
            draw(name)
            if fields[name].kind == "file":
                # A place for files has no line of its own that could say what goes there.
                gr.HTML(views.show_about(fields[name].about or name_by_labels(words[name])))
    return {name: drawn[name] for name in fields}, preview, button


def read_form(values: Mapping[str, object]) -> dict[str, object]:
    """Turn what the components hold into what `whyfooled.app.request` takes."""
    kinds = {field.name: field.kind for field in FIELDS}
    return {name: _read_value(kinds[name], value) for name, value in values.items()}


def _read_value(kind: str, value: Any) -> object:
    if kind == "either":
        return {_YES: True, _NO: False}.get(str(value))
    # Enter keeps what was typed, though one method alone was left to choose.
    return [_complete(str(text)) for text in value or ()] if kind == "names" else value


def _complete(text: str) -> str:
    """Complete the beginning of a saliency method's name or title, if it is that of one alone."""
    known = _list_methods("saliency")
    begun = {name for title, name in known if any(word.lower().startswith(text.lower()) for word in (title, name))}
    return text if text in {name for _, name in known} or len(begun) != 1 else begun.pop()


def _draw_field(field: Field, started: Started, about: str) -> Any:
    choices = _list_choices(field.name, started)
    if field.kind == "file":
        return gr.File(label=field.label, height=110, elem_id=f"wf-{field.name}")
    if field.kind == "switch":
        return gr.Checkbox(label=field.label, info=about, elem_id=f"wf-{field.name}")
    if choices:
        several = field.kind == "names"
        return gr.Dropdown(
            choices,
            value=[] if several else choices[0][1],
            multiselect=several,
            allow_custom_value=field.name in ("attack", "model", "methods"),
            label=field.label,
            info=about,
            elem_id=f"wf-{field.name}",
        )
    return gr.Textbox(label=field.label, info=about, max_lines=1, elem_id=f"wf-{field.name}")


def _list_choices(name: str, started: Started) -> list[tuple[str, str]]:
    match name:
        case "attack":
            return [("The usual: Carlini-Wagner", ""), *_list_methods("attacks")]
        case "methods":
            return [("All of them", EVERY), *_list_methods("saliency")]
        case "model":
            return [(model, model) for model in dict.fromkeys((started.model, *started.models))]
        case "figures":
            return [("none", ""), *((kind, kind) for kind in _FORMATS)]
        case "checks":
            return [("where it takes little", ""), ("yes", _YES), ("no", _NO)]
    return []


def _list_methods(kind: Kind) -> list[tuple[str, str]]:
    return [
        (f"{method.card.title} ({name})", name)
        for name, method in available(kind).items()
        if dataclasses.MISSING not in parameters(method).values()
    ]
