"""The page, drawn with Gradio: the form beside what it leads to, and under both the runs so far."""

from __future__ import annotations

import json
from collections.abc import Mapping
from importlib import resources
from typing import Any

import gradio as gr

from whyfooled.app import views
from whyfooled.app.desk import Desk, look_at
from whyfooled.app.form import draw_form, read_form
from whyfooled.app.parts import PARTS
from whyfooled.app.request import FIELDS
from whyfooled.app.runs import delete_run, find_run, list_runs
from whyfooled.errors import WhyfooledError
from whyfooled.running.memory import give_back_freed_memory

_OFTEN, _SELDOM = 1.0, 3.0
"""Seconds between two looks at a job that runs, and at one that waits: many may wait at once."""
_CLICKED = """
element.addEventListener("click", (event) => {
  const run = event.target.closest("[data-run]");
  if (run) trigger("click", { run: run.dataset.run });
});
"""
_SHOW_FOUND = """() => {
  const behavior = matchMedia("(prefers-reduced-motion: reduce)").matches ? "instant" : "smooth";
  document.getElementById("wf-found").scrollIntoView({ behavior, block: "start" });
}"""
# On a narrow page what is found stands below the form, and on a wide one a long form is scrolled past it.
_SHOW_FOUND_OUT_OF_SIGHT = f"""() => {{
  const top = document.getElementById("wf-found").getBoundingClientRect().top;
  if (top < 0 || top > innerHeight / 2) ({_SHOW_FOUND})();
}}"""
# The tab itself holds which job is its own, and finds it again when it is loaded anew.
_KEEP_JOB = "(job) => { sessionStorage.setItem('whyfooled-job', job || ''); }"
_FIND_JOB = "() => [sessionStorage.getItem('whyfooled-job') || '']"
# A report has an address of its own: loaded anew, it is shown again.
_KEEP_ADDRESS = (
    "(run) => { history.replaceState(null, '', run ? '?run=' + encodeURIComponent(run) : location.pathname); }"
)
_ASK_TO_DELETE = "(run) => confirm(`Delete ${run}, with all its files?`) ? run : ''"
# So with what is set in the form, as long as it is the same form: a file has to be dropped again.
_KEEP_SETTINGS = "(...settings) => { sessionStorage.setItem('whyfooled-settings', JSON.stringify([FORM, settings])); }"
_FIND_SETTINGS = """(...settings) => {
  const [form, kept] = JSON.parse(sessionStorage.getItem("whyfooled-settings") || "[]");
  return form === FORM ? kept : settings;
}"""
_PRIVATE: dict[str, Any] = {"api_visibility": "private", "show_progress": "hidden", "concurrency_limit": None}


def read_asset(name: str) -> str:
    """Read a style sheet or a script of the page."""
    return resources.files("whyfooled.app").joinpath("assets", name).read_text(encoding="utf-8")


def make_theme() -> Any:
    """Make the theme: the colours of the reports, and no letters that would have to be fetched."""
    return gr.themes.Base(
        primary_hue="blue",
        neutral_hue="slate",
        font=["system-ui", "-apple-system", "Segoe UI", "Roboto", "Arial", "sans-serif"],
        font_mono=["ui-monospace", "Menlo", "Consolas", "monospace"],
    )


def draw_page(desk: Desk, words: Mapping[str, str]) -> gr.Blocks:
    """Draw the page, and say what happens on it.

    Parameters
    ----------
    desk
        What the page works with.
    words
        What the command line says of each option of ``whyfooled explain``, by their parameters' names.
    """
    with gr.Blocks(title="whyfooled", analytics_enabled=False) as page:
        gr.HTML(views.show_header(desk.output))
        with gr.Row(elem_id="wf-both"):
            with gr.Column(scale=2, min_width=300, elem_id="wf-form"):
                fields, preview, go = draw_form(desk.started, words)
            with gr.Column(scale=5, min_width=300, elem_id="wf-found"):
                components = _draw_found()
        past = gr.HTML(js_on_load=_CLICKED, elem_id="wf-past")
        components |= {
            "past": past,
            "classes": gr.HTML(views.show_classes(()), elem_id="wf-classes-held"),
            "job": gr.Textbox(visible=False),
            "shown": gr.Textbox(visible=False),
            "timer": gr.Timer(_OFTEN, active=False),
        }
        _connect(page, desk, fields, preview, go, components)
    return page


