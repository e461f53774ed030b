"""The Python of docs/client.md, run against a real server as it stands there."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import httpx
import pytest

PAGE = (Path(__file__).parents[2] / "docs" / "client.md").read_text(encoding="utf-8")
EXAMPLE = re.compile(r"```python\n(.*?)```", re.S)
HOME = "http://127.0.0.1:8080"


@pytest.mark.parametrize("migrated_url", ["sqlite"], indirect=True)
def test_every_example_runs_as_the_page_says(client: httpx.Client, capsys: pytest.CaptureFixture[str]) -> None:
    names: dict[str, Any] = {}
    examples = EXAMPLE.findall(PAGE)
    for text in examples:
        exec(text.replace(HOME, str(client.base_url).rstrip("/")), names)
    names["palate"].close()
    names["hasty"].close()
    assert len(examples) >= 5
    assert capsys.readouterr().out.splitlines()[-1] == "[0, 3]"  # Ann met all three as a visitor, Bob nothing yet
