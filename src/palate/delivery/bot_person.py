"""What the bot does with the person themselves: the way to the web page, all that is known of them, and the end."""

from __future__ import annotations

from datetime import timedelta

from palate import people
from palate.database import writing
from palate.delivery.bot_talk import Reply, Talk, answer, changed_menu, person_key, reply, text_call
from palate.delivery.forgetting import delete_person
from palate.outbox import Call

LOGIN = timedelta(hours=1)
FILE = "palate.json"


def web(talk: Talk) -> Reply:
    """A link that logs a browser in: the page and the bot are one person."""
    address = talk.desk.params.web_address
    if address is None:
        return reply(talk, answer(talk, text_call(talk.say("web_none"))))
    with writing(talk.serving.engine) as connection:
        token = people.create_login(connection, person_key(connection, talk), talk.now, LOGIN)
    link = f"{address.rstrip('/')}/login/{token}"
    return reply(talk, answer(talk, text_call(talk.say("web", link=link))))


def export(talk: Talk) -> Reply:
    """A file with all that is known; it is made when its turn to be sent comes."""
    call = Call("sendDocument", {"document": FILE, "caption": talk.say("export")})
    return reply(talk, answer(talk, call))


def ask_forget(talk: Talk) -> Reply:
    """Ask once more before everything is gone."""
    yes = talk.button(talk.say("forget_yes"), "f", 1)
    no = talk.button(talk.say("forget_no"), "f", 0)
    return reply(talk, answer(talk, text_call(talk.say("forget"), [[yes], [no]])))


def forget(talk: Talk, confirmed: int) -> Reply:
    """Delete the person everywhere, or leave everything as it is."""
    if not confirmed:
        return reply(talk, changed_menu(talk, talk.say("kept"), []))
    delete_person(talk.serving.engine, talk.serving.data, talk.user)
    return reply(talk, changed_menu(talk, talk.say("forgotten"), []))
