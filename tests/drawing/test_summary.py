"""Summaries as Markdown, LaTeX and plain values."""

import json

from whyfooled.studies import Summary, SummaryTable
from whyfooled.tensors.statistics import Interval

TABLE = SummaryTable(
    "Share of pixels, 30 % of all.",
    ("method", "value", "difference", "count"),
    [
        ("input × gradient_a", Interval(0.5, 0.4, 0.6, 9), Interval(0.1, -0.1, 0.2, 9), 3),
        ("a|b & c", Interval(float("nan"), float("nan"), float("nan"), 0), None, float("nan")),
        ("x", 0.25, 0.25, 7),
    ],
    signed=frozenset({"difference"}),
)
SUMMARY = Summary(("All is well: 5 % of it.",), (TABLE,))


def test_markdown_is_a_title_findings_and_tables():
    assert SUMMARY.markdown("Title").splitlines() == [
        "# Title",
        "",
        "- All is well: 5 % of it.",
        "",
        "Share of pixels, 30 % of all. Of 9 images.",
        "",
        "| method | value | difference | count |",
        "| --- | --- | --- | --- |",
        "| input × gradient_a | 0.500 [0.400, 0.600] | +0.100 [-0.100, +0.200] | 3 |",
        "| a\\|b & c | – |  | – |",
        "| x | 0.250 | +0.250 | 7 |",
        "",
        "In brackets: 95 % intervals over images (bootstrap; of shares of images, Wilson's).",
    ]


def test_latex_escapes_what_it_would_read_as_a_command():
    text = SUMMARY.latex("trial", ["Seed 0."])
    assert r"\caption{Share of pixels, 30 \% of all. Of 9 images. In brackets" in text
    assert r"\label{tab:trial-1}" in text
    assert r"input $\times$ gradient\_a & 0.500 [0.400, 0.600] & +0.100 [$-$0.100, +0.200] & 3 \\" in text
    assert r"a|b \& c & -- &  & -- \\" in text
    assert text.startswith("% Needs \\usepackage{booktabs,graphicx}.\n% Seed 0.\n% All is well: 5 % of it.\n")
    assert text.count(r"\begin{table}") == text.count(r"\end{table}") == 1


def test_plain_values_can_be_written_as_json():
    (table,) = json.loads(json.dumps(SUMMARY.plain(), allow_nan=False))
    assert table["rows"][0]["value"] == {"mean": 0.5, "low": 0.4, "high": 0.6, "images": 9}
    assert table["rows"][1] == {
        "method": "a|b & c",
        "value": {"mean": None, "low": None, "high": None, "images": 0},
        "difference": None,
        "count": None,
    }


def test_what_stands_in_brackets_is_said_once_and_the_number_of_images_where_it_differs():
    fewer = SummaryTable(
        "By attack.",
        ("attack", "same n", "other n"),
        [
            ("a", Interval(0.5, 0.4, 0.6, 9), Interval(0.5, 0.4, 0.6, 9)),
            ("b", Interval(0.5, 0.4, 0.6, 9), Interval(1, 1, 1, 3)),
        ],
    )
    plain = SummaryTable("No means.", ("a",), [("b",)])
    text = Summary((), (TABLE, fewer, plain)).markdown("Title")
    assert text.count("In brackets") == 1
    assert "By attack. Of 3 to 9 images: n, where a column's rows differ in it." in text
    assert "| a | 0.500 [0.400, 0.600] | 0.500 [0.400, 0.600] (n = 9) |" in text
    assert "| b | 0.500 [0.400, 0.600] | 1.000 [1.000, 1.000] (n = 3) |" in text
    assert "In brackets" not in Summary((), (plain,)).markdown("Title")
    assert plain.whole_caption() == "No means."
