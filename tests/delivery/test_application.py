"""Installations under prefixes, and what surrounds every request."""

from __future__ import annotations

import logging
import os
import signal
import subprocess
import sys
import textwrap
import time
from collections.abc import Callable
from contextlib import AbstractContextManager
from pathlib import Path
from typing import Any

import httpx
import pytest

from palate.delivery.application import create_app, listen
from palate.delivery.context import Serving, ServingParams, open_serving
from palate.delivery.observing import RequestIds, request_id
from palate.errors import SettingsError

Serve = Callable[[Any], AbstractContextManager[httpx.Client]]


def test_two_installations_share_nothing(serving: Serving, tmp_path: Path, serve: Serve) -> None:
    with (
        open_serving(tmp_path / "own", None, ServingParams()) as own,
        serve(create_app({"": serving, "/own": own})) as client,
    ):
        client.post("/v1/items", json={"id": "sample", "title": "S"})
        client.post("/own/v1/items", json={"id": "mine", "title": "M"})
        assert client.get("/v1/items/mine").status_code == 404
        assert client.get("/own/v1/items/sample").status_code == 404
        assert [place["item"] for place in client.get("/own/v1/feed?user=a").json()["items"]] == ["mine"]
        assert client.get("/own/openapi.json").json()["servers"] == [{"url": "/own"}]
        assert client.get("/own/healthz").status_code == 200
        assert client.get("/ownership").status_code == 404  # a prefix ends at a slash
        assert "palate_items_accepted_total 1.0" in client.get("/own/metrics").text


def test_a_request_id_goes_in_and_out(client: httpx.Client) -> None:
    assert client.get("/healthz", headers={"X-Request-ID": "abc-1"}).headers["x-request-id"] == "abc-1"
    made = [
        client.get("/healthz", headers={"X-Request-ID": given}).headers["x-request-id"]
        for given in ("", "a b", "x" * 200)
    ]
    assert len(set(made)) == 3
    assert not {"", "a b", "x" * 200} & set(made)


