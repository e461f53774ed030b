"""One request of a page: who asks, how the page is drawn, and what is told when something is wrong."""

from __future__ import annotations

import asyncio
import hashlib
import json
import logging
import uuid
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass, field, replace
from datetime import datetime
from functools import lru_cache
from pathlib import Path
from typing import Any
from urllib.parse import quote

import jinja2
import sqlalchemy as sa
from markupsafe import Markup
from starlette.datastructures import FormData
from starlette.exceptions import HTTPException
from starlette.requests import Request
from starlette.responses import HTMLResponse, RedirectResponse, Response
from starlette.types import Message

from palate import identities, people
from palate.database import reading
from palate.delivery import security, surfaces
from palate.delivery.context import Serving, in_thread, utc_now
from palate.delivery.refusals import Refusal, refusal
from palate.domain import MAX_ID_LENGTH, Event

PAGES = Path(__file__).parent / "pages"

ANONYMOUS = "anonymous-"
"""How the ids of people without a login begin."""

FORM_FIELDS = 1000

TITLES = {
    400: "That can't be done",
    403: "Not for you to change",
    404: "There is nothing here",
    413: "That is too large",
    429: "Too much at once",
    503: "Not possible right now",
}

log = logging.getLogger(__name__)


@dataclass(frozen=True)
class Visit:
    """A request of a page, with what every page needs to know."""

    serving: Serving
    request: Request
    user: str
    """Id of the person; one just made up when the browser brought none."""
    known: bool
    """Whether the browser brought its cookie. What others do without one (crawlers, link previews) leaves no trace."""
    now: datetime
    form: FormData = field(default_factory=FormData)
    body: bytes = b""
    """What was posted, when it was no form."""

    @property
    def root(self) -> str:
        """Path that the installation is mounted at, without a slash at its end."""
        return str(self.request.scope.get("root_path", ""))

    @property
    def query(self) -> dict[str, str]:
        """The query's fields, the last one where a name comes twice."""
        return dict(self.request.query_params)

    @property
    def partial(self) -> bool:
        """Whether a part of a page is asked for, to put into the one that is open."""
        return self.request.headers.get("hx-request") == "true"

    def given(self, name: str, limit: int = MAX_ID_LENGTH) -> str:
        """A text field of the form, "" when it isn't there. Raises Refusal when it is longer than `limit`."""
        value = self.form.get(name)
        return _text(value, limit) if isinstance(value, str) else ""

    def all_given(self, name: str, limit: int = MAX_ID_LENGTH) -> list[str]:
        """Every text field of this name, without empty ones."""
        return [_text(value, limit) for value in self.form.getlist(name) if isinstance(value, str) and value]

    def person(self, connection: sa.Connection) -> int | None:
        """Key of the person; None while they have done nothing."""
        key = identities.user_keys(connection, [self.user], None).get(self.user)
        return None if key is None else identities.persons(connection, [key])[key]

    def make_person(self, connection: sa.Connection) -> int:
        """Key of the person, who is somebody from now on."""
        key = identities.user_keys(connection, [self.user], self.now)[self.user]
        return identities.persons(connection, [key])[key]

    def may_change(self, connection: sa.Connection) -> bool:
        """Whether this person may change what all share: on this machine anybody, elsewhere its owners."""
        server = self.serving.params.server
        if not security.asks_for_keys(server.host, server.names):
            return True
        person = self.person(connection)
        return person is not None and people.choices(connection, person).owner


Do = Callable[[Visit], Response]
Endpoint = Callable[[Request], Awaitable[Response]]


def _text(value: str, limit: int) -> str:
    value = value.strip()
    if len(value) > limit or "\x00" in value:
        raise Refusal(400, "invalid_request", f"A field of this form takes at most {limit} characters.")
    return value


def page(serving: Serving, do: Do) -> Endpoint:
    """The endpoint of a page: it knows the person, works in a thread, and tells faults as a page."""

    async def endpoint(request: Request) -> Response:
        visit = _visit(serving, request)
        try:
            if request.method == "POST":
                visit = await _with_form(visit)
            response = await in_thread(serving, do, visit)
        except Exception as error:
            response = _fault(visit, error)
        finally:
            await visit.form.close()
        if not visit.known and "set-cookie" not in response.headers:
            remember(visit, response, visit.user)
        return response

    endpoint.__name__ = do.__name__
    return endpoint


def _visit(serving: Serving, request: Request) -> Visit:
    root = str(request.scope.get("root_path", ""))
    user = security.signed_person(request.cookies.get(_cookie_name(serving, root)), serving.secret)
    return Visit(
        serving=serving,
        request=request,
        user=user or f"{ANONYMOUS}{uuid.uuid4().hex}",
        known=user is not None,
        now=utc_now(),
    )


def remember(visit: Visit, response: Response, user: str) -> None:
    """Let the browser come back as this person."""
    response.set_cookie(
        _cookie_name(visit.serving, visit.root),
        security.sign_person(user, visit.serving.secret),
        max_age=security.COOKIE_DAYS * 86_400,
        path=visit.root or "/",
        secure=visit.request.url.scheme == "https",
        httponly=True,
        samesite="lax",
    )


