"""What keeps the tests and the package in order: no test imports another, no private module is without its contract."""

import ast
import tomllib
from pathlib import Path

import pytest

TESTS = Path(__file__).parent
SOURCE = TESTS.parent / "src" / "whyfooled"
OTHER = {"benchmarks", "conformance", "docs", "e2e", "examples", "helpers"}
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


VAGUE = {"found", "one", "own"}
"""Names that say nothing of what they hold: for one line they will do."""
SCOPES = (ast.FunctionDef, ast.Lambda, ast.ListComp, ast.SetComp, ast.DictComp, ast.GeneratorExp, ast.Module)


def vague_names(source):
    """List (line, name) of the variables with vague names that live for more than a line."""
    lines = {}

    def visit(node, scopes):
        if isinstance(node, SCOPES):
            scopes = [*scopes, (node, bound_in(node))]
        name = node.id if isinstance(node, ast.Name) else node.arg if isinstance(node, ast.arg) else None
        if name in VAGUE:
            scope = next((scope for scope, bound in reversed(scopes) if name in bound), None)
            lines.setdefault((scope, name), []).append(node.lineno)
        for child in ast.iter_child_nodes(node):
            visit(child, scopes)

    visit(ast.parse(source), [])
    return sorted((min(used), name) for (scope, name), used in lines.items() if scope and max(used) > min(used))


def bound_in(scope):
    """Name what a scope itself binds: parameters, and what is assigned in it but not in a scope inside."""
    names, waiting = set(), list(ast.iter_child_nodes(scope))
    while waiting:
        node = waiting.pop()
        if isinstance(node, ast.arg):
            names.add(node.arg)
        elif isinstance(node, ast.Name) and isinstance(node.ctx, ast.Store):
            names.add(node.id)
        if not isinstance(node, SCOPES):
            waiting.extend(ast.iter_child_nodes(node))
    return names


@pytest.mark.parametrize(
    ("source", "expected"),
    [
        ("found = [one for one in range(3)]", []),
        ("found = 1\nprint(found)", [(1, "found")]),
        ("def f(own):\n    return own", [(1, "own")]),
        ("def f():\n    x = [\n        one\n        for one in y\n    ]", [(3, "one")]),
        ("def f():\n    found = 1; g(found)\ndef h():\n    found = 2; g(found)", []),
    ],
)
def test_every_vague_name_is_seen(source, expected):
    assert vague_names(source) == expected


@pytest.mark.parametrize("path", sorted(SOURCE.rglob("*.py")), ids=lambda path: str(path.relative_to(SOURCE)))
def test_a_variable_says_what_it_holds(path):
    assert not vague_names(path.read_text()), f"{path}: say what these hold."


BORROWING = "classifier/borrowing.py"
SETTERS = {
    *("train", "eval", "catch_warnings", "set_stance", "sdpa_kernel"),
    *("set_default_dtype", "set_grad_enabled", "set_num_threads"),
}
MAY_SET = {
    "classifier/zoo.py": {"eval"},  # a model that was made here, before anyone else has it
    "units/masking.py": {"register_forward_hook"},  # a copy of a model, for good
    "saliency/backward/graph.py": {"set_stance", "sdpa_kernel"},  # made into settings that threads share
    "classifier/calling.py": {"set_default_dtype", "set_grad_enabled"},  # sets back what a model has changed
    "classifier/classifier.py": {"training"},  # the classifier's own flag, before it has a module
    "images/reading.py": {"catch_warnings"},  # Pillow's own
    "classifier/workers.py": {"set_grad_enabled"},  # a worker's own, as its caller's
}
"""What some files may set by themselves, and why."""


def setters(source):
    """Name the calls and assignments that set hooks, modes or settings on a module or on the whole process."""
    names = set()
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.Call):
            name = getattr(node.func, "attr", getattr(node.func, "id", ""))
            is_hook = name.startswith("register_") and name.endswith("hook")
            names |= {name} if is_hook or name in SETTERS else set()
        if isinstance(node, ast.Assign | ast.AugAssign | ast.AnnAssign):
            targets = node.targets if isinstance(node, ast.Assign) else [node.target]
            names |= {"training" for target in targets if getattr(target, "attr", "") == "training"}
    return names


@pytest.mark.parametrize(
    ("source", "expected"),
    [
        ("module.train()", {"train"}),
        ("self.model.eval().to(device)", {"eval"}),
        ("part.register_full_backward_hook(f)", {"register_full_backward_hook"}),
        ("register_module_forward_hook(f)", {"register_module_forward_hook"}),
        ("part.training = False", {"training"}),
        ("with warnings.catch_warnings(record=True): pass", {"catch_warnings"}),
        ("train = part.training; part.requires_grad_(); values.register(f)", set()),
    ],
)
def test_every_setter_is_seen(source, expected):
    assert setters(source) == expected


@pytest.mark.parametrize("path", sorted(SOURCE.rglob("*.py")), ids=lambda path: str(path.relative_to(SOURCE)))
def test_what_other_threads_would_see_is_set_in_one_place(path):
    name = str(path.relative_to(SOURCE))
    if name != BORROWING:
        assert setters(path.read_text()) == MAY_SET.get(name, set()), f"{name}: set it by {BORROWING}."
