"""What a study does once before its images are measured: when it is called, and where what it found goes."""

from collections.abc import Mapping
from dataclasses import dataclass, fields
from typing import Any, final

import pytest

from tests.helpers.models import small
from tests.helpers.small_studies import Brightness, write_images
from whyfooled.classifier.passes import Passes
from whyfooled.errors import OutputError
from whyfooled.registry import describe
from whyfooled.studies import Measured, Prepared, run_study


@final
@dataclass(frozen=True)
class Added(Brightness):
    """The mean of an image and a number that was found before; only every other image is measured.

    Parameters
    ----------
    limit
        How bright an image may be.
    """

    def identity(self, setting: Any) -> Mapping[str, Any]:
        return {"other": (setting.folder.parent / "other").read_text()}

    def prepare(self, setting: Any) -> Prepared:
        assert (setting.folder / "study.json").exists()
        setting.progress(1, 4, "counting")
        return Prepared(setting.places[::2], 100.0, Passes(1000, 2000), ("All were counted.",))

    def measure(self, classifier: Any, batch: Any) -> Measured:
        rows = super().measure(classifier, batch).rows
        added = [row | {"brightness": row["brightness"] + batch.prepared} for row in rows]
        return Measured(added, passes=Passes(10, 20))


@pytest.fixture
def world(tmp_path):
    (tmp_path / "other").write_text("one")
    images = write_images(tmp_path / "images.npz", count=10)

    def run(**options):
        return run_study(Added(), images, tmp_path / "out", model=small(), shard_size=2, batch_size=2, **options)

    return tmp_path, run


def test_what_was_found_reaches_the_measurements_and_only_what_is_left_is_measured(world):
    _, run = world
    result = run()
    table = result.table.read()
    assert table["index"].tolist() == [0, 2, 4, 6, 8]
    assert (table["brightness"] > 100).all()
    assert result.about["images_given"] == 5
    assert "5 of 5 images measured, drawn at random from 10" in result.summary
    assert "Note: All were counted." in result.summary


def test_passes_before_and_through_other_models_are_counted(world):
    _, run = world
    about = run().about
    # 5 images in batches of 2, each of which says that it took 10 and 20 more.
    assert (about["forwards"], about["backwards"]) == (1000 + 5 + 30, 2000 + 60)


def test_progress_says_what_is_done_before(world):
    _, run = world
    seen = []
    run(report=seen.append)
    assert (seen[0].doing, seen[0].done, seen[0].total) == ("counting", 1, 4)
    assert {one.doing for one in seen[1:]} == {""}


def test_a_run_is_another_one_if_what_it_reads_by_itself_is(world):
    folder, run = world
    before = run().table.path.read_bytes()
    (folder / "other").write_text("two")
    with pytest.raises(OutputError, match="its other was one, now it is two"):
        run()
    (folder / "other").write_text("one")
    assert run().table.path.read_bytes() == before


def test_it_is_no_parameter():
    assert [field.name for field in fields(Added)] == ["limit"]
    assert describe(Added()) == "brightness"
