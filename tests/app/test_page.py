"""The page in a real browser: from a drop to a report, what goes wrong, and what is left behind."""

import gc
import http.client
import io
import json
import os
import signal
import threading
import zipfile

import numpy as np
import pytest
from PIL import Image

from tests.helpers.page_checks import list_errors, list_live_barriers, needs_axe, needs_checker
from tests.helpers.page_server import PageServer, browser, needs_page, visit, wait_for
from whyfooled.app.classes import Classes
from whyfooled.app.desk import Desk
from whyfooled.app.jobs import Jobs
from whyfooled.app.keeper import Keeper
from whyfooled.app.page import read_asset
from whyfooled.app.request import FIELDS, Started
from whyfooled.app.server import NO_RECORD, make_application
from whyfooled.app.uploads import Uploads

pytestmark = needs_page

NAMES = ["cat", "dog", "red fox", "owl & <b>"]
PHOTOGRAPH = np.random.default_rng(0).integers(0, 255, (48, 64, 3), dtype=np.uint8)


@pytest.fixture(scope="module")
def chromium():
    with browser() as started:
        yield started


@pytest.fixture(scope="module")
def server(tmp_path_factory):
    folder = tmp_path_factory.mktemp("page")
    (folder / "names.txt").write_text("\n".join(NAMES))
    server = PageServer(folder, "--model", "models.py:Tiny", "--class-names", "names.txt")
    yield server
    assert server.end() == 143
    assert server.left_behind() == []


@pytest.fixture(scope="module")
def slow_server(tmp_path_factory):
    server = PageServer(tmp_path_factory.mktemp("slow"), "--model", "models.py:Slow")
    yield server
    server.end()


@pytest.fixture(scope="module")
def photograph(tmp_path_factory):
    path = tmp_path_factory.mktemp("photographs") / "a cat's.png"
    Image.fromarray(PHOTOGRAPH).save(path)
    return path


def test_a_photograph_becomes_a_report_by_parts(chromium, server, photograph, tmp_path):
    with visit(chromium, server) as visitor:
        visitor.drop("images", photograph)
        visitor.page.locator(".wf-photograph img").wait_for()
        visitor.choose("attack", "bim(steps=2, epsilon=0.9)")
        # The model names its classes while one is typed.
        target = visitor.page.locator("#wf-target input")
        target.focus()
        wait_for(lambda: target.evaluate("input => [...input.list.options].map(one => one.value)") == NAMES)
        visitor.explain()
        visitor.wait_for_report()
        page = visitor.page

        # The very files of the command line, and the command itself.
        (run,) = server.runs.iterdir()
        account = json.loads((run / "explanation.json").read_text())
        command = page.locator("#wf-command textarea").input_value()
        assert command == account["parameters"]["command"]
        assert command.startswith("whyfooled explain")
        assert "--attack 'bim(steps=2, epsilon=0.9)'" in command

        shown = {}
        for tab in ("Verdict", "Evidence", "Regions", "Trust"):
            page.get_by_role("tab", name=tab).click()
            frame = page.frame_locator(f"iframe[title={tab}]:visible")
            frame.locator("main").wait_for()
            shown[tab] = list(frame.locator("h2:visible").all_inner_texts())
        assert shown["Verdict"][0] == "What happened?"
        assert shown["Evidence"][0] == "What speaks for each class?"
        assert shown["Regions"] == ["Where does the perturbation act?"]
        page.get_by_role("tab", name="Units").click()
        assert "started with a dissection" in page.locator(".wf-missing:visible").inner_text()

        page.get_by_role("tab", name="Pictures").click()
        saving = page.get_by_role("link", name="Save: before")
        with page.expect_download() as downloaded:
            saving.click()
        downloaded.value.save_as(tmp_path / "clean.png")
        assert (tmp_path / "clean.png").read_bytes() == (run / "pictures" / "clean.png").read_bytes()
        assert page.locator(".wf-pictures a").count() == len(list((run / "pictures").iterdir()))

        # The folder of what was dropped is gone with the visit, and nobody's business.
        assert json.loads((run / "explanation.json").read_text())["parameters"]["image"] == photograph.name
        assert page.locator(f"[data-run='{run.name}']").count() == 1
        assert visitor.asked
        assert visitor.elsewhere(server.address) == []
    # The visit is over: nothing that was dropped is kept.
    wait_for(lambda: not server.uploaded())
    assert server.said == []


