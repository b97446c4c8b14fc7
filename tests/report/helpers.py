"""Golden files and the text of an HTML page, for the report's tests."""

from __future__ import annotations

import os
from html.parser import HTMLParser
from pathlib import Path

GOLDEN = Path(__file__).parent / "golden"
DOCS = Path(__file__).parents[2] / "docs"
UPDATE = "MFN_UPDATE_GOLDEN"  # set to 1 to rewrite the golden files; then read their diff
VOID = {"meta", "br", "img", "link", "hr", "input"}


def golden(path: Path, text: str) -> str:
    """The committed text of `path`; rewritten first when the variable asks for it."""
    if os.environ.get(UPDATE) == "1":
        path.write_text(text, encoding="utf-8")
    return path.read_text(encoding="utf-8")


class Page(HTMLParser):
    """Text a reader sees, ids, and whether every element is closed in order."""

    def __init__(self, html: str) -> None:
        super().__init__()
        self.words: list[str] = []
        self.ids: list[str] = []
        self.tags: set[str] = set()
        self.attributes: list[tuple[str, str, str]] = []
        self._open: list[str] = []
        self.feed(html)
        self.close()
        assert not self._open, f"not closed: {self._open}"

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.add(tag)
        self.attributes += [(tag, name, value or "") for name, value in attrs]
        self.ids += [value or "" for name, value in attrs if name == "id"]
        if tag not in VOID:
            self._open.append(tag)

    def handle_startendtag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.handle_starttag(tag, attrs)
        if tag not in VOID:
            self._open.pop()

    def handle_endtag(self, tag: str) -> None:
        assert self._open, f"</{tag}> closes nothing"
        assert self._open.pop() == tag

    def handle_data(self, data: str) -> None:
        if not {"style", "svg"} & set(self._open) and data.strip():
            self.words.append(" ".join(data.split()))

    @property
    def text(self) -> str:
        """One piece of text a line."""
        return "\n".join(self.words) + "\n"
