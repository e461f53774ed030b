from __future__ import annotations

import gzip
import socket
import threading
import time
import zlib
from http.server import BaseHTTPRequestHandler
from itertools import pairwise
from typing import Any

import pytest

from palate.errors import AnswerTooLarge, FetchFailed, FetchRefused
from palate.sources import addresses
from palate.sources.addresses import is_public, parse_address
from palate.sources.fetching import Fetcher, FetchParams

PRIVATE = [
    "127.0.0.1", "10.1.2.3", "172.16.0.1", "192.168.1.1", "169.254.169.254", "100.64.0.1", "0.0.0.0", "255.255.255.255",
    "224.0.0.1", "240.0.0.1", "192.0.2.1", "198.18.0.1", "::", "::1", "fe80::1", "fe80::1%lo", "fc00::1", "fec0::1",
    "ff02::1", "2001:db8::1", "::ffff:127.0.0.1", "::ffff:8.8.8.8", "::127.0.0.1", "64:ff9b::7f00:1", "64:ff9b::a00:1",
    "64:ff9b:1::1", "2002:7f00:1::", "2002:c0a8:101::1", "2001:0:7f00:1::", "100::1",
]  # fmt: skip


@pytest.mark.parametrize("address", PRIVATE)
def test_private_addresses_of_every_form_are_not_public(address: str) -> None:
    assert not is_public(address)


@pytest.mark.parametrize("address", ["8.8.8.8", "2606:4700::1111", "64:ff9b::808:808", "2002:808:808::1"])
def test_addresses_of_the_open_internet_are_public(address: str) -> None:
    assert is_public(address)


@pytest.mark.parametrize(
    "address",
    ["", "example.org", "file:///etc/passwd", "ftp://example.org/", "javascript:alert(1)", "http://", "http://[::1",
     "http://a:b@example.org/", "http://user@example.org/", "http://example.org:99999/", "http://ex\x00ample.org/",
     "http://" + "a" * 5000 + ".org"],
)  # fmt: skip
def test_what_is_no_web_address_is_refused(address: str) -> None:
    with pytest.raises(FetchRefused):
        parse_address(address)


def test_an_international_name_and_path_become_ascii() -> None:
    assert str(parse_address("http://пример.рф/лента?q=я#part")) == (
        "http://xn--e1afmkfd.xn--p1ai/%D0%BB%D0%B5%D0%BD%D1%82%D0%B0?q=%D1%8F"
    )


def test_an_answer_carries_its_body_and_what_to_send_next_time(site: Any, fetcher: Fetcher) -> None:
    headers = {"ETag": '"v1"', "Last-Modified": "Mon, 01 Jan 2024 00:00:00 GMT", "Cache-Control": "public, max-age=900"}
    site["/a"] = (200, headers | {"Content-Type": "text/plain; charset=x"}, b"hello")
    answer = fetcher.get(site.address + "/a#part")
    assert (answer.status, answer.body, answer.address) == (200, b"hello", site.address + "/a")
    assert (answer.etag, answer.last_modified) == ('"v1"', "Mon, 01 Jan 2024 00:00:00 GMT")
    assert (answer.content_type, answer.max_age, answer.permanent_address) == ("text/plain; charset=x", 900, None)


def test_a_conditional_request_may_find_nothing_new(site: Any, fetcher: Fetcher) -> None:
    site["/a"] = (304, {"Content-Length": "0"}, b"")
    answer = fetcher.get(site.address + "/a", etag='W/"v1"', last_modified="yesterday")
    assert (answer.not_modified, answer.body) == (True, b"")
    sent = site.requests[0][1]
    assert (sent["if-none-match"], sent["if-modified-since"]) == ('W/"v1"', "yesterday")


def test_a_stored_validator_that_no_header_may_hold_is_left_out(site: Any, fetcher: Fetcher) -> None:
    site["/a"] = b"hello"
    assert fetcher.get(site.address + "/a", etag='"a"\r\nX-Evil: 1', last_modified="é").body == b"hello"
    assert not {"if-none-match", "if-modified-since", "x-evil"} & site.requests[0][1].keys()


