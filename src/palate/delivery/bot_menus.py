"""Menus of the bot: topics, sources, languages and settings. A press changes one thing and redraws the menu in place."""

from __future__ import annotations

import hashlib
from dataclasses import replace

from palate import chats, people, subscriptions
from palate.chats import Language
from palate.database import reading, writing
from palate.delivery.bot_talk import (
    Reply,
    Rows,
    Talk,
    answer,
    changed_menu,
    choices_of,
    choose,
    in_rows,
    known_person,
    person_key,
    reply,
    text_call,
)
from palate.delivery.surfaces import pool_topics, spellings
from palate.outbox import Call
from palate.text.cleaning import plain_line

ON, OFF = "✅ ", ""
PAGE = 8
"""Sources on one page."""
MOST_LANGUAGES = 12
DAYS = (1, 3, 7, 30)
RATIONS = (5, 10, 20, 50)
INTERFACE: dict[Language, str] = {"en": "English", "ru": "Русский"}
NAME = 40
"""Characters of a button."""


def topics(talk: Talk) -> Reply:
    """The menu of topics."""
    text, rows = _topics(talk)
    return reply(talk, answer(talk, text_call(text, rows)))


def topics_call(talk: Talk) -> Call:
    """How it works, with the topics to begin with."""
    _, rows = _topics(talk)
    return text_call(talk.say("how"), rows)


def toggle_topic(talk: Talk, key: int) -> Reply:
    """Choose a topic, or choose it no more."""
    chosen = choices_of(talk).topics
    offered = pool_topics(talk.serving.live.pool, chosen)
    topic = next((one for one in offered if _topic_key(one) == key), None)
    if topic is None:
        return Reply((), talk.say("gone"))
    same = set(spellings(talk.serving.live.pool, [topic]))
    if same & set(chosen):
        choose(talk, topics=tuple(one for one in chosen if one not in same))
    else:
        choose(talk, topics=spellings(talk.serving.live.pool, [*chosen, topic]))
    return reply(talk, changed_menu(talk, *_topics(talk)), notice=talk.say("done"))


def _topics(talk: Talk) -> tuple[str, Rows]:
    chosen = choices_of(talk).topics
    offered = pool_topics(talk.serving.live.pool, chosen)
    if not offered:
        return talk.say("topics_none"), []
    on = {one.casefold() for one in chosen}
    buttons = [talk.button((ON if one.casefold() in on else OFF) + one[:NAME], "t", _topic_key(one)) for one in offered]
    return talk.say("topics"), in_rows(buttons, 2)


def _topic_key(topic: str) -> int:
    """A topic's number in a button, where its text would not fit."""
    digest = hashlib.blake2b(topic.casefold().encode("utf-8", "surrogatepass"), digest_size=8)
    return int.from_bytes(digest.digest())


def sources(talk: Talk) -> Reply:
    """The menu of sources."""
    text, rows = _sources(talk, 0)
    return reply(talk, answer(talk, text_call(text, rows)))


def sources_page(talk: Talk, page: int) -> Reply:
    """Another page of it."""
    return reply(talk, changed_menu(talk, *_sources(talk, page)))