def test_a_past_run_is_opened_on_a_phone_in_the_dark(chromium, server):
    with visit(chromium, server, width=390, dark=True) as visitor:
        assert visitor.runs_off_by() == 0
        visitor.page.locator("[data-run]").click()
        visitor.wait_for_report()
        for tab in ("Verdict", "Evidence", "Regions", "Units", "Trust", "Pictures"):
            visitor.page.get_by_role("tab", name=tab).click()
            assert visitor.runs_off_by() == 0
        picture = Image.open(io.BytesIO(visitor.page.screenshot())).convert("L")
        assert np.asarray(picture).mean() < 90


@pytest.mark.parametrize("width", [1300, 390])
def test_what_to_do_is_in_sight(chromium, server, photograph, width):
    with visit(chromium, server, width=width) as visitor:

        def is_in_sight(found):
            return found.evaluate(
                "one => { const b = one.getBoundingClientRect(); return b.top >= 0 && b.bottom <= innerHeight }"
            )

        welcome = visitor.page.locator(".wf-welcome")
        welcome.wait_for()
        assert width < 900 or is_in_sight(welcome)
        assert is_in_sight(visitor.explain_button)
        visitor.drop("images", photograph)
        visitor.page.locator(".wf-photograph img").wait_for()
        assert is_in_sight(visitor.explain_button)
        # The button stays where the eyes are, in the form.
        visitor.page.get_by_role("button", name="More settings").scroll_into_view_if_needed()
        assert is_in_sight(visitor.explain_button)


def is_gradio_s_own(rule, element):
    """Whether it is the button that a file is dropped on, which is called otherwise than what stands on it."""
    return rule == "label-content-name-mismatch" and "upload-container" in element


@needs_axe
@pytest.mark.parametrize(("width", "dark"), [(1300, False), (390, True)])
def test_everyone_can_use_the_page(chromium, server, width, dark):
    with visit(chromium, server, width=width, dark=dark) as visitor:
        page = visitor.page

        def find_barriers():
            return [found for found in list_live_barriers(page) if not is_gradio_s_own(*found)]

        for folded in ("An adversarial image made elsewhere", "More settings"):
            page.get_by_role("button", name=folded).click()
        visitor.choose("model", "nonsense")
        visitor.explain()
        assert "must be one of" in visitor.wait_for_sentence()
        assert find_barriers() == []
        page.locator("[data-run]").first.click()
        visitor.wait_for_report()
        for tab in ("Verdict", "Units", "Pictures"):
            page.get_by_role("tab", name=tab).click()
            assert find_barriers() == []


@needs_checker
def test_what_is_written_on_the_page_is_valid(chromium, server, photograph, tmp_path):
    with visit(chromium, server) as visitor:
        visitor.drop("images", photograph)
        visitor.page.locator(".wf-photograph img").wait_for()
        written = visitor.page.locator(".html-container > div")
        welcome = written.evaluate_all("all => all.map(one => one.innerHTML)")
        visitor.page.locator("[data-run]").first.click()
        visitor.wait_for_report()
        report = written.evaluate_all("all => all.map(one => one.innerHTML)")
    assert "wf-welcome" in "".join(welcome)
    assert len(report) > len(welcome)
    pages = []
    for name, parts in (("welcome", welcome), ("report", report)):
        pages.append(tmp_path / f"{name}.html")
        head = f'<html lang="en"><head><title>{name}</title><style>{read_asset("page.css")}</style></head>'
        pages[-1].write_text(f"<!doctype html>{head}<body>{''.join(parts)}</body></html>")
    assert list_errors(*pages) == []


