"""The documentation: its tables are fresh, its links lead somewhere, its commands and its code are not invented."""

import ast
import importlib
import importlib.util
import re
import shlex
import sys
from types import ModuleType
from urllib.parse import unquote

import pytest
import torch
import typer
from torch import nn

from tests.helpers.doc_pages import FENCE, ROOT, blocks, own_commands, shell_commands
from whyfooled import Classifier
from whyfooled.registry import available, parse, split_list
from whyfooled.saliency import METHODS, differentiable

PAGES = sorted([*ROOT.glob("*.md"), ROOT / "llms.txt", *(ROOT / "docs").glob("*.md")])
MOST_BYTES = 8192
FENCE_OF_SPHINX = re.compile(r"^```\{(include|toctree)\}", flags=re.MULTILINE)
PATH = r"[a-z0-9_./-]+"
INLINE = re.compile(r"`([^`\n]+)`")
OWN_FOLDERS = ("src/", "docs/", "tests/", "examples/", "benchmarks/", ".ci/")
PACKAGE = ROOT / "src" / "whyfooled"
USAGE_ERROR = typer.BadParameter.__base__
"""What the command line raises; Typer brings its own since it has left Click."""


def load_tables():
    spec = importlib.util.spec_from_file_location("docs_tables", ROOT / "docs" / "tables.py")
    module = importlib.util.module_from_spec(spec)
    sys.modules[spec.name] = module
    spec.loader.exec_module(module)
    return module


tables = load_tables()


def page_id(path):
    return path.relative_to(ROOT).as_posix()


every_page = pytest.mark.parametrize("page", PAGES, ids=page_id)


def prose(page):
    """A page without its fenced blocks and generated tables."""
    return tables.BLOCK.sub("", FENCE.sub("", page.read_text(encoding="utf-8")))


def inline_commands(page):
    """The commands within a page's sentences, which leave out what they are not about."""
    for code in INLINE.findall(prose(page)):
        if code.startswith("whyfooled "):
            yield from (words[1:] for words in shell_commands(code) if words[:1] == ["whyfooled"])


# --------------------------------------------------------------------------------------------------------- tables


@pytest.mark.parametrize("page", sorted((ROOT / "docs").glob("*.md")), ids=page_id)
def test_tables_are_fresh(page):
    text = page.read_text(encoding="utf-8")
    assert tables.with_tables(text) == text, "stale tables: run python docs/tables.py"
    assert text.count("<!-- table: ") == text.count("<!-- end -->") == len(tables.BLOCK.findall(text))


def test_every_table_is_in_one_page():
    names = [block["name"] for page in PAGES for block in tables.BLOCK.finditer(page.read_text(encoding="utf-8"))]
    assert sorted(names) == sorted(tables.TABLES)


def test_every_command_has_its_options_in_a_table():
    def leaves(command, words=()):
        if not hasattr(command, "commands"):
            return [" ".join(words)]
        return [leaf for name, below in command.commands.items() for leaf in leaves(below, (*words, name))]

    described = {name.removesuffix(" options") for name in tables.TABLES if name.endswith(" options")}
    assert described == set(leaves(tables.command_line())) - {"methods"}


def test_the_methods_that_can_be_fitted_against_are_named():
    (said,) = re.findall(r"It must be differentiable: (.*?)\. `test`", (ROOT / "docs/universal.md").read_text(), re.S)
    assert re.findall(r"`([\w-]+)`", said) == [method.card.name for method in METHODS if differentiable(method())]


def test_a_stale_table_is_found():
    page = "A page.\n<!-- table: sources -->\nold\n<!-- end -->\nMore.\n"
    written = tables.with_tables(page)
    assert written.startswith("A page.\n<!-- table: sources -->\n| place |")
    assert written.endswith("|\n<!-- end -->\nMore.\n")
    assert tables.with_tables(written) == written


