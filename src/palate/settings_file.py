"""A file of settings and the environment over it, as the struct that they are meant for.

A section of the file is a field that is a struct itself, and so on inwards; a variable names the way with two underscores:
`PALATE_NEWS__CLUSTERING__SIMILARITY=0.3`. Unknown names are refused.
"""

from __future__ import annotations

import re
import types
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any, TypeVar, get_args, get_origin

import msgspec

from palate.errors import SettingsError

RESERVED = {"PALATE_DATA", "PALATE_LEASH"}
"""Variables that begin like ours and are no settings: where tests find real data, and the supervisor's pipe."""

HIDDEN = "(hidden)"
PASSWORD = re.compile(r"(://[^/:@]*:|[?&]password=)(?:(?<=:).*(?=@)|(?<==)[^&]*)")
"""In the address of a database, with what comes before it as its first group."""

_PREFIX = "PALATE_"

Struct = TypeVar("Struct", bound=msgspec.Struct)


@dataclass(frozen=True)
class Setting:
    """One field, for documentation: where it stands, its type in words, its default, its meaning."""

    section: str | None
    """The way to it, with points between; None at the top."""
    name: str
    type: str
    default: object
    meaning: str
    about: str | None = None
    """What the section is for."""
    is_secret: bool = False
    """Whether its value is never shown."""


def read(struct: type[Struct], file: Path | None, environment: Mapping[str, str]) -> Struct:
    """All settings. Raises SettingsError that names the field."""
    values = _contents(file) if file is not None else {}
    where = _name(file)
    _convert(values, struct, where, strict=True)  # so that a fault in the file is blamed on the file
    _put_all(values, environment)
    return _convert(values, struct, "the PALATE_* variables", strict=False)


def read_section(section: str, struct: type[Struct], file: Path | None, environment: Mapping[str, str]) -> Struct:
    """One section alone, for a program that needs no other: what stands beside it isn't looked at. Raises SettingsError."""
    values = {name: part for name, part in (_contents(file) if file is not None else {}).items() if name == section}
    whole = msgspec.defstruct("Section", [(section, struct, struct())], forbid_unknown_fields=True)
    _convert(values, whole, _name(file), strict=True)
    of_section = f"{_PREFIX}{section.upper()}__"
    _put_all(values, {name: text for name, text in environment.items() if name.startswith(of_section)})
    found: Struct = getattr(_convert(values, whole, "the PALATE_* variables", strict=False), section)
    return found


def changed(struct: Struct, values: Mapping[str, Any], where: str) -> Struct:
    """The struct with other values of some fields, by their dotted ways. Raises SettingsError that names the field."""
    whole: dict[str, Any] = msgspec.to_builtins(struct)
    for path, value in values.items():
        *sections, name = path.split(".")
        part = whole
        for section in sections:
            part = part.setdefault(section, {})
            if not isinstance(part, dict):
                raise SettingsError(f"{path} (in {where}) names a section inside a plain value.")
        part[name] = value
    return _convert(whole, type(struct), where, strict=True)


def _name(file: Path | None) -> str:
    return str(file) if file is not None else "the defaults"


def _contents(file: Path) -> dict[str, Any]:
    import tomllib

    try:
        return tomllib.loads(file.read_text(encoding="utf-8"))
    except OSError as error:
        raise SettingsError(f"The settings file {file} can't be read: {error.strerror}.") from error
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
        raise SettingsError(f"The settings file {file} is no valid TOML: {error}.") from error


def _put_all(values: dict[str, Any], environment: Mapping[str, str]) -> None:
    for name, text in environment.items():
        if name.startswith(_PREFIX) and name not in RESERVED and text:
            _put(values, name.removeprefix(_PREFIX).lower().split("__"), text, name)


def _put(values: dict[str, Any], path: list[str], text: str, variable: str) -> None:
    *sections, name = path
    for section in sections:
        values = values.setdefault(section, {})
        if not isinstance(values, dict):
            raise SettingsError(f"{variable} names a section inside a plain value.")
    try:
        values[name] = msgspec.json.decode(text)  # numbers, true, lists; any other text stays text
    except (msgspec.DecodeError, UnicodeError):
        values[name] = text


def _convert(values: dict[str, Any], struct: type[Struct], where: str, strict: bool) -> Struct:
    try:
        return msgspec.convert(values, struct, strict=strict)
    except msgspec.ValidationError as error:
        raise SettingsError(_explain(str(error), struct, where)) from error


