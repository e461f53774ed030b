"""What a site allows robots to read: robots.txt as RFC 9309 has it, remembered for a day."""

from __future__ import annotations

import threading
from dataclasses import dataclass, field
from datetime import datetime, timedelta

import httpx

from palate.errors import FetchFailed, SourceError
from palate.sources.addresses import parse_address
from palate.sources.decoding import decode
from palate.sources.fetching import Fetcher

KEPT = timedelta(days=1)
KEPT_UNREACHABLE = timedelta(hours=1)
MAX_SITES = 1000
MAX_RULES = 2000
_MAX_BYTES = 512 * 1024

Rules = tuple[tuple[bool, str], ...]
"""(allowed, pattern of a path), in the order of the file. No rules: everything is allowed."""

NOTHING: Rules = ((False, "/"),)


@dataclass
class RobotsCache:
    """Rules by site with the time until which they hold; at most `MAX_SITES`. May be shared by threads."""

    sites: dict[str, tuple[datetime, Rules]] = field(default_factory=dict)
    lock: threading.Lock = field(default_factory=threading.Lock)

    def get(self, site: str, now: datetime) -> Rules | None:
        """The rules of a site, None when they aren't known or too old."""
        with self.lock:
            until, rules = self.sites.get(site, (now, NOTHING))
            return rules if until > now else None

    def put(self, site: str, rules: Rules, until: datetime) -> None:
        """Remember the rules; the site whose rules were learned first makes room."""
        with self.lock:
            self.sites.pop(site, None)
            self.sites[site] = (until, rules)
            while len(self.sites) > MAX_SITES:
                del self.sites[next(iter(self.sites))]


def allowed(address: str, fetcher: Fetcher, cache: RobotsCache) -> bool:
    """Whether the site's robots.txt lets us read `address`. False too while it can't be known: the server fails or is away.

    Raises FetchRefused when the address itself may not be asked.
    """
    url, now = parse_address(address), fetcher.clock()
    site = str(url.copy_with(raw_path=b"/"))
    rules = cache.get(site, now)
    if rules is None:
        rules, kept = _fetch_rules(site, fetcher)
        cache.put(site, rules, now + kept)
    return permits(rules, _path(url))


def _path(url: httpx.URL) -> str:
    return url.raw_path.decode("ascii")


def _fetch_rules(site: str, fetcher: Fetcher) -> tuple[Rules, timedelta]:
    agent = fetcher.params.user_agent.partition("/")[0].strip()
    try:
        answer = fetcher.get(site + "robots.txt", accept="text/plain, */*;q=0.5")
    except FetchFailed as error:
        # No such file means no rules; every other trouble means that we don't know them yet.
        closed = error.status is None or error.status == 429 or error.status >= 500
        return (NOTHING, KEPT_UNREACHABLE) if closed else ((), KEPT)
    except SourceError:
        return NOTHING, KEPT_UNREACHABLE
    return read_rules(decode(answer.body[:_MAX_BYTES], answer.content_type), agent), KEPT


def read_rules(text: str, agent: str) -> Rules:
    """The rules for `agent` in a robots.txt: those of its own group, else those for `*`.

    >>> read_rules("User-agent: *\\nDisallow: /private/", "Palate")
    ((False, '/private/'),)
    """
    groups: dict[str, list[tuple[bool, str]]] = {}
    current: list[str] = []
    in_rules = False
    for line in text.splitlines():
        name, _, value = (part.strip() for part in line.partition("#")[0].partition(":"))
        if name.lower() == "user-agent":
            current = [value.lower()] if in_rules else [*current, value.lower()]
            in_rules = False
            groups.setdefault(value.lower(), [])
        elif name.lower() in ("allow", "disallow"):
            in_rules = True
            if value:
                for group in current:
                    groups[group].append((name.lower() == "allow", value))
    return tuple((groups.get(agent.lower()) or groups.get("*", []))[:MAX_RULES])


def permits(rules: Rules, path: str) -> bool:
    """Whether the longest pattern that fits the path allows it; a tie, or no pattern, allows."""
    fitting = [(len(pattern), permitted) for permitted, pattern in rules if _fits(pattern, path)]
    return max(fitting, default=(0, True))[1]


def _fits(pattern: str, path: str) -> bool:
    """Whether a pattern with `*` (anything) and a final `$` (the end) fits the path from its beginning.

    >>> _fits("/*.php$", "/a/b.php"), _fits("/*.php$", "/a.php?x"), _fits("/a", "/about"), _fits("/b", "/a/b")
    (True, False, True, False)
    """
    whole = pattern.endswith("$")
    first, *rest = pattern.removesuffix("$").split("*")
    if not path.startswith(first):
        return False
    at = len(first)
    if whole:
        if not rest:
            return at == len(path)
        *rest, last = rest
        if not path.endswith(last) or len(path) - len(last) < at:
            return False
        path = path[: len(path) - len(last)]
    for piece in rest:  # the leftmost place of each piece leaves the most room for the next: no backtracking
        found = path.find(piece, at)
        if found < 0:
            return False
        at = found + len(piece)
    return True
