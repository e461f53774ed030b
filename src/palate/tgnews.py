"""The command `tgnews`: the tasks of Telegram's Data Clustering Contest, answered in JSON on stdout.

Most runs take a second or less, so only what a command needs is imported, and late.
"""

from __future__ import annotations

import argparse
import os
import sys
from collections.abc import Callable, Iterable, Sequence
from typing import TYPE_CHECKING, Any, NoReturn

from palate.errors import ArchiveError, PalateError

if TYPE_CHECKING:
    from palate.news import Depth, Document, NewsParams, Story, Understood

FAILED, MISUSED = 1, 2
MAX_PROCESSES = 4
DIR = "folder with articles (*.html, at any depth), or a file of records: .jsonl, or .json with one array"


def main() -> None:
    """Run the command and end the process: 0 when it worked, 2 when it was called wrongly, 1 when it failed otherwise."""
    sys.exit(run(sys.argv[1:]))


def run(arguments: Sequence[str]) -> int:
    """Run the command; its exit code."""
    parser, commands = _parser()
    if arguments and not arguments[0].startswith("-") and arguments[0] not in commands:
        return _complain(_no_command(arguments[0], commands), MISUSED)
    asked = parser.parse_args(arguments)
    # More threads would cost more to start than they save, and only a process with one can be forked.
    os.environ.setdefault("OPENBLAS_NUM_THREADS", "1")
    try:
        asked.run(asked)
        sys.stdout.flush()
    except ArchiveError as error:
        return _complain(str(error), MISUSED)
    except PalateError as error:
        return _complain(str(error), FAILED)
    except KeyboardInterrupt:
        return _complain("Stopped.", FAILED)
    except BrokenPipeError:  # whoever read the answer has read enough
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return FAILED
    return 0


class _Parser(argparse.ArgumentParser):
    def error(self, message: str) -> NoReturn:
        sentence = message[:1].upper() + message[1:].rstrip(".")
        self.exit(MISUSED, f"tgnews: {sentence}. See `{self.prog} --help`.\n")


def _parser() -> tuple[argparse.ArgumentParser, list[str]]:
    """The parser, and the names of its commands."""
    parser = _Parser(
        prog="tgnews",
        description="News out of articles: languages, categories and stories, in JSON.",
        allow_abbrev=False,
    )
    commands = parser.add_subparsers(title="commands", dest="command", metavar="COMMAND", required=True)
    _add(commands, "languages", languages, "the articles of each language")
    _add(commands, "news", news, "the articles that are news, in English and Russian")
    _add(commands, "categories", categories, "the news of each of the seven categories")
    _add(commands, "threads", threads, "the stories of the news, the most important first")
    _add(commands, "top", top, "the stories of all categories and of each, the most important first")
    _add_server(commands)
    return parser, list(commands.choices)


def _no_command(wrong: str, commands: Sequence[str]) -> str:
    from difflib import get_close_matches

    near = get_close_matches(wrong, commands, 1)
    hint = f"Did you mean `{near[0]}`?" if near else f"There are {', '.join(commands)}."
    return f"There is no command `{wrong}`. {hint}"


def _add(commands: Any, name: str, run: Callable[[argparse.Namespace], None], says: str) -> None:
    parser = commands.add_parser(name, help=says, description=f"Print {says}, as JSON.", allow_abbrev=False)
    parser.add_argument("dir", metavar="DIR", help=DIR)
    parser.add_argument("--explain", action="store_true", help="show on stderr what each decision was made of")
    parser.add_argument(
        "--workers", type=_count, default=_cores(), metavar="N", help="processes (default: %(default)s)"
    )
    if name in ("threads", "top"):
        _add_config(parser)
    parser.set_defaults(run=run)


