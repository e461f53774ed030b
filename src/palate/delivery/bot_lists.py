"""Lists of the bot: what everybody likes, and the stories of the day."""

from __future__ import annotations

import html
from datetime import timedelta

import numpy as np

from palate import catalog, front_page
from palate.candidates import filters, popular
from palate.database import reading
from palate.delivery.bot_cards import web_link
from palate.delivery.bot_talk import Reply, Talk, answer, choices_of, reply, text_call
from palate.front_page import Asked, Story
from palate.rules import Viewer
from palate.text.cleaning import plain_line

LENGTH = 10
TITLE = 150
NAME = 40
"""Characters of a title and of a source's name: ten lines fit into one message."""
DAY = timedelta(days=1)


def top(talk: Talk) -> Reply:
    """The posts that everybody likes most."""
    pool, chosen = talk.serving.live.pool, choices_of(talk)
    allowed = filters.in_window(pool, talk.now, talk.window(chosen)) & filters.in_languages(pool, chosen.languages)
    allowed &= filters.open_to(pool, _viewer(talk), talk.now)
    rows = popular.find(pool, allowed, LENGTH)
    rows = rows[np.argsort(-pool.popularity[rows], kind="stable")]
    keys = pool.keys[rows].tolist()
    with reading(talk.serving.engine) as connection:
        stored = catalog.get_many(connection, keys)
    lines = [
        _line(place, one.item.title, one.item.url, one.source_title or one.item.source)
        for place, one in enumerate((stored[key] for key in keys if key in stored), start=1)
    ]
    text = "\n".join([talk.say("top"), *lines]) if lines else talk.say("nothing")
    return reply(talk, answer(talk, text_call(text)))


def stories(talk: Talk) -> Reply:
    """The most important stories of the last day."""
    return reply(talk, answer(talk, text_call(stories_text(talk, "stories") or talk.say("stories_none"))))


def stories_text(talk: Talk, heading: str) -> str | None:
    """The stories of the last day in the languages that the person reads; None when there are none."""
    languages = choices_of(talk).languages
    language = languages[0] if len(languages) == 1 else None
    asked = Asked(talk.now, DAY, language, limit=LENGTH, viewer=_viewer(talk))
    found = front_page.read(talk.serving.live, asked, talk.serving.params.stories)
    lines = [_story(place, story) for place, story in enumerate(found, start=1)]
    return "\n".join([talk.say(heading), *lines]) if lines else None


def _viewer(talk: Talk) -> Viewer:
    with reading(talk.serving.engine) as connection:
        return talk.serving.live.viewer(connection, talk.user)


def _story(place: int, story: Story) -> str:
    head, sources = story.headline, story.standing.sources
    line = _line(place, head.title, head.url, head.source_title or head.source)
    return f"{line} +{sources - 1}" if sources > 1 else line


def _line(place: int, title: str | None, url: str | None, source: str | None) -> str:
    name = plain_line(source, NAME)
    words = html.escape(plain_line(title, TITLE) or name or "…")
    link = web_link(url)
    shown = f'<a href="{html.escape(link)}">{words}</a>' if link is not None and len(link) <= TITLE * 2 else words
    return f"{place}. {shown}" + (f" · {html.escape(name)}" if name and title else "")