def _deflated(body: bytes, bits: int) -> bytes:
    stream = zlib.compressobj(wbits=bits)
    return stream.compress(body) + stream.flush()


@pytest.mark.parametrize(
    ("encoding", "packed"),
    [
        ("gzip", gzip.compress(b"hello world", mtime=0)),
        ("gzip", gzip.compress(b"hello ", mtime=0) + gzip.compress(b"world", mtime=0)),
        ("x-gzip", gzip.compress(b"hello world", mtime=0) + b"\0\0padding"),
        ("deflate", _deflated(b"hello world", 15)),
        ("deflate", _deflated(b"hello world", -15)),
        ("identity", b"hello world"),
    ],
)
def test_compressed_answers_are_unpacked(site: Any, fetcher: Fetcher, encoding: str, packed: bytes) -> None:
    site["/a"] = (200, {"Content-Encoding": encoding}, packed)
    assert fetcher.get(site.address + "/a").body == b"hello world"


def test_a_long_compressed_answer_arrives_whole(site: Any, fetcher: Fetcher) -> None:
    body = bytes(range(256)) * 700
    site["/a"] = (200, {"Content-Encoding": "gzip"}, gzip.compress(body))
    assert fetcher.get(site.address + "/a").body == body


@pytest.mark.parametrize("encoding", ["gzip", "deflate"])
def test_broken_or_cut_compression_is_a_failure(site: Any, fetcher: Fetcher, encoding: str) -> None:
    packed = gzip.compress(b"hello" * 99) if encoding == "gzip" else zlib.compress(b"hello" * 99)
    for path, body in (("/cut", packed[:-6]), ("/junk", b"\xff\xfejunk")):
        site[path] = (200, {"Content-Encoding": encoding}, body)
        with pytest.raises(FetchFailed, match="compression is broken"):
            fetcher.get(site.address + path)


def test_a_compression_that_nobody_asked_for_is_a_failure(site: Any, fetcher: Fetcher) -> None:
    site["/a"] = (200, {"Content-Encoding": "br"}, b"whatever")
    with pytest.raises(FetchFailed, match="'br'"):
        fetcher.get(site.address + "/a")


@pytest.mark.parametrize("encoding", ["gzip", "deflate"])
def test_a_bomb_is_stopped_while_it_unpacks(site: Any, fetcher: Fetcher, encoding: str) -> None:
    zeros = b"\0" * 30_000_000
    bomb = gzip.compress(zeros) if encoding == "gzip" else zlib.compress(zeros)
    assert len(bomb) < 50_000
    site["/bomb"] = (200, {"Content-Encoding": encoding}, bomb)
    with pytest.raises(AnswerTooLarge, match="200,000 bytes after decompression"):
        fetcher.get(site.address + "/bomb")


def _endless(handler: BaseHTTPRequestHandler) -> None:
    handler.send_response(200)
    handler.end_headers()
    while True:
        handler.wfile.write(b"x" * 10_000)


def test_an_endless_answer_is_stopped_by_its_size(site: Any, fetcher: Fetcher) -> None:
    site["/endless"] = _endless
    with pytest.raises(AnswerTooLarge, match="before decompression"):
        fetcher.get(site.address + "/endless")


@pytest.mark.parametrize("headers_first", [True, False])
def test_a_dribbling_answer_is_stopped_by_the_total_time(site: Any, headers_first: bool) -> None:
    def dribble(handler: BaseHTTPRequestHandler) -> None:
        if headers_first:
            handler.send_response(200)
            handler.end_headers()
        else:
            handler.wfile.write(b"HTTP/1.1 200 OK\r\nX-Slow: ")
        while True:
            handler.wfile.write(b"x")
            time.sleep(0.05)

    site["/slow"] = dribble
    fetcher = Fetcher(FetchParams(pause=0, allow_private=True, read_timeout=60, total_timeout=0.3))
    with pytest.raises(FetchFailed, match="in time"):
        fetcher.get(site.address + "/slow")


def test_an_answer_shorter_than_promised_is_a_failure(site: Any, fetcher: Fetcher) -> None:
    site["/short"] = (200, {"Content-Length": "99"}, b"hello")
    with pytest.raises(FetchFailed):
        fetcher.get(site.address + "/short")