def test_what_becomes_of_a_click_is_in_sight_wherever_it_was(chromium, server, photograph):
    with visit(chromium, server) as visitor:
        visitor.drop("images", photograph)
        visitor.choose("attack", "fgsm(epsilon=7)")
        visitor.page.get_by_role("button", name="More settings").click()
        visitor.page.locator("#wf-weights").scroll_into_view_if_needed()
        wait_for(lambda: visitor.page.locator("#wf-found").bounding_box()["y"] < 0)
        visitor.explain()
        wait_for(lambda: visitor.page.locator("#wf-found").bounding_box()["y"] >= 0)
        visitor.wait_for_sentence()


@pytest.mark.parametrize(
    ("typed", "meant"),
    [
        ("integrated", "integrated-gradients"),
        ("Integrated g", "integrated-gradients"),
        ("guided", "guided"),
        ("grad", "grad"),
        ("enhanced(base=lrp)", "enhanced(base=lrp)"),
    ],
)
def test_a_method_is_completed_if_one_alone_is_left_to_choose(typed, meant):
    from whyfooled.app.form import read_form

    assert read_form({"methods": [typed], "checks": "no"}) == {"methods": [meant], "checks": False}


def test_a_report_has_the_room_that_it_needs(chromium, server):
    with visit(chromium, server, width=390) as visitor:
        visitor.page.locator("[data-run]").click()
        frame = visitor.page.frame_locator("iframe[title=Verdict]:visible")
        folded = frame.locator("main").evaluate("main => main.offsetHeight")
        wait_for(lambda: abs(visitor.page.locator("iframe:visible").bounding_box()["height"] - folded) <= 1)
        frame.locator("summary").first.press("Enter")
        frame.locator("details[open]").first.wait_for()
        unfolded = frame.locator("main").evaluate("main => main.offsetHeight")
        assert unfolded > folded + 50
        wait_for(lambda: abs(visitor.page.locator("iframe:visible").bounding_box()["height"] - unfolded) <= 1)


@pytest.mark.parametrize(
    ("name", "content", "sentence"),
    [("words.jpg", b"no picture", "is not an image of a known format"), ("half.png", None, "cannot be read")],
)
def test_a_bad_file_is_a_sentence(chromium, server, photograph, tmp_path, name, content, sentence):
    path = tmp_path / name
    path.write_bytes(photograph.read_bytes()[:200] if content is None else content)
    before = sorted(server.runs.iterdir())
    with visit(chromium, server) as visitor:
        visitor.drop("images", path)
        at_once = visitor.page.locator(".wf-photograph .wf-wrong")
        at_once.wait_for()
        assert sentence in at_once.inner_text()
        if content is not None:
            visitor.explain()
            said = visitor.wait_for_sentence()
            assert sentence in said
            assert "Traceback" not in said
            assert "/" not in said.replace(" / ", "")
    assert sorted(server.runs.iterdir()) == before


@pytest.fixture
def served_here(tmp_path, monkeypatch):
    """Serve the page from a thread of this process, whose objects can be counted."""
    import uvicorn

    uploads = tmp_path / "uploads"
    for name, value in {**NO_RECORD, "GRADIO_TEMP_DIR": str(uploads / "dropped")}.items():
        monkeypatch.setenv(name, value)
    keeper = Keeper(uploads, tmp_path)
    jobs, classes = Jobs(tmp_path / "runs", keeper), Classes(Started(), keeper)
    desk = Desk(tmp_path / "runs", Started(), jobs, Uploads(uploads), classes)
    application = make_application(desk, {field.name: field.label for field in FIELDS}, "127.0.0.1")
    server = uvicorn.Server(uvicorn.Config(application, port=0, log_level="error", timeout_graceful_shutdown=1))
    serving = threading.Thread(target=server.run)
    serving.start()
    wait_for(lambda: server.started)
    server.address = f"http://127.0.0.1:{server.servers[0].sockets[0].getsockname()[1]}/"
    yield server
    server.should_exit = True
    serving.join()
    keeper.close()


def count_visits():
    from gradio.state_holder import SessionState

    gc.collect()
    return sum(isinstance(held, SessionState) for held in gc.get_objects())