def test_a_table_that_there_is_not_is_an_error():
    with pytest.raises(KeyError, match="nothing"):
        tables.with_tables("<!-- table: nothing -->\n<!-- end -->")


def test_a_bar_in_a_cell_does_not_end_it():
    assert tables._table(("a", "b"), [("1|2", "3")]) == "| a | b |\n| --- | --- |\n| 1\\|2 | 3 |\n"


# ---------------------------------------------------------------------------------------------------------- pages


def test_the_readme_is_short():
    assert len((ROOT / "README.md").read_bytes()) <= MOST_BYTES


def test_the_index_names_every_page():
    index = (ROOT / "docs" / "README.md").read_text(encoding="utf-8")
    for page in (ROOT / "docs").glob("*.md"):
        only_the_sites = FENCE_OF_SPHINX.search(page.read_text(encoding="utf-8")) and page.name != "reference.md"
        assert page.name == "README.md" or only_the_sites or f"]({page.name})" in index


def slugs(page):
    """The anchors that a page's headings get where it is shown."""
    headings = re.findall(r"^#+ +(.*)$", FENCE.sub("", page.read_text(encoding="utf-8")), flags=re.MULTILINE)
    kept = [re.sub(r"[^\w\- ]", "", re.sub(r"\[([^\]]*)\]\([^)]*\)", r"\1", heading.lower())) for heading in headings]
    return {heading.strip().replace(" ", "-") for heading in kept}


@every_page
def test_links_lead_somewhere(page):
    text = FENCE.sub("", page.read_text(encoding="utf-8"))
    targets = [*re.findall(r"\]\(([^)\s]+)\)", text), *re.findall(r'(?:src|href)="([^"]+)"', text)]
    for target in targets:
        if re.match(r"[a-z]+:", target):
            continue
        path, _, anchor = target.partition("#")
        place = page.parent / unquote(path) if path else page
        assert place.exists(), target
        if anchor:
            assert anchor in slugs(place), target


@every_page
def test_table_rows_have_as_many_cells_as_their_head(page):
    lines = FENCE.sub("", page.read_text(encoding="utf-8")).splitlines()
    head = None
    for line in map(str.strip, lines):
        cells = len(re.findall(r"(?<!\\)\|", line)) if line.startswith("|") else None
        assert head is None or cells in (None, head), line
        head = cells


@every_page
def test_named_files_and_modules_exist(page):
    for code in INLINE.findall(prose(page)):
        if code.startswith(OWN_FOLDERS) and re.fullmatch(PATH, code):
            assert (ROOT / code).exists(), code
        if re.fullmatch(PATH, code) and "/" in code and (PACKAGE / code.partition("/")[0]).is_dir():
            assert (PACKAGE / code).exists(), code
        if re.fullmatch(r"whyfooled(\.\w+)+", code):
            resolve(code)


def resolve(name):
    """Import what a dotted name stands for."""
    parts = name.split(".")
    found = importlib.import_module(parts[0])
    for place, part in enumerate(parts[1:], start=2):
        try:
            found = getattr(found, part)
        except AttributeError:
            found = importlib.import_module(".".join(parts[:place]))
    return found


# ----------------------------------------------------------------------------------------------------------- code


@every_page
def test_python_compiles_and_its_imports_work(page):
    for block in blocks(page, "python"):
        for node in ast.walk(ast.parse(block)):
            if isinstance(node, ast.ImportFrom) and (node.module or "").partition(".")[0] == "whyfooled":
                module = importlib.import_module(node.module)
                for alias in node.names:
                    assert hasattr(module, alias.name), f"{node.module}.{alias.name}"