def toggle_source(talk: Talk, key: int) -> Reply:
    """Hide a source (by key), or show it again."""
    with writing(talk.serving.engine) as connection:
        person = person_key(connection, talk)
        found = subscriptions.list_sources(connection)
        place = next((place for place, source in enumerate(found) if source.key == key), None)
        if place is None:
            return Reply((), talk.say("gone"))
        is_hidden = people.source_choices(connection, person).get(key) == "hidden"
        people.choose_source(connection, person, key, None if is_hidden else "hidden", talk.now)
    name = plain_line(found[place].title or found[place].id, NAME) or ""
    notice = talk.say("shown" if is_hidden else "hidden", name=name)
    return reply(talk, changed_menu(talk, *_sources(talk, place // PAGE)), notice=notice)


def _sources(talk: Talk, page: int) -> tuple[str, Rows]:
    with reading(talk.serving.engine) as connection:
        found = subscriptions.list_sources(connection)
        person = known_person(connection, talk)
        chosen = people.source_choices(connection, person) if person is not None else {}
    if not found:
        return talk.say("sources_none"), []
    page = min(page, (len(found) - 1) // PAGE)
    rows = [
        [talk.button(f"{'🙈' if chosen.get(one.key) == 'hidden' else '✅'} {_name(one)}", "c", one.key)]
        for one in found[page * PAGE : (page + 1) * PAGE]
    ]
    back = [talk.button("‹", "p", page - 1)] if page else []
    on = [talk.button("›", "p", page + 1)] if (page + 1) * PAGE < len(found) else []
    return talk.say("sources"), [*rows, *([back + on] if back or on else [])]


def _name(source: subscriptions.Source) -> str:
    return plain_line(source.title or source.id, NAME) or source.id[:NAME]


def languages(talk: Talk) -> Reply:
    """The menu of languages."""
    return reply(talk, answer(talk, text_call(*_languages(talk))))


def choose_interface(talk: Talk, key: int) -> Reply:
    """Let the bot speak another language."""
    code = _code(key)
    if code not in INTERFACE:
        return Reply((), talk.say("gone"))
    language: Language = "ru" if code == "ru" else "en"
    with writing(talk.serving.engine) as connection:
        chats.change(connection, talk.chat.chat, language=language)
    talk = replace(talk, chat=replace(talk.chat, language=language))
    return reply(talk, changed_menu(talk, *_languages(talk)), notice=talk.say("done"))


def toggle_language(talk: Talk, key: int) -> Reply:
    """Read a language, or read it no more."""
    code, chosen = _code(key), choices_of(talk).languages
    if code not in {*_offered(talk), *chosen}:
        return Reply((), talk.say("gone"))
    choose(talk, languages=tuple(one for one in chosen if one != code) if code in chosen else (*chosen, code))
    return reply(talk, changed_menu(talk, *_languages(talk)), notice=talk.say("done"))


def _languages(talk: Talk) -> tuple[str, Rows]:
    own = [
        talk.button((ON if code == talk.chat.language else OFF) + name, "i", _number(code))
        for code, name in INTERFACE.items()
    ]
    chosen = choices_of(talk).languages
    offered = sorted({*_offered(talk), *chosen})[:MOST_LANGUAGES]
    read = [talk.button((ON if code in chosen else OFF) + code, "r", _number(code)) for code in offered]
    return talk.say("language"), [own, *in_rows(read, 4)]


def _offered(talk: Talk) -> set[str]:
    return {code for code in talk.serving.live.pool.languages.values if len(code) <= 8 and code.isascii()}


def _number(code: str) -> int:
    return int.from_bytes(code.encode("ascii"))


def _code(number: int) -> str:
    return number.to_bytes(8).lstrip(b"\0").decode("ascii", "replace")


def settings(talk: Talk) -> Reply:
    """The menu of settings."""
    return reply(talk, answer(talk, text_call(*_settings(talk))))


def choose_days(talk: Talk, days: int) -> Reply:
    """Days after which a post is too old; the installation's where they are chosen already."""
    now = choices_of(talk).window_days
    choose(talk, window_days=None if now == days else days)
    return reply(talk, changed_menu(talk, *_settings(talk)), notice=talk.say("done"))


def choose_ration(talk: Talk, count: int) -> Reply:
    """Posts a day; 0 for endless."""
    choose(talk, daily_ration=count or None)
    return reply(talk, changed_menu(talk, *_settings(talk)), notice=talk.say("done"))


def toggle_deletion(talk: Talk, _key: int) -> Reply:
    """Whether a post disappears when it is disliked."""
    wanted = not talk.chat.delete_disliked
    with writing(talk.serving.engine) as connection:
        chats.change(connection, talk.chat.chat, delete_disliked=int(wanted))
    talk = replace(talk, chat=replace(talk.chat, delete_disliked=wanted))
    return reply(talk, changed_menu(talk, *_settings(talk)), notice=talk.say("done"))


def _settings(talk: Talk) -> tuple[str, Rows]:
    chosen = choices_of(talk)
    window = talk.window(chosen).days
    days = [
        talk.button((ON if one == window else OFF) + talk.say("day" if one == 1 else "days", count=one), "w", one)
        for one in DAYS
    ]
    rations = [
        talk.button(
            (ON if (one or None) == chosen.daily_ration else OFF)
            + (talk.say("a_day", count=one) if one else talk.say("endless")),
            "n",
            one,
        )
        for one in (*RATIONS, 0)
    ]
    deletion = talk.button((ON if talk.chat.delete_disliked else "☐ ") + talk.say("deleting"), "x", 0)
    return talk.say("settings"), [days, *in_rows(rations, 3), [deletion]]
