"""Lists of channels: CSV with a header, or a line for each."""

from __future__ import annotations

import csv
import re
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from palate.errors import ArchiveError, InvalidInput
from palate.sources.archive import BadRow, lines
from palate.sources.handles import Handle, parse

MOST = 100_000
"""Lines: a longer list is none that anybody made."""
_NAMES = ("channel", "username", "link", "url", "invite", "name")
_CATEGORIES = ("category", "topic", "label")
_MAX_CATEGORY = 100


@dataclass(frozen=True)
class Listed:
    """A channel of a list. None: no category, no title."""

    handle: Handle
    category: str | None = None
    title: str | None = None


def read(path: Path) -> Iterator[Listed | BadRow]:
    """The channels of a list, and the rows that name none, with their line.

    CSV has a column `channel` (or `username`, `link`, `url`, `invite`), and may have `category` and `title`. Any other file has a
    channel on each line, and behind a blank, tab, comma or semicolon its category; what begins with # is left out. Raises
    ArchiveError for a file that can't be read.
    """
    rows = lines(path)
    number, first = next(rows, (0, ""))
    header = [name.strip().strip('"').lower() for name in re.split(r"[,;\t]", first)]
    if len(set(header) & {*_NAMES, *_CATEGORIES}) and any(name in _NAMES for name in header):
        separator = next((one for one in ",;\t" if one in first), ",")
        yield from _table(path, header, separator, rows)
        return
    yield from _line(number, first)
    for number, line in rows:
        if number > MOST:
            raise ArchiveError(f"{path} has more than {MOST:,} lines: that is no list of channels.")
        yield from _line(number, line)


def _table(path: Path, header: list[str], separator: str, rows: Iterator[tuple[int, str]]) -> Iterator[Listed | BadRow]:
    reader = csv.DictReader((line for _, line in rows), fieldnames=header, delimiter=separator)
    try:
        for row in reader:
            named = next((text for name in _NAMES if (text := (row.get(name) or "").strip())), "")
            category = next((text for name in _CATEGORIES if (text := (row.get(name) or "").strip())), None)
            yield _listed(reader.line_num + 1, named, category, (row.get("title") or "").strip() or None)
    except csv.Error as error:
        raise ArchiveError(f"{path}, line {reader.line_num + 1} is no CSV: {error}.") from error


def _line(number: int, line: str) -> Iterator[Listed | BadRow]:
    text = line.strip()
    if text and not text.startswith("#"):
        named, _, category = re.sub(r"[\s,;]+", " ", text).partition(" ")
        yield _listed(number, named, category or None, None)


def _listed(number: int, named: str, category: str | None, title: str | None) -> Listed | BadRow:
    try:
        return Listed(parse(named), category and category[:_MAX_CATEGORY], title)
    except InvalidInput as error:
        return BadRow(number, error.reason)