def test_a_server_that_speaks_no_http_is_a_failure(fetcher: Fetcher) -> None:
    with socket.create_server(("127.0.0.1", 0)) as server:

        def answer() -> None:
            connection, _ = server.accept()
            with connection:
                connection.recv(4096)
                connection.sendall(b"SSH-2.0-OpenSSH_9.6\r\n")

        thread = threading.Thread(target=answer)
        thread.start()
        with pytest.raises(FetchFailed, match=r"127\.0\.0\.1"):
            fetcher.get(f"http://127.0.0.1:{server.getsockname()[1]}/")
        thread.join()
    with pytest.raises(FetchFailed, match="could not be reached"):
        fetcher.get("http://127.0.0.1:1/")


@pytest.mark.parametrize(("chain", "permanent"), [((301, 308), True), ((301, 302), False), ((307, 301), False)])
def test_a_new_address_is_kept_only_when_every_redirect_was_permanent(
    site: Any, fetcher: Fetcher, chain: tuple[int, int], permanent: bool
) -> None:
    site["/a"] = (chain[0], {"Location": "/b"}, b"")
    site["/b"] = (chain[1], {"Location": "c?d=1#part"}, b"")
    site["/c?d=1"] = b"hello"
    answer = fetcher.get(site.address + "/a")
    assert (answer.body, answer.address) == (b"hello", site.address + "/c?d=1")
    assert answer.permanent_address == (site.address + "/c?d=1" if permanent else None)


def test_a_redirect_loop_ends(site: Any, fetcher: Fetcher) -> None:
    site["/a"] = (302, {"Location": "/b"}, b"")
    site["/b"] = (302, {"Location": "/a"}, b"")
    with pytest.raises(FetchFailed, match="more than 5 times"):
        fetcher.get(site.address + "/a")
    assert len(site.requests) == 6


@pytest.mark.parametrize("target", ["file:///etc/passwd", "http://a:b@127.0.0.1/", "http://[", "gopher://x/"])
def test_a_redirect_to_what_is_no_web_address_is_not_followed(site: Any, fetcher: Fetcher, target: str) -> None:
    site["/a"] = (302, {"Location": target}, b"")
    with pytest.raises((FetchRefused, FetchFailed)):
        fetcher.get(site.address + "/a")
    assert len(site.requests) == 1


def test_the_loopback_address_is_refused_however_it_is_written(site: Any) -> None:
    fetcher = Fetcher(FetchParams(pause=0))
    for host in ("127.0.0.1", "localhost", "2130706433", "0x7f.1", "[::ffff:127.0.0.1]"):
        with pytest.raises(FetchRefused, match="private network"):
            fetcher.get(f"http://{host}:{site.port}/")
    assert site.requests == []


class _Names:
    """Answers of a DNS server under the test's control: each look-up of a name takes the next list of addresses."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch, **answers: list[list[str]]) -> None:
        self._answers = {name.replace("_", "."): list(lists) for name, lists in answers.items()}
        monkeypatch.setattr("socket.getaddrinfo", self._look_up)

    def _look_up(self, host: str, port: int, *_args: object, **_more: object) -> list[Any]:
        ips = self._answers[host].pop(0) if host in self._answers else [host]
        return [(socket.AF_INET, socket.SOCK_STREAM, 6, "", (ip, port)) for ip in ips]


def _only_loopback_is_public(monkeypatch: pytest.MonkeyPatch) -> None:
    """Make 127.0.0.1, where the test's server is, stand for the open internet, and 127.0.0.2 for a private network."""
    monkeypatch.setattr(addresses, "is_public", lambda ip: ip == "127.0.0.1")


