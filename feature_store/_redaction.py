"""Secrets: what hides them in text, and URLs whose passwords hold any character.

`feature_store.yaml` says which values are secret when it is read (`hide`). From then on, no error of the library shows
them, whoever wrote its text: a driver's message that repeats a URL or a setting is cleaned as well.
"""

from __future__ import annotations

import re
from urllib.parse import quote, unquote

HIDDEN = "***"

# A shorter text is in other words by chance: hiding it would make messages unreadable. Where settings are shown one by
# one, short values are hidden too.
_SHORTEST = 4
# Ports, counts, and words of the configuration itself: as parts of a message they are no secret.
_HARMLESS = re.compile(r"(?i)\d{1,5}|true|false|none|null|local|spark|localhost|127\.0\.0\.1")

# Up to the last @, since a password may hold one: rather too much is hidden than too little.
_URL_PASSWORD = re.compile(r"(://[^:/?#@\s]*):\S*@")
_SETTING = re.compile(r"(?i)([?&][a-z0-9_.]*(?:pass|secret|token|key|credential|sig)[a-z0-9_.]*=)[^&\s]*")
_SCHEME = re.compile(r"[A-Za-z][A-Za-z0-9+.-]*://")
# Schemes whose URLs have a path where others have a host; a path may hold an @.
_OF_A_PATH = ("unix", "file", "sqlite")
_HOST = re.compile(r"(\[[^]]*\]|[^:\[\]]+)(:\d+)?")
_LONE_PERCENT = re.compile(r"%(?![0-9A-Fa-f]{2})")

_hidden: dict[str, str] = {}


def hide(value: str, shown: str = HIDDEN) -> None:
    """Hide a text in all errors from now on; `shown` takes its place. Its percent-encoded form is hidden as well."""
    for form in {value, quote(value, safe=""), unquote(value)}:
        if len(form) >= _SHORTEST and not _HARMLESS.fullmatch(form):
            _hidden[form] = shown


def hide_url(url: str, shown: str = HIDDEN) -> None:
    """Hide a URL, its password, and the place that it names."""
    hide(url, shown)
    split = _parts(url)
    place = split[2] if split is not None else _SCHEME.sub("", url, count=1)
    hide(re.split(r"[/?#]", place, maxsplit=1)[0], shown)
    hide_password(url)


def hide_password(url: str) -> None:
    """Hide the password of a URL."""
    split = _parts(url)
    if split is not None:
        hide(split[1].partition(":")[2])


def redacted(text: str) -> str:
    """A text without what is to be hidden."""
    for value in sorted((value for value in _hidden if value in text), key=len, reverse=True):
        text = text.replace(value, _hidden[value])
    return text


def without_secrets(text: str) -> str:
    """A text that may be or hold a URL, without its password and the secrets among its settings."""
    return _SETTING.sub(rf"\1{HIDDEN}", _URL_PASSWORD.sub(rf"\1:{HIDDEN}@", text))


def with_quoted_password(url: str) -> str:
    """A URL as parsers read it, of one whose password holds characters that end or begin other parts (`/ # ? @ %`).

    What a URL's grammar reads as its author means stays as it is. A `%` before two hexadecimal digits is taken for an
    escape.
    """
    split = _parts(url)
    if split is None:
        return url
    scheme, userinfo, place = split
    user, colon, password = userinfo.partition(":")
    return f"{scheme}{_quoted(user)}{colon}{_quoted(password)}@{place}"


def has_user(url: str) -> bool:
    """Whether a URL has a user or a password in it."""
    return _parts(url) is not None


def with_user(url: str, username: str, password: str) -> str:
    """A URL that has none yet, with a user and a password of any characters."""
    scheme, mark, rest = url.partition("://")
    return f"{scheme}{mark}{quote(username, safe='')}:{quote(password, safe='')}@{rest}"


def _quoted(text: str) -> str:
    return quote(_LONE_PERCENT.sub("%25", text), safe="%:!$&'()*+,;=~")


def _parts(url: str) -> tuple[str, str, str] | None:
    """Scheme, user and password, and the rest; None of a URL without a user."""
    scheme = _SCHEME.match(url)
    if scheme is None or "@" not in url or scheme[0][:-3].partition("+")[0] in _OF_A_PATH:
        return None
    rest = url[scheme.end() :]
    found = re.fullmatch(r"([^/?#]*)([^?#]*)(\?[^#]*)?(#.*)?", rest, re.DOTALL)
    assert found is not None
    authority, path, query, fragment = (part or "" for part in found.groups())
    misread = "@" in path or "@" in fragment or ("@" in query and "=" not in query.partition("@")[0])
    if not misread and "@" not in authority:
        if _HOST.fullmatch(authority):
            return None
        misread = True  # no host: what looks like one is a part of the password
    userinfo, _, place = rest.rpartition("@") if misread else _at_last(authority, path + query + fragment)
    return scheme[0], userinfo, place


def _at_last(authority: str, rest: str) -> tuple[str, str, str]:
    userinfo, mark, host = authority.rpartition("@")
    return userinfo, mark, host + rest
