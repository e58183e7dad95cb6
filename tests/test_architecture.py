"""What keeps the tests and the package in order: no test imports another, no private module is without its contract."""

import ast
import tomllib
from pathlib import Path

import pytest

TESTS = Path(__file__).parent
SOURCE = TESTS.parent / "src" / "whyfooled"
OTHER = {"conformance", "e2e", "examples", "helpers"}
"""The folders of tests that are no package's."""


def modules_imported(source, package):
    """List what a module of a package imports, with each name that it takes from there as if it were a module too."""
    names = set()
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.Import):
            names |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            above = package.split(".")[: len(package.split(".")) - node.level + 1] if node.level else []
            base = ".".join([*above, *filter(None, [node.module])])
            names |= {base, *(f"{base}.{alias.name}" for alias in node.names)}
    return names


def module_name(path):
    return ".".join(path.relative_to(TESTS.parent).with_suffix("").parts)


TEST_MODULES = {module_name(path) for path in TESTS.rglob("*.py") if path.name.startswith(("test_", "conftest"))}


@pytest.mark.parametrize(
    ("source", "package", "expected"),
    [
        ("import tests.e2e.test_cli as cli", "tests", {"tests.e2e.test_cli"}),
        ("from tests.e2e.test_cli import MODELS", "tests", {"tests.e2e.test_cli", "tests.e2e.test_cli.MODELS"}),
        ("def f():\n    from tests.e2e import test_cli", "tests", {"tests.e2e", "tests.e2e.test_cli"}),
        ("from .test_cli import run", "tests.e2e", {"tests.e2e.test_cli", "tests.e2e.test_cli.run"}),
        ("from . import test_cli", "tests.e2e", {"tests.e2e", "tests.e2e.test_cli"}),
        ("from ..e2e import test_cli", "tests.attacks", {"tests.e2e", "tests.e2e.test_cli"}),
    ],
)
def test_every_form_of_an_import_is_seen(source, package, expected):
    assert modules_imported(source, package) == expected


def test_no_module_imports_a_test_module():
    assert len(TEST_MODULES) > 50
    for path in TESTS.rglob("*.py"):
        shared = modules_imported(path.read_text(), module_name(path.parent)) & TEST_MODULES
        assert not shared, f"{path} imports {shared}: what tests share is in tests/helpers or in a fixture."


def private_modules():
    """List the underscore modules below the packages of whyfooled, each with the package that it belongs to."""
    files = {path for path in SOURCE.glob("*/**/_*.py") if not path.stem.startswith("__")}
    folders = {path.parent for path in SOURCE.glob("*/**/_*/__init__.py")}
    for path in sorted(files | folders):
        parts = path.relative_to(SOURCE.parent).with_suffix("").parts
        yield ".".join(parts), ".".join(parts[:-1])


def test_every_private_module_is_protected():
    project = tomllib.loads((TESTS.parent / "pyproject.toml").read_text())
    importers = {
        module: contract["allowed_importers"]
        for contract in project["tool"]["importlinter"]["contracts"]
        if contract["type"] == "protected"
        for module in contract["protected_modules"]
    }
    found = dict(private_modules())
    assert len(found) > 30
    for module, package in found.items():
        assert module in importers, f"Add {module} to the protected modules of {package} in pyproject.toml."
        assert all(f"{package}.".startswith(f"{importer}.") for importer in importers[module]), module


def test_the_folders_are_those_of_the_package():
    for path in TESTS.rglob("*.py"):
        folder = path.parent.relative_to(TESTS)
        assert OTHER.intersection(folder.parts[:1]) or (SOURCE / folder).is_dir(), path
