"""The site of the documentation: the reference has every public name, and the gallery's code is not invented."""

import ast
import importlib
import re
from collections import Counter

import pytest

import whyfooled
from tests.helpers.doc_pages import GALLERY, ROOT

DIRECTIVE = re.compile(r"^\.\. auto(class|function):: whyfooled\.(\w+)$", flags=re.MULTILINE)


def test_every_public_name_has_one_place_in_the_reference():
    pages = [page.read_text(encoding="utf-8") for page in (ROOT / "docs" / "reference").glob("*.md")]
    found = Counter(name for page in pages for _, name in DIRECTIVE.findall(page))
    assert found == Counter(whyfooled.__all__)


def test_what_the_reference_calls_a_class_is_one():
    for page in (ROOT / "docs" / "reference").glob("*.md"):
        for kind, name in DIRECTIVE.findall(page.read_text(encoding="utf-8")):
            assert isinstance(getattr(whyfooled, name), type) == (kind == "class"), name


def test_the_gallery_has_an_example_for_each_job():
    assert len(GALLERY) >= 8


@pytest.mark.parametrize("example", GALLERY, ids=lambda path: path.stem)
def test_an_example_begins_with_a_heading_and_imports_what_there_is(example):
    tree = ast.parse(example.read_text(encoding="utf-8"))
    title, underline, *_ = (ast.get_docstring(tree) or "").splitlines()
    assert underline == "=" * len(title)
    for node in ast.walk(tree):
        if isinstance(node, ast.ImportFrom) and (node.module or "").startswith("whyfooled"):
            module = importlib.import_module(node.module)
            assert all(hasattr(module, alias.name) for alias in node.names)
