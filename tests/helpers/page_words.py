"""The words of a page that are seen before anything is unfolded."""

from __future__ import annotations

from html.parser import HTMLParser

_EMPTY = frozenset({"meta", "link", "img", "input", "br", "image", "path"})
_UNSEEN = frozenset({"head", "script", "style", "svg"})


class _Reader(HTMLParser):
    def __init__(self) -> None:
        super().__init__()
        self.open: list[str] = []
        self.words: list[str] = []
        self.before_picture: int | None = None

    def _folded(self) -> bool:
        folds = self.open.count("details")
        return folds > 1 or (folds == 1 and "summary" not in self.open)

    def handle_starttag(self, tag, attrs):
        if tag in ("img", "svg") and self.before_picture is None and not self._folded():
            self.before_picture = len(self.words)
        if tag not in _EMPTY:
            self.open.append(tag)

    def handle_startendtag(self, tag, attrs):
        self.handle_starttag(tag, attrs)
        if tag not in _EMPTY:
            self.open.pop()

    def handle_endtag(self, tag):
        # Of elements that were not closed, such as a list's items, the end is that of what they are in.
        if tag in self.open:
            while self.open.pop() != tag:
                pass

    def handle_data(self, data):
        if not self._folded() and not _UNSEEN & set(self.open):
            self.words += data.split()


def read_words(page: str) -> tuple[list[str], int]:
    """Return the words that are seen, and how many of them stand before the first picture."""
    reader = _Reader()
    reader.feed(page)
    assert reader.before_picture is not None
    return reader.words, reader.before_picture