def test_nothing_is_held_of_a_visit_that_is_over(chromium, served_here, photograph):
    for _ in range(2):
        with visit(chromium, served_here) as visitor:
            visitor.drop("images", photograph)
            visitor.page.locator(".wf-photograph img").wait_for()
            assert count_visits() == 1
        wait_for(lambda: count_visits() == 0)


def ask(server, path):
    """Ask the server for a path as it is; return the status, the content policy and the content."""
    connection = http.client.HTTPConnection(server.address.split("/")[2], timeout=30)
    connection.request("GET", path)
    answer = connection.getresponse()
    return answer.status, answer.headers["content-security-policy"], answer.read()


@pytest.fixture(scope="module")
def made_run(server):
    run = server.runs / "a run"
    (run / "pictures").mkdir(parents=True)
    (run / "report.html").write_text('<html><head></head><p data-part="units">x</p></html>')
    (run / "pictures" / "clean.png").write_bytes(b"picture")
    (run / "out").symlink_to(server.runs.parent)
    return run


def test_files_of_runs_are_served_in_a_sandbox(server, made_run):
    assert ask(server, "/runs/a%20run/pictures/clean.png")[2] == b"picture"
    status, policy, part = ask(server, "/runs/a%20run/report.html?part=units")
    assert status == 200
    assert policy.startswith("sandbox allow-scripts;")
    assert b"display:none" in part
    for query in ("", "?part=nonsense"):
        assert ask(server, f"/runs/a%20run/report.html{query}")[2] == (made_run / "report.html").read_bytes()
    with zipfile.ZipFile(io.BytesIO(ask(server, "/runs/a%20run.zip")[2])) as archive:
        assert sorted(archive.namelist()) == ["a run/pictures/clean.png", "a run/report.html"]


@pytest.mark.parametrize(
    "path",
    [
        "/runs/a%20run/out/models.py",
        "/runs/a%20run/..%2f..%2fmodels.py",
        "/runs/a%20run/../../models.py",
        "/runs/..%2fmodels.py",
        "/runs/%2e%2e/models.py",
        "/runs/nothing/report.html",
        "/runs/nothing.zip",
        "/runs/...zip",
        "/runs/a%00b/report.html",
        "/gradio_api/file=/etc/passwd",
        "/gradio_api/file={folder}/models.py",
        "/gradio_api/file=models.py",
        "/gradio_api/file={folder}/runs/a%20run/report.html",
        "/gradio_api/proxy=http://127.0.0.1:1/",
    ],
)
def test_no_other_file_is_served(server, made_run, path):
    status, _, content = ask(server, path.format(folder=server.runs.parent))
    assert status in (400, 403, 404), path
    assert b"import torch" not in content


def test_a_job_can_be_stopped_and_another_waits(chromium, slow_server):
    with visit(chromium, slow_server, width=390) as first, visit(chromium, slow_server) as second:
        first.choose("attack", "cw(steps=7)")
        first.explain()
        second.explain()
        second.page.get_by_text("1 other comes first").wait_for()
        second.page.get_by_role("button", name="Stop").click()
        second.page.get_by_text("Nothing was written.").wait_for()
        first.page.locator(".wf-stage").first.wait_for(timeout=60_000)
        assert first.runs_off_by() == 0
        # Loaded anew a tab has its own job and settings again, and another tab of the same browser does not.
        other = first.page.context.new_page()
        other.goto(slow_server.address)
        other.locator(".wf-welcome").wait_for()
        first.page.reload()
        first.page.locator(".wf-stage").first.wait_for()
        assert other.locator(".wf-stage").count() == 0
        set_attacks = [tab.locator("#wf-attack input").input_value() for tab in (first.page, other)]
        assert set_attacks == ["cw(steps=7)", "The usual: Carlini-Wagner"]
        # What is set wrongly is said beside the job that runs, until the next try.
        first.choose("model", "nonsense")
        first.explain_button.click()
        assert "“Model” must be one of" in first.wait_for_sentence()
        first.page.locator(".wf-now").wait_for()
        first.page.get_by_role("button", name="Stop").click()
        first.page.get_by_text("Nothing was written.").wait_for(timeout=30_000)
    assert list(slow_server.runs.iterdir()) == []


