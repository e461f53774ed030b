"""A person's own page: what they chose, what is known of them, and the way in and out."""

from __future__ import annotations

import msgspec
import sqlalchemy as sa
from starlette.responses import Response

from palate import database, people
from palate.database import reading, writing
from palate.delivery.forgetting import delete_person
from palate.delivery.refusals import Refusal
from palate.delivery.surfaces import everything_known, pool_topics, spellings
from palate.delivery.web_page import ANONYMOUS, Visit, draw, forget_visitor, message, remember, see_other
from palate.people import Choices, Person

LANGUAGES = {
    "ar": "Arabic", "be": "Belarusian", "cs": "Czech", "de": "German", "en": "English", "es": "Spanish", "fa": "Persian",
    "fr": "French", "hi": "Hindi", "it": "Italian", "ja": "Japanese", "kk": "Kazakh", "ko": "Korean", "nl": "Dutch",
    "pl": "Polish", "pt": "Portuguese", "ru": "Russian", "sr": "Serbian", "sv": "Swedish", "tr": "Turkish",
    "uk": "Ukrainian", "uz": "Uzbek", "zh": "Chinese",
}  # fmt: skip


def me(visit: Visit) -> Response:
    """The page."""
    with reading(visit.serving.engine) as connection:
        person = people.get(connection, visit.user)
        hidden = _hidden(connection, person)
    choices = person.choices if person else Choices()
    pool = visit.serving.live.pool
    languages = {code: LANGUAGES.get(code, code) for code in sorted({*pool.languages.values, *choices.languages})}
    return draw(
        visit,
        "me.html",
        here="/me",
        logged_in=not visit.user.startswith(ANONYMOUS),
        name=person.id if person else visit.user,
        topics=pool_topics(pool, choices.topics),
        chosen_topics=choices.topics,
        languages=list(languages.items()),
        chosen_languages=choices.languages,
        ration=choices.daily_ration,
        window=choices.window_days,
        notice="Kept." if "kept" in visit.query else None,
        default_window=f"{visit.serving.params.feed.window_days:g}",
        hidden=hidden,
    )


def _hidden(connection: sa.Connection, person: Person | None) -> list[dict[str, str]]:
    if person is None:
        return []
    keys = [key for key, choice in people.source_choices(connection, person.key).items() if choice == "hidden"]
    table = database.sources
    query = sa.select(table.c.id, table.c.title, table.c.address).where(table.c.key.in_(keys)).order_by(table.c.title)
    return [{"id": row.id, "title": row.title or row.address} for row in connection.execute(query)]


def choose(visit: Visit) -> Response:
    """Keep what the person chose."""
    with writing(visit.serving.engine) as connection:
        person = visit.make_person(connection)
        kept = people.choices(connection, person)
        people.set_choices(
            connection,
            person,
            msgspec.structs.replace(
                kept,
                topics=spellings(visit.serving.live.pool, visit.all_given("topic")),
                languages=tuple(visit.all_given("language")),
                window_days=_number(visit, "window"),
                daily_ration=_number(visit, "ration") if visit.given("length") == "ration" else None,
            ),
        )
    return see_other(visit, "/me?kept=1")


def _number(visit: Visit, name: str) -> int | None:
    """A whole number of the form; None for an empty field."""
    text = visit.given(name, 20)
    if text and not (text.isascii() and text.isdigit()):
        raise Refusal(400, "invalid_request", f"{text} is no whole number.")
    return int(text) if text else None


def export(visit: Visit) -> Response:
    """Everything that is known of the person, as one JSON file."""
    return Response(everything_known(visit.serving, visit.user), media_type="application/json")


def ask_forget(visit: Visit) -> Response:
    """Ask once more before everything is gone."""
    confirm = (f"{visit.root}/me/forget", "Forget me for good")
    text = "Your choices and all that you liked, saved and read will be deleted, also from the model. Nothing brings them back."
    return message(visit, "Forget me?", text, confirm=confirm, back=f"{visit.root}/me", back_label="Keep it all")


def forget(visit: Visit) -> Response:
    """Delete the person everywhere; the browser is a stranger from now on."""
    delete_person(visit.serving.engine, visit.serving.data, visit.user)
    response = message(visit, "Forgotten", "Nothing is known of you here any more.")
    forget_visitor(visit, response)
    return response


def ask_login(visit: Visit) -> Response:
    """The page of a login link. It uses nothing up: mail programs and messengers open links by themselves."""
    confirm = (visit.request.url.path, "Log in")
    text = "This link logs this browser in, once. What you liked here before comes along."
    return message(visit, "Log in", text, confirm=confirm)


def login(visit: Visit) -> Response:
    """Use a login link up, and join who was here before to the person it is for."""
    with writing(visit.serving.engine) as connection:
        person = people.redeem_login(connection, visit.request.path_params["token"], visit.now)
        if person is None:
            text = "It was used already, or it is too old. Ask the owner for a new one: palate users login-link NAME."
            return message(visit, "This link works no longer", text, status=410)
        if visit.user.startswith(ANONYMOUS):
            people.merge(connection, visit.user, person)
        users = database.users
        id = connection.scalar(sa.select(users.c.id).where(users.c.key == person))
    assert id is not None, "a login belongs to a person"
    response = see_other(visit, "/")
    remember(visit, response, id)
    return response


def logout(visit: Visit) -> Response:
    """Let the browser be a stranger from now on."""
    response = see_other(visit, "/")
    forget_visitor(visit, response)
    return response