def _add_config(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--config", metavar="FILE", help="settings file, of which the section [news] counts")


def _add_server(commands: Any) -> None:
    says = "take articles and tell their stories over HTTP"
    parser = commands.add_parser("server", help=says, description=f"{says.capitalize()}.", allow_abbrev=False)
    parser.add_argument("port", metavar="PORT", type=_port, help="port of this machine to listen on")
    parser.add_argument(
        "--data", default="data", metavar="DIR", help="folder of the installation (default: %(default)s)"
    )
    _add_config(parser)
    parser.set_defaults(run=server)


def _port(text: str) -> int:
    if not text.isdecimal() or not 0 < int(text) < 65_536:
        raise argparse.ArgumentTypeError(f"`{text}` is no number from 1 to 65535")
    return int(text)


def _count(text: str) -> int:
    if not text.isdecimal() or not 1 <= int(text) <= 64:
        raise argparse.ArgumentTypeError(f"`{text}` is no number from 1 to 64")
    return int(text)


def _cores() -> int:
    return min(len(os.sched_getaffinity(0)), MAX_PROCESSES)


def languages(asked: argparse.Namespace) -> None:
    """`tgnews languages DIR`: by language, ours first; `other` are those that can't be told."""
    documents = _understood(asked, "language").documents
    _print(by_language(documents))
    if asked.explain:
        _table(("article", "language", "confidence"), ((one.name, one.language, one.confidence) for one in documents))


def news(asked: argparse.Namespace) -> None:
    """`tgnews news DIR`"""
    from palate.news import is_news

    documents = _understood(asked, "category").documents
    _print({"articles": [document.name for document in documents if is_news(document)]})
    _explain_classes(asked, documents)


def categories(asked: argparse.Namespace) -> None:
    """`tgnews categories DIR`"""
    documents = _understood(asked, "category").documents
    _print(by_category(documents))
    _explain_classes(asked, documents)


def threads(asked: argparse.Namespace) -> None:
    """`tgnews threads DIR`"""
    params = _params(asked)
    stories = _stories(asked, params)
    _print([_thread(story) for story in stories])
    if asked.explain:
        _explain_stories(stories, params)


def top(asked: argparse.Namespace) -> None:
    """`tgnews top DIR`"""
    params = _params(asked)
    stories = _stories(asked, params)
    _print(by_block(stories))
    if asked.explain:
        _explain_stories(stories, params)


def server(asked: argparse.Namespace) -> None:
    """`tgnews server PORT`"""
    import logging
    from pathlib import Path

    from palate.delivery.news_server import serve
    from palate.supervisor import role

    logging.basicConfig(format="%(asctime)s tgnews  %(levelname)s %(message)s", datefmt="%H:%M:%S")
    with role(Path(asked.data), "tgnews", "tgnews server"):
        serve(Path(asked.data), asked.port, _params(asked))


def by_language(documents: Iterable[Document]) -> list[dict[str, Any]]:
    """Names of articles by language: English, Russian, the others by code, and last `other` for those that can't be told."""
    names: dict[str, list[str]] = {"en": [], "ru": []}
    for document in documents:
        names.setdefault(document.language or "other", []).append(document.name)
    order = sorted(names, key=lambda code: (code not in ("en", "ru"), code == "other", code))
    return [{"lang_code": code, "articles": names[code]} for code in order]


def by_category(documents: Iterable[Document]) -> list[dict[str, Any]]:
    """Names of the news of each category; all seven, in the contest's order."""
    from palate.text.category import CATEGORIES

    names: dict[str, list[str]] = {category: [] for category in CATEGORIES}
    for document in documents:
        if document.category in names:
            names[document.category].append(document.name)
    return [{"category": category, "articles": names[category]} for category in CATEGORIES]


def by_block(stories: Sequence[Story]) -> list[dict[str, Any]]:
    """Stories of all categories, then of each of the seven, in the order in which they come."""
    from palate.text.category import CATEGORIES

    every = [
        {"title": story.title, "category": story.category, "articles": _thread(story)["articles"]} for story in stories
    ]
    blocks: dict[str, list[dict[str, Any]]] = {category: [] for category in CATEGORIES}
    for story in stories:
        blocks[story.category].append(_thread(story))
    return [{"category": "any", "threads": every}] + [
        {"category": category, "threads": blocks[category]} for category in CATEGORIES
    ]


def _understood(asked: argparse.Namespace, depth: Depth) -> Understood:
    from palate.news import understand

    understood = understand(asked.dir, depth, asked.workers)
    for name, reason in understood.skipped if asked.explain else ():
        _log(f"{name} is left out: {reason}.")
    if count := len(understood.skipped):
        _log(
            f"{count} article{' was' if count == 1 else 's were'} left out{'' if asked.explain else ': --explain says why'}."
        )
    return understood


def _params(asked: argparse.Namespace) -> NewsParams:
    from palate.news import NewsParams

    if asked.config is None and not any(name.startswith("PALATE_NEWS__") for name in os.environ):
        return NewsParams()
    from pathlib import Path

    from palate.settings_file import read_section

    return read_section("news", NewsParams, Path(asked.config) if asked.config else None, os.environ)


def _stories(asked: argparse.Namespace, params: NewsParams) -> list[Story]:
    from palate.news import stories_of

    return stories_of(_understood(asked, "vector"), params)


def _thread(story: Story) -> dict[str, Any]:
    return {"title": story.title, "articles": [document.name for document in story.documents]}


def _print(answer: Any) -> None:
    import msgspec

    sys.stdout.buffer.write(msgspec.json.format(msgspec.json.encode(answer), indent=2) + b"\n")


def _explain_classes(asked: argparse.Namespace, documents: Iterable[Document]) -> None:
    from palate.text.category import CLASSES

    if asked.explain:
        rows = ((one.name, one.language, one.category, *(one.probabilities or ())) for one in documents)
        _table(("article", "language", "class", *CLASSES), rows)


def _explain_stories(stories: Sequence[Story], params: NewsParams) -> None:
    from palate.stories.headline import order

    names = ("coverage", "freshness", "readers", "mark")
    factors = [[getattr(story.standing, name) for name in names] for story in stories]
    counts = [(story.standing.score, story.standing.sources, story.standing.documents) for story in stories]
    rows = [
        (story.title, story.category, *two, *three) for story, two, three in zip(stories, counts, factors, strict=True)
    ]
    _table(("story", "category", "score", "sources", "articles", *names), rows)
    parts = ("score", "closeness", "source", "freshness", "clarity", "mark")
    _table(
        ("article", "source", "story", *("source weight" if part == "source" else part for part in parts), "faults"),
        (
            (
                document.name,
                document.source,
                story.title,
                *(getattr(one, part) for part in parts),
                ", ".join(one.faults),
            )
            for story in stories
            for document, one in zip(story.documents, order(story.members, params.headline), strict=True)
        ),
    )


def _table(head: Sequence[str], rows: Iterable[Sequence[Any]]) -> None:
    """Rows on stderr, their columns parted by tabs."""
    _log("\t".join(head))
    for row in rows:
        _log("\t".join(f"{cell:.4g}" if isinstance(cell, float) else str(cell or "") for cell in row))


def _log(line: str) -> None:
    print(line, file=sys.stderr)


def _complain(sentence: str, code: int) -> int:
    _log(f"tgnews: {sentence}")
    return code


if __name__ == "__main__":
    main()