def test_the_example_of_a_saliency_method_works(monkeypatch):
    (example,) = [block for block in blocks(ROOT / "CONTRIBUTING.md", "python") if "class SquaredGradient" in block]
    module = ModuleType("example_of_a_saliency_method")
    monkeypatch.setitem(sys.modules, module.__name__, module)  # dataclasses look there
    exec(compile(example, "CONTRIBUTING.md", "exec"), vars(module))
    method = module.SquaredGradient()
    classifier = Classifier(nn.Sequential(nn.Flatten(), nn.Linear(48, 3)).eval(), size=(4, 4))
    images = torch.rand(2, 3, 4, 4, generator=torch.Generator().manual_seed(1))
    maps = method(classifier, images, torch.tensor([[0, 1], [2, 0]]))
    weight = classifier.module[1].weight.detach()
    assert torch.allclose(maps.flatten(2), weight[torch.tensor([[0, 1], [2, 0]])].square())
    assert method.card.summary.endswith(".")


# ------------------------------------------------------------------------------------------------------- commands


def read_command(words):
    """Let the command line read a command without running it; return the command and what it read."""
    command, above = tables.command_line(), None
    while words and words[0] in getattr(command, "commands", {}):
        above = command.make_context(command.name, [], parent=above, resilient_parsing=True)
        command, words = command.commands[words[0]], words[1:]
    if hasattr(command, "commands") and words and not words[0].startswith("-"):
        raise KeyError(words[0])
    return command, command.make_context(command.name, list(words), parent=above).params


@every_page
def test_commands_are_understood(page):
    for words in own_commands(page):
        try:
            command, given = read_command(words)
        except typer.Exit:  # --version and --help
            continue
        except USAGE_ERROR as error:
            pytest.fail(f"whyfooled {shlex.join(words)}: {error.format_message()}")
        check_methods(command.name, given)


KINDS = {"attacks": ("attack",), "saliency": ("methods", "cam", "saliency"), "universal": ("method",)}


def check_methods(command, given):
    """Read the methods that are named in a command, with their parameters."""
    given = {name: value for name, value in given.items() if isinstance(value, str) and "$" not in value}
    if command == "attack":
        given["attack"] = given.pop("method", "cw")
    if command == "study" and "name" in given:
        parse("studies", given["name"])
    for kind, names in KINDS.items():
        for name in names:
            for text in split_list(given.get(name, "")):
                if text != "all":
                    keeps_class = name == "attack" and text.partition("(")[0] in available("interpretations")
                    parse("interpretations" if keeps_class else kind, text)


def every_option(command):
    own = {option for parameter in command.params for option in (*parameter.opts, *parameter.secondary_opts)}
    return own.union(*(every_option(below) for below in getattr(command, "commands", {}).values()), {"--help"})


@every_page
def test_commands_in_sentences_have_the_options_that_are_given_to_them(page):
    for words in inline_commands(page):
        command, rest = tables.command_line(), words
        while rest and rest[0] in getattr(command, "commands", {}):
            command, rest = command.commands[rest[0]], rest[1:]
        assert not (hasattr(command, "commands") and rest and not rest[0].startswith("-")), words
        assert {word.partition("=")[0] for word in rest if re.match(r"--?[a-z]", word)} <= every_option(command), words


@every_page
def test_options_that_are_spoken_of_exist(page):
    known = every_option(tables.command_line())
    for code in INLINE.findall(prose(page)):
        if re.match(r"--?[a-z]", code):
            assert code.split()[0].partition("=")[0] in known, code


@pytest.mark.parametrize("words", ["--version", "explain --help", "universal fit -h"])
def test_a_command_that_only_tells_something_is_understood(words):
    with pytest.raises(typer.Exit):
        read_command(words.split())


@pytest.mark.parametrize("words", ["explain --no-such-option", "attack --batch-size many", "no-such-command"])
def test_a_command_that_there_is_not_is_found(words):
    with pytest.raises((USAGE_ERROR, KeyError)):
        read_command(words.split())


def test_a_command_line_is_taken_apart_as_a_shell_does():
    line = "pip install . && whyfooled explain 'a b.jpg' --target \"tiger shark\"  # says why"
    assert list(shell_commands(line)) == [
        ["pip", "install", "."],
        ["whyfooled", "explain", "a b.jpg", "--target", "tiger shark"],
    ]
