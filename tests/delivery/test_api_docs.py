"""The examples of docs/api.md, sent to a real server as they stand there."""

from __future__ import annotations

import json
import re
import shlex
from pathlib import Path

import httpx
import pytest

from palate.delivery.application import API_PATHS

PAGE = (Path(__file__).parents[2] / "docs" / "api.md").read_text(encoding="utf-8")
EXAMPLE = re.compile(r"```sh\n(.*?)```(?:\n\n```json\n(.*?)```)?", re.S)
HOME = "http://127.0.0.1:8080"


def commands(text: str) -> list[list[str]]:
    words = shlex.split(text)
    starts = [place for place, word in enumerate(words) if word == "curl"]
    return [words[start:end] for start, end in zip(starts, [*starts[1:], len(words)], strict=True)]


def send(client: httpx.Client, words: list[str]) -> httpx.Response:
    """What curl would send."""
    options = {words[place]: words[place + 1] for place, word in enumerate(words) if word in ("-H", "-d", "-X")}
    address = next(word for word in words if word.startswith("http"))
    name, _, value = options.get("-H", "Accept: */*").partition(": ")
    method = options.get("-X", "POST" if "-d" in options else "GET")
    return client.request(method, address.removeprefix(HOME), content=options.get("-d"), headers={name: value})


def test_every_example_works_as_the_page_says(client: httpx.Client) -> None:
    sent = 0
    for text, expected in EXAMPLE.findall(PAGE):
        for words in commands(text):
            if not any(word.startswith(HOME) for word in words):
                continue
            answer = send(client, words)
            assert answer.status_code == 200, (words, answer.text)
            sent += 1
        if expected:
            assert answer.json() == json.loads(expected)
    assert sent >= 9


def test_the_page_names_every_path() -> None:
    for path in (*API_PATHS[1:], "/v1/events", "/v1/rank", "/v1/feed", "/v1/items", "/v1/users"):
        assert path in PAGE, path


@pytest.mark.parametrize("status", [400, 401, 403, 404, 405, 408, 413, 415, 429, 503])
def test_the_page_names_every_failure(status: int) -> None:
    assert str(status) in PAGE