def test_a_redirect_into_a_private_network_is_refused(site: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    _only_loopback_is_public(monkeypatch)
    _Names(monkeypatch, inside_example=[["127.0.0.2"]], mixed_example=[["127.0.0.1", "127.0.0.2"]])
    fetcher = Fetcher(FetchParams(pause=0))
    for target in ("127.0.0.2", "inside.example", "mixed.example"):
        site["/a"] = (302, {"Location": f"http://{target}:{site.port}/secret"}, b"")
        with pytest.raises(FetchRefused, match="private network"):
            fetcher.get(site.address + "/a")
    assert site.paths == ["/a"] * 3


def test_the_connection_goes_to_the_address_that_was_checked(site: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    # A rebinding name: public when it is checked, private when somebody looks it up again.
    _only_loopback_is_public(monkeypatch)
    _Names(monkeypatch, rebind_example=[["127.0.0.1"], ["127.0.0.2"]])
    site["/a"] = b"hello"
    fetcher = Fetcher(FetchParams(pause=0))
    assert fetcher.get(f"http://rebind.example:{site.port}/a").body == b"hello"
    assert site.requests[0][1]["host"] == f"rebind.example:{site.port}"
    with pytest.raises(FetchRefused):
        fetcher.get(f"http://rebind.example:{site.port}/a")


def test_the_next_address_of_a_name_is_tried_when_one_is_dead(
    site: Any, fetcher: Fetcher, monkeypatch: pytest.MonkeyPatch
) -> None:
    _Names(monkeypatch, two_example=[["127.0.0.9", "127.0.0.1"]])
    site["/a"] = b"hello"
    assert fetcher.get(f"http://two.example:{site.port}/a").body == b"hello"


def test_a_name_that_does_not_exist_is_a_failure(fetcher: Fetcher) -> None:
    with pytest.raises(FetchFailed, match="can't be found"):
        fetcher.get("http://no-such-name.invalid/")


@pytest.mark.parametrize(
    ("header", "seconds"),
    [
        ("120", 120),
        ("9" * 400, 86_400),
        ("Wed, 01 May 2024 12:05:00 GMT", 300),
        ("Wed, 01 May 2024 11:00:00 GMT", 0),
        ("Fri, 31 Dec 9999 23:59:59 GMT", 86_400),
        ("soon", None),
        ("-5", None),
        (None, None),
    ],
)
def test_a_busy_server_says_when_to_come_back(
    site: Any, fetcher: Fetcher, header: str | None, seconds: float | None
) -> None:
    for status in (429, 503):
        site["/a"] = (status, {"Retry-After": header} if header else {}, b"busy")
        with pytest.raises(FetchFailed, match=f"answered {status}") as caught:
            fetcher.get(site.address + "/a")
        assert (caught.value.status, caught.value.retry_after) == (status, seconds)


def test_an_error_status_is_a_failure_that_names_it(site: Any, fetcher: Fetcher) -> None:
    with pytest.raises(FetchFailed, match=r"127\.0\.0\.1 answered 404 \(Not Found\)") as caught:
        fetcher.get(site.address + "/missing")
    assert caught.value.status == 404


def test_two_requests_to_one_host_keep_their_distance(site: Any) -> None:
    times: list[tuple[float, float]] = []

    def timed(handler: BaseHTTPRequestHandler) -> None:
        begun = time.monotonic()
        time.sleep(0.02)
        handler.send_response(204)
        times.append((begun, time.monotonic()))
        handler.end_headers()

    site["/a"] = timed
    fetcher = Fetcher(FetchParams(pause=0.1, allow_private=True))
    threads = [threading.Thread(target=fetcher.get, args=(site.address + "/a",)) for _ in range(3)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(times) == 3
    assert all(later[0] - earlier[1] >= 0.09 for earlier, later in pairwise(times))


def test_hosts_of_the_past_are_forgotten(site: Any, fetcher: Fetcher, monkeypatch: pytest.MonkeyPatch) -> None:
    site["/a"] = b"hello"
    _Names(monkeypatch, **{f"host{number}": [["127.0.0.1"]] for number in range(20)})
    for number in range(20):
        fetcher.get(f"http://host{number}:{site.port}/a")
    assert len(fetcher._turns._hosts) == 1


def test_a_proxy_in_the_environment_is_ignored(site: Any, fetcher: Fetcher, monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("http_proxy", "HTTP_PROXY", "ALL_PROXY"):
        monkeypatch.setenv(name, "http://127.0.0.1:9")
    site["/a"] = b"hello"
    assert fetcher.get(site.address + "/a").body == b"hello"