def test_every_line_of_a_request_in_the_log_carries_its_id(
    client: httpx.Client, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.handler.addFilter(RequestIds())
    caplog.set_level(logging.INFO, "palate")
    client.get("/v1/items/new%0Aline", headers={"X-Request-ID": "abc-2"})
    lines = [record for record in caplog.records if record.name == "palate.access"]
    assert [getattr(record, "request", None) for record in lines] == ["abc-2"]
    assert "\n" not in lines[0].getMessage()
    assert "404" in lines[0].getMessage()
    assert request_id() == "-"


def test_a_mistake_of_ours_tells_nothing_of_the_inside(
    client: httpx.Client, serving: Serving, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    def submit(*_: object) -> None:
        raise RuntimeError("secret detail")

    monkeypatch.setattr(serving.commits, "submit", submit)
    answer = client.post("/v1/events", json={"user": "a", "item": "b", "type": "like"})
    assert answer.status_code == 500
    assert "secret detail" not in answer.text
    assert "secret detail" in caplog.text


def test_every_answer_carries_the_headers_that_browsers_obey(client: httpx.Client) -> None:
    for path in ("/healthz", "/v1/feed", "/nothing"):
        headers = client.get(path).headers
        assert headers["x-content-type-options"] == "nosniff"
        assert "default-src 'self'" in headers["content-security-policy"]
        assert headers["referrer-policy"] == "same-origin"


def test_a_foreign_name_for_this_machine_is_refused(client: httpx.Client) -> None:
    answer = client.get("/v1/feed?user=a", headers={"Host": "evil.example"})
    assert (answer.status_code, answer.json()["error"]["code"]) == (403, "foreign_host")


@pytest.mark.parametrize("headers", [{"Sec-Fetch-Site": "cross-site"}, {"Origin": "https://evil.example"}])
def test_other_sites_can_neither_write_nor_use_up_a_feed(client: httpx.Client, headers: dict[str, str]) -> None:
    like = {"user": "a", "item": "b", "type": "like"}
    assert client.post("/v1/events", json=like, headers=headers).json()["error"]["code"] == "foreign_site"
    assert client.get("/v1/feed?user=a", headers=headers).status_code == 403
    assert client.post("/", headers=headers).status_code == 403
    assert client.get("/", headers=headers).status_code != 403  # following a link is fine


def test_a_port_that_is_taken_is_one_sentence() -> None:
    with listen("127.0.0.1", 0) as first, pytest.raises(SettingsError, match="--port"):
        listen("127.0.0.1", first.getsockname()[1])


PROGRAM = """
import sys
from pathlib import Path
from palate.delivery.application import Installation, run
from palate.delivery.context import ServingParams

if __name__ == "__main__":
    installation = Installation(prefix="", data=Path(sys.argv[1]))
    run([installation], None, ServingParams(), host="127.0.0.1", port=int(sys.argv[2]), workers=int(sys.argv[3]))
"""


def wait_until(answers: Callable[[], bool], seconds: float = 120) -> None:
    end = time.monotonic() + seconds
    while not answers():
        assert time.monotonic() < end, "it has to happen in time"
        time.sleep(0.05)


def healthy(client: httpx.Client) -> bool:
    try:
        return client.get("/readyz").status_code == 200
    except httpx.TransportError:
        return False


def test_several_processes_share_an_address_and_end_together(tmp_path: Path) -> None:
    (tmp_path / "program.py").write_text(PROGRAM)
    with listen("127.0.0.1", 0) as free:
        port = free.getsockname()[1]
    arguments = [sys.executable, str(tmp_path / "program.py"), str(tmp_path / "data"), str(port), "2"]
    process = subprocess.Popen(arguments, env=os.environ | {"PYTHONWARNINGS": "error"})
    try:
        with httpx.Client(base_url=f"http://127.0.0.1:{port}") as client:
            wait_until(lambda: healthy(client))
            like = {"user": "a", "item": "b", "type": "like"}
            assert client.post("/v1/events", json=like).json() == {"accepted": 1}
            process.send_signal(signal.SIGTERM)
            assert process.wait(60) == 0
            assert not healthy(client)
    finally:
        process.kill()  # its children notice and stop
        process.wait()


def test_serving_loads_nothing_heavy(tmp_path: Path) -> None:
    program = textwrap.dedent(
        """
        import sys
        from pathlib import Path
        from starlette.testclient import TestClient
        from palate.delivery.application import create_app
        from palate.delivery.context import ServingParams, open_serving

        with open_serving(Path(sys.argv[1]), None, ServingParams()) as serving:
            for name in list(sys.modules):  # the migration of a new folder needs it, serving does not
                if name.split(".")[0] == "alembic":
                    del sys.modules[name]
            client = TestClient(create_app({"": serving}), base_url="http://127.0.0.1")
            assert client.post("/v1/items", json={"id": "a", "title": "A", "text": "<p>T</p>"}).status_code == 200
            assert client.post("/v1/events", json={"user": "u", "item": "a", "type": "like"}).status_code == 200
            assert client.get("/v1/feed?user=v").json()["items"]
            assert client.post("/v1/rank", json={"user": "u", "items": ["a"]}).status_code == 200
            assert client.get("/api/recommend/w").json() == ["a"]
            assert client.get("/api/user/u/feedback/like").json()[0]["ItemId"] == "a"
        heavy = {"numba", "pyarrow", "trafilatura", "feedparser", "alembic", "llvmlite", "fasttext_pybind"}
        print(" ".join(sorted(heavy & {name.split(".")[0] for name in sys.modules})))
        """
    )
    arguments = [sys.executable, "-c", program, str(tmp_path / "data")]
    done = subprocess.run(arguments, capture_output=True, text=True, timeout=180, check=False)
    assert done.returncode == 0, done.stderr
    assert done.stdout.strip() == ""