def _draw_found() -> dict[str, Any]:
    """Draw what the form leads to: a job, and then its report."""
    components: dict[str, Any] = {"mistake": gr.HTML(elem_id="wf-mistake")}
    components["status"] = gr.HTML(views.show_welcome(), elem_id="wf-status")
    components["stop"] = gr.Button("Stop", visible=False, elem_id="wf-stop")
    with gr.Column(visible=False) as components["result"]:
        components["heading"] = gr.HTML()
        with gr.Tabs():
            for part in PARTS:
                with gr.Tab(part.title, render_children=True):
                    components[part.name] = gr.HTML()
            with gr.Tab("Pictures", render_children=True):
                components["pictures"] = gr.HTML()
        components["command"] = gr.Textbox(
            label="The same on the command line, in the photograph's folder",
            interactive=False,
            buttons=["copy"],
            elem_id="wf-command",
        )
        components["delete"] = gr.Button("Delete this run", size="sm", elem_id="wf-delete")
    return components


def _connect(page: Any, desk: Desk, fields: dict[str, Any], preview: Any, go: Any, components: dict[str, Any]) -> None:
    """Say what each event leads to."""
    everything = list(components.values())
    newest: dict[str, str] = {}
    """The last job of each visit: a look that was asked for before it began is a look at it all the same."""

    def begin(request: gr.Request, before: str | None, *values: object) -> dict[Any, Any]:
        try:
            job = desk.take(read_form(dict(zip(fields, values, strict=True))))
        except WhyfooledError as error:
            last = desk.jobs.find(before)
            # What became of the last try is no answer to this one.
            gone = {components["status"]: "", components["job"]: ""} if last is not None and last.is_over else {}
            return {components["mistake"]: views.show_mistake(str(error)), **gone}
        newest[str(request.session_hash)] = job.identity
        return {
            components["mistake"]: "",
            components["past"]: views.show_runs(list_runs(desk.output), desk.output),
            components["job"]: job.identity,
            components["shown"]: "",
            components["result"]: gr.Column(visible=False),
            **_show_standing(desk, components, job.identity),
        }

    def look(job: str | None, request: gr.Request) -> dict[Any, Any]:
        return _show_standing(desk, components, newest.get(str(request.session_hash), job) if job else job)

    def stop(job: str | None) -> dict[Any, Any]:
        desk.jobs.stop(job)
        return _show_standing(desk, components, job)

    def open_page(job: str, request: gr.Request) -> dict[Any, Any]:
        named = request.query_params.get("run")
        if named is not None:
            return _show_run(desk, components, named)
        past = {components["past"]: views.show_runs(list_runs(desk.output), desk.output)}
        if desk.jobs.find(job) is None:
            return past
        return {**past, components["job"]: job, **_show_standing(desk, components, job)}

    def open_run(event: gr.EventData) -> dict[Any, Any]:
        return _show_run(desk, components, str(event.run))

    def delete(run: str | None) -> dict[Any, Any]:
        if not run:
            return {}
        delete_run(desk.output, run)
        return {
            components["past"]: views.show_runs(list_runs(desk.output), desk.output),
            components["shown"]: "",
            components["result"]: gr.Column(visible=False),
            components["status"]: views.show_welcome(),
        }

    def close_page(request: gr.Request) -> None:
        visit = str(request.session_hash)
        desk.uploads.leave(visit)
        newest.pop(visit, None)
        _forget_visit(page, visit)
        give_back_freed_memory()

    # What was said of the last try is gone at once, whatever becomes of this one.
    go.click(None, None, components["mistake"], js="() => ''")
    go.click(begin, [components["job"], *fields.values()], everything, **_PRIVATE)
    go.click(None, js=_SHOW_FOUND_OUT_OF_SIGHT)
    components["timer"].tick(look, components["job"], everything, **_PRIVATE)
    components["stop"].click(stop, components["job"], everything, **_PRIVATE)
    components["past"].click(open_run, None, everything, **_PRIVATE)
    components["past"].click(None, js=_SHOW_FOUND)
    components["job"].change(None, components["job"], js=_KEEP_JOB)
    components["shown"].change(None, components["shown"], js=_KEEP_ADDRESS)
    components["delete"].click(delete, components["shown"], everything, js=_ASK_TO_DELETE, **_PRIVATE)
    page.load(open_page, components["job"], everything, js=_FIND_JOB, **_PRIVATE)
    page.unload(close_page)
    for field in FIELDS:
        if field.kind == "file":
            _hold(desk, fields[field.name], field.name)
    gr.on(
        [fields["target"].focus, fields["label"].focus],
        lambda model: views.show_classes(desk.classes.find(str(model or desk.started.model).strip())),
        fields["model"],
        components["classes"],
        # Another model may have been chosen while the first was asked.
        trigger_mode="always_last",
        **_PRIVATE,
    )
    _keep_settings(page, desk.started.model, fields)
    # One photograph is decoded at a time: they may be large.
    fields["images"].change(
        lambda file: views.show_photograph(look_at(file)),
        fields["images"],
        preview,
        **_PRIVATE | {"concurrency_limit": 1},
    )