def _explain(message: str, struct: type[msgspec.Struct], where: str) -> str:
    reason, _, place = message.partition(" - at `$")
    path = place.rstrip("`").strip(".").removeprefix("[...]")
    unknown = re.search(r"unknown field `(.*)`", reason)
    if unknown is None:
        return f"Setting {path or '(top level)'} in {where}: {reason[0].lower()}{reason[1:]}."
    import difflib

    name = ".".join(part for part in (path, unknown[1]) if part)
    near = difflib.get_close_matches(name, list(_names(struct)), n=1)
    hint = f"; did you mean {near[0]}?" if near else "; docs/settings.md lists all."
    return f"There is no setting {name} (in {where}){hint}"


def _names(struct: type[msgspec.Struct]) -> Iterator[str]:
    for field in msgspec.structs.fields(struct):
        inner = _names(field.type) if _is_struct(field.type) else [""]
        yield from (f"{field.name}.{name}".rstrip(".") for name in inner)


def _is_struct(type_: Any) -> bool:
    return isinstance(type_, type) and issubclass(type_, msgspec.Struct)


# Documentation


def without_secrets(settings: msgspec.Struct) -> dict[str, Any]:
    """The settings as plain values that may be shown: secrets that are set read `HIDDEN`, and so do passwords in addresses."""
    values: dict[str, Any] = msgspec.to_builtins(settings)
    for setting in described(settings):
        part = values
        for name in setting.section.split(".") if setting.section else ():
            part = part[name]
        value = part[setting.name]
        if setting.is_secret and value is not None:
            part[setting.name] = HIDDEN
        elif isinstance(value, str):
            part[setting.name] = PASSWORD.sub(rf"\1{HIDDEN}", value)
    return values


def described(defaults: msgspec.Struct, section: str | None = None, about: str | None = None) -> Iterator[Setting]:
    """Every field that can be set, in order: a struct's own, then those of the structs in it."""
    parts = []
    for name, type_, meaning in _fields(type(defaults)):
        if _is_struct(type_):
            parts.append((name, meaning))
        else:
            default = getattr(defaults, name)
            yield Setting(section, name, _words(type_), default, meaning, about, _is_secret(type_))
    for name, meaning in parts:
        yield from described(getattr(defaults, name), f"{section}.{name}" if section else name, meaning)


def _fields(struct: type[msgspec.Struct]) -> Iterator[tuple[str, Any, str]]:
    """Name, type and docstring of each field; the docstring is the string that follows it in the source."""
    import ast
    import inspect
    import textwrap

    body = ast.parse(textwrap.dedent(inspect.getsource(struct))).body[0]
    assert isinstance(body, ast.ClassDef), "the source of a class begins with it"
    meanings: dict[str, str] = {}
    for statement, after in zip(body.body, [*body.body[1:], None], strict=True):
        if isinstance(statement, ast.AnnAssign) and isinstance(statement.target, ast.Name):
            text = after.value.value if isinstance(after, ast.Expr) and isinstance(after.value, ast.Constant) else None
            assert isinstance(text, str), f"{struct.__name__}.{statement.target.id} needs a docstring"
            meanings[statement.target.id] = " ".join(text.split())
    for field in msgspec.structs.fields(struct):
        yield field.name, field.type, meanings[field.name]


def _is_secret(type_: Any) -> bool:
    marks = get_args(type_)[1:] if get_origin(type_) is Annotated else ()
    here = any((mark.extra or {}).get("secret") for mark in marks if isinstance(mark, msgspec.Meta))
    return here or any(_is_secret(part) for part in get_args(type_))


def _words(type_: Any) -> str:
    if get_origin(type_) is Annotated:
        base, *marks = get_args(type_)
        bounds = [text for mark in marks if isinstance(mark, msgspec.Meta) for text in _bounds(mark)]
        return " ".join([_words(base), *bounds])
    if isinstance(type_, types.UnionType) or str(get_origin(type_)) == "typing.Union":
        return " or ".join(_words(part) for part in get_args(type_))
    if str(get_origin(type_)) == "typing.Literal":
        return " or ".join(f'"{value}"' for value in get_args(type_))
    if type_ is type(None):
        return "none"
    return type_.__name__ if isinstance(type_, type) and not get_args(type_) else str(type_).replace("palate.", "")


def _bounds(meta: msgspec.Meta) -> Iterator[str]:
    for sign, bound in ((">", meta.gt), ("≥", meta.ge), ("<", meta.lt), ("≤", meta.le)):
        if bound is not None:
            yield f"{sign} {bound}"
