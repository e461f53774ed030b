"""The documents are true: links lead somewhere, the map is the one that is checked, commands exist."""

from __future__ import annotations

import re
import tomllib
from pathlib import Path

import pytest

from palate import cli

ROOT = Path(__file__).parent.parent
PAGES = [*ROOT.glob("*.md"), *ROOT.glob("docs/*.md"), *ROOT.glob("src/palate/**/*.md")]


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.relative_to(ROOT).as_posix())
def test_every_link_inside_the_project_leads_to_a_file(page: Path) -> None:
    links = re.findall(r"\]\(([^)#\s]+)\)", page.read_text(encoding="utf-8"))
    local = [link for link in links if not re.match(r"[a-z]+:", link)]
    assert [link for link in local if not (page.parent / link).exists()] == []


def test_the_map_is_the_contract_that_is_checked() -> None:
    contract = tomllib.loads((ROOT / "pyproject.toml").read_text())["tool"]["importlinter"]["contracts"][0]
    layers = [re.sub(r"[()]", "", layer) for layer in contract["layers"]]
    assert "\n".join(layers) in (ROOT / "ARCHITECTURE.md").read_text()


def test_every_module_stands_in_the_map() -> None:
    text = (ROOT / "ARCHITECTURE.md").read_text()
    parts = {path.stem for path in (ROOT / "src" / "palate").iterdir() if not path.name.startswith(("_", "py.typed"))}
    assert sorted(part for part in parts - {"sample"} if part not in text) == []


def test_every_command_is_in_the_readme_or_the_documents() -> None:
    text = "".join(page.read_text(encoding="utf-8") for page in PAGES)
    groups = {group.name: group.typer_instance for group in cli.app.registered_groups}
    commands = [
        command.name or (command.callback and command.callback.__name__) for command in cli.app.registered_commands
    ]
    commands += [f"{name} {command.name}" for name, app in groups.items() if app for command in app.registered_commands]
    assert [command for command in commands if f"palate {command}" not in text] == []


def test_every_stage_has_a_page_that_the_readme_names() -> None:
    readme = (ROOT / "README.md").read_text(encoding="utf-8")
    assert [page.name for page in ROOT.glob("docs/*.md") if f"docs/{page.name}" not in readme] == []
