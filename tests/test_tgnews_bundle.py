"""The recipe of the archive: what goes in is what `tgnews` needs. The archive itself is built by `make tgnews-bundle`."""

from __future__ import annotations

import importlib.util
import json
import os
import socket
import subprocess
import sys
import time
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from importlib.metadata import packages_distributions
from pathlib import Path
from types import ModuleType

import pytest
from news_texts import QUAKE

SCRIPT = Path(__file__).parent.parent / "scripts" / "tgnews_bundle.py"


@pytest.fixture(scope="module")
def recipe() -> ModuleType:
    spec = importlib.util.spec_from_file_location("tgnews_bundle", SCRIPT)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def test_the_modules_that_the_pipeline_runs_are_in(recipe: ModuleType) -> None:
    found = recipe.reachable("palate.tgnews")
    for name in (
        "",
        ".tgnews",
        ".news",
        ".sources.article_page",
        ".text.category",
        ".stories.clustering",
        ".sources.entries",
    ):
        assert f"palate{name}" in found


def test_what_the_modules_import_goes_in_with_them(recipe: ModuleType) -> None:
    packages = packages_distributions()
    inside = {name.lower().replace("_", "-") for name in recipe.PACKAGES}
    for module in recipe.reachable("palate.tgnews"):
        for name in recipe.imported(module):
            top = name.split(".")[0]
            if top != "palate" and top not in sys.stdlib_module_names:
                assert inside & {found.lower().replace("_", "-") for found in packages[top]}, f"{module} imports {name}"


def test_nothing_large_is_imported(recipe: ModuleType) -> None:
    for module in recipe.reachable("palate.tgnews"):
        assert not {name.split(".")[0] for name in recipe.imported(module)} & set(recipe.FORBIDDEN), module


def test_imports_are_told_from_imports_for_types_and_late_ones(
    recipe: ModuleType, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    package = tmp_path / "src" / "palate"
    package.mkdir(parents=True)
    (package / "__init__.py").write_text("")
    (package / "one.py").write_text(
        "from typing import TYPE_CHECKING\nimport json\nfrom palate import two\n"
        "if TYPE_CHECKING:\n    import polars\ndef late():\n    import csv\n"
    )
    (package / "two.py").write_text("import palate.one\n")
    monkeypatch.setattr(recipe, "ROOT", tmp_path)
    assert recipe.imported("palate.one") == {"typing", "json", "palate", "palate.two", "csv"}
    assert recipe.imported("palate.one", late=False) == {"typing", "json", "palate", "palate.two"}
    assert recipe.reachable("palate.one") == ["palate", "palate.one", "palate.two"]


ALONE = """
import sys

class Refusing:
    def find_spec(self, name, path=None, target=None):
        if name.split(".")[0] in {forbidden!r}:
            raise ImportError(f"{{name}} is not in the archive")

sys.meta_path.insert(0, Refusing())
sys.path.insert(0, {library!r})
import palate
assert palate.__path__ == [{library!r} + "/palate"], palate.__path__
from palate.tgnews import main
main()
"""
PAGE = f"""<html><head><meta property="og:title" content="Earthquake kills 12 in Chile"/><meta property="og:url"
content="https://one.example/1"/><meta property="article:published_time" content="2020-05-02T12:00:00Z"/></head>
<body><article><p>{QUAKE}</p></article></body></html>""".encode()


@contextmanager
def serving(program: list[str], data: Path) -> Iterator[str]:
    """The address of `tgnews server` by this program, once it answers."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        address = f"http://127.0.0.1:{probe.getsockname()[1]}"
    environment = {name: value for name, value in os.environ.items() if name != "PYTHONPATH"}
    command = [*program, "server", address.rpartition(":")[2], "--data", str(data)]
    process = subprocess.Popen(command, env={**environment, "OPENBLAS_NUM_THREADS": "1"})
    try:
        end = time.monotonic() + 60
        while not threads(address) and time.monotonic() < end:
            assert process.poll() is None, "the server ended"
            with suppress(OSError):
                put = urllib.request.Request(f"{address}/1.html", PAGE, {"cache-control": "max-age=3000"}, method="PUT")
                urllib.request.urlopen(put, timeout=10)
            time.sleep(0.05)
        yield address
    finally:
        process.kill()
        process.wait()


def threads(address: str) -> list[object]:
    with (
        suppress(OSError),
        urllib.request.urlopen(f"{address}/threads?period=3000&lang_code=en&category=any", timeout=10) as answer,
    ):
        return list(json.load(answer)["threads"])
    return []


TOLD = [{"title": "Earthquake kills 12 in Chile", "category": "society", "articles": ["1.html"]}]


def test_the_server_runs_with_what_goes_in_alone(recipe: ModuleType, tmp_path: Path) -> None:
    library = tmp_path / "lib"
    recipe.copy_palate(library)
    alone = ALONE.format(forbidden=set(recipe.FORBIDDEN), library=str(library))
    with serving([sys.executable, "-c", alone], tmp_path / "data") as address:
        assert threads(address) == TOLD


@pytest.mark.soak
def test_the_built_archive_serves(recipe: ModuleType, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    pytest.importorskip("freeze_core", reason="`make tgnews-bundle` installs it")
    monkeypatch.setattr(sys, "argv", ["tgnews_bundle", "--to", str(tmp_path)])
    recipe.main()
    (folder,) = (path for path in tmp_path.iterdir() if path.is_dir())
    with serving([str(folder / "tgnews")], tmp_path / "data") as address:
        assert threads(address) == TOLD
