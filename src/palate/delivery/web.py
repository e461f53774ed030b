"""The web pages of one installation: their addresses, and the files that they load."""

from __future__ import annotations

from starlette.requests import Request
from starlette.responses import PlainTextResponse, Response
from starlette.routing import Route, Router
from starlette.types import ASGIApp

from palate.delivery import (
    web_experiments,
    web_feed,
    web_item,
    web_labels,
    web_look,
    web_me,
    web_quality,
    web_sources,
    web_start,
    web_stories,
    web_telegram,
    web_training,
)
from palate.delivery.context import Serving
from palate.delivery.web_page import Do, Visit, message, page, static_files


def create_pages(serving: Serving) -> ASGIApp:
    """The pages of one installation as an application; the scope's `root_path` says where it is mounted."""
    return Router(routes(serving))


def routes(serving: Serving) -> list[Route]:
    """Every address of a page."""
    return [
        _get("/", serving, web_feed.feed_page),
        _get("/more", serving, web_feed.more_cards),
        _post("/act", serving, web_feed.act),
        _post("/seen", serving, web_feed.seen),
        _get("/stories", serving, web_stories.stories),
        _get("/saved", serving, web_feed.saved),
        _get("/item/{id:path}", serving, web_item.item),
        _get("/start", serving, web_start.start),
        _post("/start", serving, web_start.begin),
        _get("/sources", serving, web_sources.sources),
        _get("/sources.opml", serving, web_sources.export_opml),
        _post("/sources/add", serving, web_sources.add),
        _post("/sources/change", serving, web_sources.change),
        _post("/sources/import", serving, web_sources.import_opml),
        _get("/labels", serving, web_labels.labels_page),
        _post("/labels", serving, web_labels.answer),
        _post("/labels/correct", serving, web_labels.correct),
        _get("/quality", serving, web_quality.quality_page),
        _get("/experiments", serving, web_experiments.experiments_page),
        _post("/experiments", serving, web_experiments.stop),
        _get("/training", serving, web_training.training),
        _get("/look", serving, web_look.look),
        _get("/telegram", serving, web_telegram.telegram),
        _post("/telegram", serving, web_telegram.say),
        _get("/telegram/chat", serving, web_telegram.chat),
        _get("/telegram/hub", serving, web_telegram.hub),
        _get("/me", serving, web_me.me),
        _post("/me", serving, web_me.choose),
        _get("/me/export", serving, web_me.export),
        _get("/me/forget", serving, web_me.ask_forget),
        _post("/me/forget", serving, web_me.forget),
        _get("/login/{token}", serving, web_me.ask_login),
        _post("/login/{token}", serving, web_me.login),
        _post("/logout", serving, web_me.logout),
        Route("/static/{name:path}", static, methods=["GET"]),
        Route("/robots.txt", robots, methods=["GET"]),
        _get("/{path:path}", serving, missing),
    ]


def _get(path: str, serving: Serving, do: Do) -> Route:
    return Route(path, page(serving, do), methods=["GET"])


def _post(path: str, serving: Serving, do: Do) -> Route:
    return Route(path, page(serving, do), methods=["POST"])


async def static(request: Request) -> Response:
    """A file that pages load; its address changes with its content, so it may be kept for ever."""
    file = static_files().get(request.path_params["name"])
    if file is None:
        return PlainTextResponse("There is no such file.", 404)
    kept = "public, max-age=31536000, immutable" if request.query_params.get("v") == file.digest else "no-cache"
    return Response(file.body, media_type=file.type, headers={"cache-control": kept})


async def robots(request: Request) -> Response:
    """A feed made for one person is nothing for a search engine."""
    return PlainTextResponse("User-agent: *\nDisallow: /\n")


def missing(visit: Visit) -> Response:
    """The page for an address that leads nowhere."""
    return message(visit, "There is nothing here", "Perhaps the link was cut short.", status=404)
