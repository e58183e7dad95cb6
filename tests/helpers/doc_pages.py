"""The pages of the documentation: their fenced blocks, and the commands in these as a shell takes them apart."""

import re
import shlex
import textwrap
from pathlib import Path

ROOT = Path(__file__).parents[2]
GALLERY = sorted((ROOT / "examples" / "gallery").glob("plot_*.py"))
FENCE = re.compile(
    r"^(?P<indent> *)```(?P<language>\w*|\{[\w-]+\}.*?)\n(?P<text>.*?)^(?P=indent)```$", flags=re.DOTALL | re.MULTILINE
)
CONTROL = {"&&", "||", ";", "|", ">", "<", "(", ")", "&"}


def blocks(page, *languages):
    """The fenced blocks of some languages, without the indentation that a list gives them."""
    found = FENCE.finditer(page.read_text(encoding="utf-8"))
    return [textwrap.dedent(block["text"]) for block in found if block["language"] in languages]


def commands(page):
    """The command lines of a page, each as its words: what a shell runs, one by one."""
    for block in blocks(page, "", "sh", "bash"):
        for line in block.replace("\\\n", " ").splitlines():
            yield from shell_commands(line)


def shell_commands(line):
    words = shlex.shlex(line, posix=True, punctuation_chars=True)
    words.commenters = "#"
    words.whitespace_split = True
    command = []
    try:
        for word in words:
            if word in CONTROL:
                yield command
                command = []
            else:
                command.append(word)
    except ValueError:  # a quotation mark in what a command prints
        return
    yield command


def own_commands(page):
    for command in commands(page):
        while command and command[0] in ("do", "then"):
            command = command[1:]
        if command[:1] == ["whyfooled"]:
            yield command[1:]
