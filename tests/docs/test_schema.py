"""The schema of ``explanation.json`` holds for real files, with every section there is, and describes all it names."""

import json
from pathlib import Path

import jsonschema
import pytest
import torch

from tests.helpers.unit_pairs import LAST, a_pair, detecting, dissection_of, pooled
from whyfooled import LargestSoftmax, UniversalPerturbation, calibrate, explain

SCHEMA = json.loads((Path(__file__).parents[2] / "docs" / "explanation.schema.json").read_text())


@pytest.fixture(scope="module")
def file(tmp_path_factory):
    """Explain an image with everything that an explanation can have."""
    classifier, (clean, adversarial) = pooled(), a_pair()
    dissection = dissection_of(
        classifier,
        "body.2",
        LAST,
        threshold=torch.full((5,), 0.1),
        **detecting(0, 1, -1, 0, 2),
        concepts={"sky": "object", "road": "object", "red": "colour", "blue": "colour"},
    )
    side = clean.shape[-1]
    label_map = torch.zeros(side, side, dtype=torch.int64)
    label_map[: side // 2] = 1
    found = explain(
        classifier,
        clean,
        adversarial=adversarial,
        methods=["gradcam", "gradient"],
        units=dissection,
        regions=label_map,
        checks=True,
        forge=True,
        detector=calibrate(LargestSoftmax(), classifier, torch.rand(20, *clean.shape[1:])),
        trust=UniversalPerturbation(0.01 * (clean[0] - 0.5), epsilon=1.0),
    )
    folder = tmp_path_factory.mktemp("schema") / "out"
    found.save(folder)
    return json.loads((folder / "explanation.json").read_text()), found.summary()


def test_a_file_with_every_section_is_valid(file):
    jsonschema.Draft202012Validator.check_schema(SCHEMA)
    content, _ = file
    assert set(content) == set(SCHEMA["properties"])
    jsonschema.validate(content, SCHEMA)


def test_the_account_is_that_of_the_report(file):
    content, summary = file
    assert summary.endswith("\n".join(content["account"]))
    assert content["account"][0].startswith("The model ")


@pytest.mark.parametrize("change", [{"outcome": "perhaps"}, {"surprise": 1}, {"evidence": [{"method": "gradient"}]}])
def test_a_wrong_file_is_not(file, change):
    content, _ = file
    with pytest.raises(jsonschema.ValidationError):
        jsonschema.validate({**content, **change}, SCHEMA)


def test_what_stands_at_the_top_is_described():
    for name, part in SCHEMA["properties"].items():
        assert part.get("description"), name