def _keep_settings(page: gr.Blocks, model: str, fields: Mapping[str, Any]) -> None:
    """Let a tab hold what is set in its form, for when it is loaded anew."""
    settable = {field.name: fields[field.name] for field in FIELDS if field.kind != "file"}
    form = json.dumps(json.dumps([model, *settable]))
    everything = list(settable.values())
    # Not at its input: what is pasted is heard of then before it is the field's value.
    gr.on(
        [setting.change for setting in everything],
        None,
        everything,
        js=_KEEP_SETTINGS.replace("FORM", form),
    )
    page.load(None, everything, everything, js=_FIND_SETTINGS.replace("FORM", form))


def _forget_visit(page: gr.Blocks, visit: str) -> None:
    """Drop what Gradio holds of a visit: all that it was shown, else kept for as long as the server runs."""
    page.state_holder.session_data.pop(visit, None)
    page.state_holder.time_last_used.pop(visit, None)


def _hold(desk: Desk, component: Any, name: str) -> None:
    """Keep what is dropped in a field until it is replaced, taken out, or the page is closed."""

    def hold(file: str | None, request: gr.Request) -> None:
        desk.uploads.hold(str(request.session_hash), name, file)

    component.change(hold, component, None, **_PRIVATE)


def _show_standing(desk: Desk, components: dict[str, Any], identity: str | None) -> dict[Any, Any]:
    """Show how a job stands; its report, if it is done."""
    job = desk.jobs.find(identity)
    if job is None:
        return {components["timer"]: gr.Timer(active=False), components["stop"]: gr.Button(visible=False)}
    if job.state == "done":
        return _show_run(desk, components, job.run)
    return {
        components["status"]: views.show_job(job, desk.jobs.count_before(job)),
        components["stop"]: gr.Button(visible=not job.is_over and not job.stopping),
        components["timer"]: gr.Timer(_SELDOM if job.state == "waiting" else _OFTEN, active=not job.is_over),
    }


def _show_run(desk: Desk, components: dict[str, Any], name: str) -> dict[Any, Any]:
    """Show a run's report in place of whatever was shown."""
    run = find_run(desk.output, name)
    shown = {
        components["mistake"]: "",
        components["past"]: views.show_runs(list_runs(desk.output), desk.output, name),
        components["timer"]: gr.Timer(active=False),
        components["stop"]: gr.Button(visible=False),
        components["job"]: "",
    }
    if run is None:
        return {
            **shown,
            components["status"]: views.show_mistake(f"There is no report of a run called {name!r} any more."),
        }
    parts = dict(zip((part.name for part in PARTS), views.show_parts(desk.output, run), strict=True))
    return {
        **shown,
        components["status"]: "",
        components["shown"]: name,
        components["result"]: gr.Column(visible=True),
        components["heading"]: views.show_heading(run),
        components["pictures"]: views.show_pictures(run),
        components["command"]: gr.Textbox(value=run.command, visible=bool(run.command)),
        **{components[part]: content for part, content in parts.items()},
    }