def forget_visitor(visit: Visit, response: Response) -> None:
    """Let the browser come back as somebody new."""
    response.delete_cookie(_cookie_name(visit.serving, visit.root), path=visit.root or "/")


def _cookie_name(serving: Serving, root: str) -> str:
    # Cookies know neither ports nor, for those of "/", paths: two installations on one host need names of their own.
    return "palate-" + hashlib.sha256(serving.secret + root.encode()).hexdigest()[:12]


async def _with_form(visit: Visit) -> Visit:
    body = await _whole_body(visit)
    if visit.request.headers.get("content-type", "").startswith("application/json"):
        return replace(visit, body=body)

    async def receive() -> Message:
        return {"type": "http.request", "body": body, "more_body": False}

    whole = Request(visit.request.scope, receive)
    limit = visit.serving.params.server.max_body
    try:
        return replace(visit, form=await whole.form(max_files=1, max_fields=FORM_FIELDS, max_part_size=limit))
    except HTTPException as error:
        raise Refusal(400, "invalid_request", "This form could not be read.") from error


async def _whole_body(visit: Visit) -> bytes:
    """The body, when it is small enough and comes in time."""
    server = visit.serving.params.server
    body = bytearray()
    try:
        async with asyncio.timeout(server.body_seconds):
            async for part in visit.request.stream():
                body += part
                if len(body) > server.max_body:
                    raise Refusal(413, "too_large", f"At most {server.max_body:,} bytes can be sent at once.")
    except TimeoutError:
        raise Refusal(408, "timeout", "What you sent did not arrive in time.") from None
    return bytes(body)


def _fault(visit: Visit, error: Exception) -> Response:
    refused = refusal(error)
    if refused.status == 500:
        log.exception("A page failed by a mistake of ours.", exc_info=error)
    text = refused.message[:1].upper() + refused.message[1:].rstrip(".") + "."
    return message(visit, TITLES.get(refused.status, "Something went wrong"), text, status=refused.status)


def message(
    visit: Visit,
    title: str,
    text: str,
    status: int = 200,
    *,
    confirm: tuple[str, str] | None = None,
    back: str | None = None,
    back_label: str = "To the feed",
) -> Response:
    """A page that says one thing; with `confirm`, a path to post to and a button's name, it asks for it."""
    values = {"title": title, "text": text, "confirm": confirm, "back_label": back_label}
    return draw(visit, "message.html", status, back=back or f"{visit.root}/", **values)


def draw(visit: Visit, template: str, status: int = 200, **values: object) -> HTMLResponse:
    """A page from its template. Everything in it is escaped unless it is Markup."""
    serving = visit.serving
    common = {"root": visit.root, "sample": serving.sample, "other": serving.other, "here": "", "notice": None}
    common["telegram"] = serving.play is not None
    common["static"] = lambda name: f"{visit.root}/static/{name}?v={static_files()[name].digest}"
    text = _templates().get_template(template).render(**(common | values))
    # no-cache: the browser asks again, but keeps the page as it stood for the way back
    return HTMLResponse(text, status, headers={"cache-control": "private, no-cache"})


def see_other(visit: Visit, path: str) -> RedirectResponse:
    """Go on to a page of this installation after a form."""
    return RedirectResponse(visit.root + path, 303)


def needs_owner(visit: Visit) -> None:
    """Raises Refusal when this person may not change what all share."""
    with reading(visit.serving.engine) as connection:
        if not visit.may_change(connection):
            raise Refusal(403, "forbidden", "Only an owner of this server can change what all share.")


def record(visit: Visit, happened: Sequence[Event]) -> None:
    """Add events to the log; they are durable on return. Raises InvalidEvent, NotDurable, Overloaded."""
    surfaces.record(visit.serving, happened, visit.now)


def inline_json(value: Any) -> Markup:
    """JSON to stand inside a script element, where no "<" of it can end the element."""
    text = json.dumps(value, separators=(",", ":"), allow_nan=False)
    return Markup(text.replace("<", "\\u003c").replace("&", "\\u0026"))


@dataclass(frozen=True)
class StaticFile:
    """A file that pages load. `digest` changes with its content, so that browsers may keep it for ever."""

    body: bytes
    type: str
    digest: str


@lru_cache(1)
def static_files() -> dict[str, StaticFile]:
    """The files that pages load, by their path below `pages`."""
    types = {".css": "text/css; charset=utf-8", ".js": "text/javascript; charset=utf-8", ".svg": "image/svg+xml"}
    found = {}
    for path in sorted(PAGES.rglob("*")):
        if path.suffix in types:
            body = path.read_bytes()
            name = path.relative_to(PAGES).as_posix()
            found[name] = StaticFile(body, types[path.suffix], hashlib.sha256(body).hexdigest()[:12])
    return found


@lru_cache(1)
def _templates() -> jinja2.Environment:
    environment = jinja2.Environment(
        loader=jinja2.FileSystemLoader(PAGES),
        autoescape=True,
        undefined=jinja2.StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
        auto_reload=False,
    )
    environment.filters["quoted"] = lambda text: quote(str(text), safe="")
    environment.filters["topic"] = lambda label: label[:1].upper() + label[1:] if label.islower() else label
    return environment
