"""
From a recipient to a folder: ``/var/mail/{domain}/{user}``.

Rule 1: a recipient either gives a name that is safe in a path or is refused.
Nothing unsafe is replaced or cut away: that is how two people would come to
share a folder.

Rule 2: ``A@Example.ORG`` and ``a@example.org`` are one mailbox, and so are two
spellings that Unicode calls canonically equal. Nothing else is made equal.

Rule 3: the folder lies below the fixed part of the template, at the depth
that the template has; so no mailbox is inside of another.

Nothing here touches a disk.
"""

# Paths are text here, and stay as they were spelled.
# ruff: noqa: PTH118

from __future__ import annotations

import glob
import os.path
import re
import unicodedata
from typing import NamedTuple

from smtpfw.errors import ConfigError, MailboxUnavailable

__all__ = ["Mailbox", "PathTemplate"]

#: NAME_MAX of Linux file systems, in octets.
MAX_NAME_BYTES = 255

_FIELDS = ("user", "domain")
_FIELD = re.compile(r"\{(user|domain)\}")
_BRACES = re.compile(r"\{([^{}]*)\}")

#: Unicode categories that no name may hold: controls, invisible formatting (a zero-width space would make two names
#: that look alike), surrogates (no file name can hold them), private and unassigned ones, line separators.
_UNSAFE_CATEGORIES = frozenset(("Cc", "Cf", "Cs", "Co", "Cn", "Zl", "Zp"))
#: An address literal, as the grammar leaves it, in lower case.
_LITERAL = re.compile(r"\[[0-9a-z.:-]+\]")


class Mailbox(NamedTuple):
    """
    Where mail for one recipient may go.

    :ivar user: the local part, canonical.
    :ivar domain: the domain, canonical.
    :ivar path: the Maildir folder.
    """

    user: str
    domain: str
    path: str


class PathTemplate:
    """
    A checked path with ``{user}`` and ``{domain}`` in it, or without.

    :param text: what the operator wrote.
    :param base: the folder that a relative path starts from.
    :raises ConfigError: for another name in braces, a brace alone, or a path whose folders could be confused.
    """

    def __init__(self, text: str, base: str = "") -> None:
        found = [match[1] for match in _BRACES.finditer(text)]
        for name in found:
            if name not in _FIELDS:
                raise _unusable(text, f"{{{name}}} is unknown; there are {{user}} and {{domain}}")
        for brace in _BRACES.sub("", text):
            if brace in "{}":
                raise _unusable(text, f"a {brace!r} stands alone; braces are for {{user}} and {{domain}}")
        if "\0" in text:
            raise _unusable(text, "a path can't hold a NUL")
        #: Whether each folder belongs to one user.
        self.per_user = "user" in found
        #: Whether folders differ between domains.
        self.per_domain = "domain" in found

        parts = [part for part in text.split("/") if part not in ("", ".")]
        if not parts:
            raise _unusable(text, "it names no folder")
        first = next((index for index, part in enumerate(parts) if _FIELD.search(part)), len(parts))
        _check_variable_parts(text, parts[first:])
        root = "/" if text.startswith("/") else ""
        #: The part that is the same for every recipient; for a template without fields, the folder itself.
        self.prefix = os.path.join(base, root + "/".join(parts[:first]))
        self._variable = tuple(parts[first:])

    def __str__(self) -> str:
        return os.path.join(self.prefix, *self._variable)

    @property
    def fixed(self) -> bool:
        """Whether there is one folder for all."""
        return not self._variable

    def mailboxes(self, local_part: str, domain: str) -> list[Mailbox]:
        """
        The folders that a recipient's mail may go to, best first: its own, then that of ``user`` for ``user+tag``.

        :raises MailboxUnavailable: when a name that the template needs is not safe in a path.
        """
        user, domain = _canonical(local_part), _canonical(domain)
        if self.per_domain and not _safe_domain(domain):
            raise MailboxUnavailable
        if not self.per_user:
            return [Mailbox(user, domain, self._path(user, domain))]
        untagged = user.partition("+")[0]
        users = [user, untagged] if untagged not in ("", user) else [user]
        if not all(map(_safe, users)):
            raise MailboxUnavailable
        return [Mailbox(name, domain, self._path(name, domain)) for name in users]

    def glob_pattern(self) -> str:
        """A pattern for :mod:`glob` that every folder of this template matches."""
        parts = ("*".join(map(glob.escape, _FIELD.split(part)[::2])) for part in self._variable)
        return os.path.join(glob.escape(self.prefix), *parts)

    def _path(self, user: str, domain: str) -> str:
        values = {"user": user, "domain": domain}
        # In one pass: a user who is called "{domain}" must stay so.
        parts = [_FIELD.sub(lambda match: values[match[1]], part) for part in self._variable]
        if any(len(part.encode()) > MAX_NAME_BYTES for part in parts):
            raise MailboxUnavailable
        return os.path.join(self.prefix, *parts)


def _unusable(text: str, reason: str) -> ConfigError:
    return ConfigError(f"maildir path {text!r}: {reason}")


def _check_variable_parts(text: str, parts: list[str]) -> None:
    for part in parts:
        if part == "..":
            raise _unusable(text, "no '..' may follow {user} or {domain}")
        # In {domain}-{user}, a-b.c's d and a's b.c-d are the same name. No domain holds an @, so that keeps them apart.
        between = _FIELD.split(part)[2:-1:2]
        if not all("@" in literal for literal in between):
            raise _unusable(text, "two fields in one part of the path need an '@' or a '/' between them")


def _canonical(name: str) -> str:
    # Twice, since either step can undo the other: KELVIN SIGN is composed to K, and some letters grow when lowered.
    return unicodedata.normalize("NFC", unicodedata.normalize("NFC", name).lower())


def _safe(name: str) -> bool:
    if not name or name.startswith("."):  # "." and "..", and hidden folders
        return False
    if name.isascii():
        return name.isprintable() and "/" not in name and "\\" not in name
    return not any(char in "/\\" or unicodedata.category(char) in _UNSAFE_CATEGORIES for char in name)


def _safe_domain(name: str) -> bool:
    if name.startswith("["):
        return _LITERAL.fullmatch(name) is not None
    return "@" not in name and _safe(name)
