"""What commands say of their progress where there is no terminal: a line for each stage, batch or shard."""

import io
import re

import numpy as np
import pytest
from PIL import Image

from tests.helpers.command_line import MODELS, command, without_progress
from whyfooled.attacks.many import Standing
from whyfooled.cli import _progress
from whyfooled.cli._progress import show_attack, show_fit, show_stages, show_study
from whyfooled.studies.run.runner import Progress


def lines(capsys):
    """Return the lines, with 0.0 for every time; nothing may be printed beside them."""
    out, err = capsys.readouterr()
    assert out == ""
    return re.sub(r"\d+\.\d s$", "0.0 s", err, flags=re.MULTILINE).splitlines()


def test_a_stage_is_said_when_it_is_over(capsys):
    with show_stages(quiet=False) as show:
        show(0, 2, "loading")
        assert lines(capsys) == []
        show(2, 2, "loading")
        show(1, 9, "attack")
        assert lines(capsys) == ["loading: 0.0 s"]
        show(5, 9, "attack")
    assert lines(capsys) == ["attack: 0.0 s"]


def test_a_line_and_its_end_are_written_at_once(monkeypatch):
    class Interrupted(io.StringIO):
        def write(self, text):
            super().write(text)
            raise KeyboardInterrupt

    written = Interrupted()
    monkeypatch.setattr("sys.stderr", written)
    with pytest.raises(KeyboardInterrupt), show_stages(quiet=False) as show:
        list(map(show, [0, 1], [2, 9], ["loading", "attack"]))
    assert re.fullmatch(r"loading: \d+\.\d s\n", written.getvalue())


def test_a_mistake_is_the_only_thing_said_of_the_stage_that_it_is_met_in(capsys):
    def fail(show):
        show(0, 1, "loading")
        raise ValueError("wrong")

    with pytest.raises(ValueError, match="wrong"), show_stages(quiet=False) as show:
        fail(show)
    assert lines(capsys) == []


def test_numbered_steps_are_one_stage(capsys):
    with show_fit(quiet=False) as show:
        for step in (1, 2, 3):
            show(4, 4, f"step {step} of 3")
        show(1, 1, "test")
    assert lines(capsys) == ["step: 0.0 s", "test: 0.0 s"]


def test_an_attack_says_a_line_for_each_batch_and_each_stage_of_it(capsys):
    with show_attack(quiet=False) as show:
        show(Standing(0, 4, 0, 0, None, 0))
        for share in (0.5, 1.0, 2.0):
            show(Standing(share, 4, 0, 0, None, 0))
        show(Standing(2, 4, 2, 1, 0.5, 2))
        for robust in (2, 2, 1):
            show(Standing(2, 4, 2, 1, 0.5, 2, f"APGD-T, {robust} robust"))
    assert lines(capsys) == [
        "2 of 4 done, 1 of 2 attacked reached the goal, median l2 0.5",
        "2 of 4 done, 1 of 2 attacked reached the goal, median l2 0.5; in work: APGD-T, 2 robust",
        "2 of 4 done, 1 of 2 attacked reached the goal, median l2 0.5; in work: APGD-T, 1 robust",
    ]


def test_the_median_is_of_the_attacks_own_norm(capsys):
    with show_attack(quiet=False) as show:
        show(Standing(2, 4, 2, 1, 12.0, 2, norm="l0"))
    assert lines(capsys) == ["2 of 4 done, 1 of 2 attacked reached the goal, median l0 12"]


def test_a_study_says_a_line_for_each_shard_and_for_what_is_done_before(capsys):
    with show_study(quiet=False) as show:
        for step in (1, 2):
            show(Progress(0, 4, 0.0, "recovered", None, f"step {step} of 2"))
        show(Progress(0, 4, 0.0, "recovered", None))
        show(Progress(1, 4, 2.0, "recovered", None))
        show(Progress(2, 4, 2.0, "recovered", 0.25, shards=1))
        show(Progress(3, 4, 2.0, "recovered", 0.25, shards=1))
        show(Progress(4, 4, 2.0, "recovered", 0.5, shards=2))
    assert lines(capsys) == [
        "step",
        "2 of 4 images, 2/s, 1 s left, recovered 0.250",
        "4 of 4 images, 2/s, 0 s left, recovered 0.500",
    ]


@pytest.fixture
def clock(monkeypatch):
    """Stand in for the time: a list whose last entry is now."""
    now = [0.0]
    monkeypatch.setattr(_progress.time, "perf_counter", lambda: now[-1])
    return now


def test_a_fit_says_once_how_long_the_rest_takes_once_it_has_taken_long(clock, capsys):
    with show_fit(quiet=False) as show:
        for step, moment in ((1, 0.0), (2, 4.0), (3, 8.0), (4, 12.0)):
            clock.append(moment)
            show(0, 10, f"step {step} of 12")
    # After 8 seconds 2 of 12 steps are done.
    assert lines(capsys) == ["step: about 40 s left", "step: 0.0 s"]


def test_an_attack_and_what_a_study_does_before_say_it_too(clock, capsys):
    with show_attack(quiet=False) as show:
        show(Standing(10, 40, 0, 0, None, 10))
        clock.append(90.0)
        show(Standing(20, 40, 0, 0, None, 20))
        clock.append(95.0)
        show(Standing(30, 40, 0, 0, None, 30))
    # 10 in 90 seconds: those that were there before took no time.
    assert [line for line in lines(capsys) if "left" in line] == ["attack: about 3 min 00 s left"]
    clock.append(0.0)
    with show_study(quiet=False) as show:
        show(Progress(0, 4, 0.0, "recovered", None, "step 1 of 2"))
        clock.append(10.0)
        show(Progress(2, 4, 0.0, "recovered", None, "step 1 of 2"))
        show(Progress(3, 4, 0.0, "recovered", None, "step 1 of 2"))
    assert lines(capsys) == ["step", "step: about 30 s left"]


def test_nothing_is_said_where_quiet_was_asked_for(capsys):
    with show_stages(quiet=True) as show:
        show(1, 1, "loading")
    with show_attack(quiet=True) as show:
        show(Standing(2, 4, 2, 1, 0.5, 2))
    with show_study(quiet=True) as show:
        show(Progress(2, 4, 2.0, "recovered", 0.25, shards=1))
    assert lines(capsys) == []


def test_the_stages_of_auto_are_said_and_half_a_level_is_a_radius(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "nets.py").write_text(MODELS)
    pixels = np.random.default_rng(0).integers(0, 255, (32, 32, 3), dtype=np.uint8)
    Image.fromarray(pixels).save(tmp_path / "one.png")
    attack = ["--attack", "auto(queries=5, targets=1)", "--epsilon", "0.5/255", "--steps", "2"]
    assert command(monkeypatch, "attack", "one.png", "--model", "nets.py:Net", *attack, "-o", "out") == 0
    out, err = capsys.readouterr()
    assert "of 1 photographs reached the goal." in out
    assert err.splitlines()[0] == "0 of 1 done; in work: APGD-CE, 1 robust"
    assert err.splitlines()[-1].startswith("1 of 1 done, ")
    assert without_progress(err) == ""
    assert "epsilon=0.00196" in (tmp_path / "out" / "run.json").read_text()