def test_a_page_that_is_killed_leaves_nothing(chromium, slow_server, photograph):
    with visit(chromium, slow_server) as visitor:
        visitor.drop("images", photograph)
        visitor.explain()
        wait_for(lambda: list(slow_server.runs.glob(".whyfooled-*")))
        assert slow_server.uploaded()
        slow_server.end(signal.SIGKILL)
        wait_for(lambda: slow_server.left_behind() == [], 20)
    assert list(slow_server.runs.iterdir()) == []
    assert not [line for line in os.popen("ps -eo args") if str(slow_server.temporary) in line]


KEPT = "sessionStorage.getItem('whyfooled-settings')"


def test_what_is_set_in_one_go_is_kept_when_the_page_is_loaded_anew(chromium, server):
    with visit(chromium, server) as visitor:
        target = visitor.page.locator("#wf-target :is(input, textarea)")
        for text in ("cat", "dog"):
            # All at once, as when it is pasted.
            target.fill(text)
            target.press("Tab")
            wait_for(lambda text=text: f'"{text}"' in (visitor.page.evaluate(KEPT) or ""), 5)
            visitor.page.reload()
            expect_value(target, text)


FOCUSED = "document.activeElement.closest('[id^=wf-]')?.id"


def test_tab_goes_from_field_to_field_and_says_which(chromium, server):
    with visit(chromium, server) as visitor:
        page, stops = visitor.page, []
        page.locator(".wf-past").wait_for()
        for _ in range(6):
            page.keyboard.press("Tab")
            stops.append(page.evaluate(FOCUSED))
            if stops[-1] == "wf-images":
                assert page.evaluate("document.activeElement.ariaLabel") == "Photograph: choose or drop a file"
        # A list of choices that is long is no stop of its own.
        assert stops == ["wf-images", "wf-go", "wf-attack", "wf-target", "wf-methods", "wf-model"]


def test_a_list_of_choices_is_closed_however_quickly_its_field_is_left(chromium, server):
    for _ in range(3):
        with visit(chromium, server) as visitor:
            visitor.page.locator(".wf-past").wait_for()
            box = visitor.page.locator("#wf-attack input")
            box.fill("bim")
            box.press("Enter")
            box.press("Tab")
            visitor.page.wait_for_timeout(600)
            wait_for(lambda page=visitor.page: page.locator(".options").count() == 0, 5)
            assert box.input_value() == "BIM (bim)"


def test_what_is_refused_takes_the_place_of_what_failed_before(chromium, server, photograph):
    with visit(chromium, server) as visitor:
        visitor.drop("images", photograph)
        visitor.choose("attack", "nosuchattack")
        visitor.explain()
        assert "nosuchattack" in visitor.wait_for_sentence()
        visitor.choose("model", "/etc/passwd")
        visitor.explain_button.click()
        visitor.page.get_by_text("A library's is written with its name before it").wait_for()
        assert visitor.page.locator("#wf-found .wf-box").count() == 1


def test_a_report_has_an_address_and_can_be_deleted(chromium, server, photograph):
    with visit(chromium, server) as visitor:
        page = visitor.page
        visitor.drop("images", photograph)
        visitor.choose("attack", "bim(steps=2, epsilon=0.9)")
        visitor.explain()
        visitor.wait_for_report()
        wait_for(lambda: "?run=" in page.url)
        name = page.url.partition("?run=")[2]
        page.reload()
        visitor.wait_for_report()
        assert name in page.locator(".wf-heading").inner_text()
        page.once("dialog", lambda dialog: dialog.dismiss())
        page.get_by_role("button", name="Delete this run").click()
        page.wait_for_timeout(500)
        assert (server.runs / name / "report.html").exists()
        page.once("dialog", lambda dialog: dialog.accept())
        page.get_by_role("button", name="Delete this run").click()
        page.locator(".wf-welcome").wait_for()
        wait_for(lambda: not (server.runs / name).exists())
        assert "?run=" not in page.url
        assert page.locator(f'[data-run="{name}"]').count() == 0


def expect_value(field, value):
    wait_for(lambda: field.input_value() == value, 5)
