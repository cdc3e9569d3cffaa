"""
What an operator has written, as a tree of values that have been read, each with its place.

A file and the command line give the same tree: options are a small file, with
one listener and one place to deliver to. What the values mean together, and
whether they fit, is for :mod:`smtpfw.config.plan`.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any, Literal

from smtpfw.config.places import Place
from smtpfw.config.settings import BY_NAME

__all__ = ["LISTENER", "AuthTree", "ListenTree", "RouteTree", "ServiceTree", "Text", "Values", "tree_of_options"]

#: What the one listener of the command line is called, and the one place to deliver to.
LISTENER = "main"


class Values(Mapping[str, Any]):
    """
    Settings by their names. Those that were not given have their defaults, and are not among its keys.

    :param place: of the table that they stand in.
    """

    def __init__(self, place: Place) -> None:
        self.place = place
        self._given: dict[str, tuple[Any, Place]] = {}

    def set(self, name: str, value: Any, place: Place) -> None:
        """Take a value."""
        self._given[name] = (value, place)

    def __contains__(self, name: object) -> bool:
        return name in self._given

    def __getitem__(self, name: str) -> Any:
        """The value of a setting, or its default."""
        found = self._given.get(name)
        return BY_NAME[name].default if found is None else found[0]

    def place_of(self, name: str) -> Place:
        """Where it stands, or where it could."""
        found = self._given.get(name)
        return self.place if found is None else found[1]

    def __iter__(self) -> Iterator[str]:
        return iter(self._given)

    def __len__(self) -> int:
        return len(self._given)

    def over(self, others: Values) -> Values:
        """These, and of the others those that are not among them."""
        both = Values(self.place)
        both._given = {**others._given, **self._given}
        return both


@dataclass(frozen=True, slots=True)
class Text:
    """
    A text that makes something: a listener, a check, a backend.

    :ivar table: the arguments that stand beside it, where it was written as a table.
    """

    text: str
    place: Place
    table: Mapping[str, Any] | None = None


@dataclass(frozen=True, slots=True)
class AuthTree:
    """
    Who may authenticate at a listener.

    :ivar users: the name of a table of users.
    """

    users: str
    place: Place
    settings: Values


@dataclass(frozen=True, slots=True)
class RouteTree:
    """
    A route.

    :ivar to: patterns of recipients; none if it is no route, which has been told already.
    :ivar logins: None for anybody, True for who has authenticated, or names.
    :ivar networks: None for any.
    :ivar deliver: the name of where it leads to; empty for the two others.
    :ivar reject: the reply; True for one of ours.
    :ivar discard: whether mail ends here.
    """

    place: Place
    to: tuple[str, ...]
    logins: Literal[True] | tuple[str, ...] | None = None
    networks: tuple[str, ...] | None = None
    deliver: str = ""
    reject: str | bool = ""
    discard: bool = False


@dataclass(slots=True)
class ListenTree:
    """
    A listener: some sockets that behave alike.

    :ivar settings: its own, over those of the service.
    :ivar places: where its keys stand.
    :ivar is_whole: whether all could be read that says who its clients are.
    :ivar routes: None for one that takes everything, as the command line has it.
    :ivar deliver: where everything goes then.
    """

    name: str
    place: Place
    settings: Values
    on: list[Text] = field(default_factory=list)
    auth: AuthTree | None = None
    checks: list[Text] = field(default_factory=list)
    routes: list[RouteTree] | None = None
    deliver: str = ""
    trusted: tuple[str, ...] | None = None
    extensions: list[Text] = field(default_factory=list)
    places: dict[str, Place] = field(default_factory=dict)
    is_whole: bool = True

    @property
    def knows_logins(self) -> bool:
        """Whether a client may be somebody: by AUTH here, or by that of a proxy, which says so by XCLIENT."""
        return self.auth is not None or bool(self.settings["xclient"])

    def place_of(self, key: str) -> Place:
        """Where a key of it stands, or where it could."""
        return self.places.get(key) or self.place.within(key)


@dataclass(slots=True)
class ServiceTree:
    """
    All of it.

    :ivar settings: those of the service, and what its listeners have in common.
    :ivar users: name -> who may authenticate.
    :ivar deliver: name -> where mail can go.
    :ivar broken: what has a name there, and no value that could be read: ``("deliver", "local")``.
    """

    settings: Values
    users: dict[str, Text] = field(default_factory=dict)
    deliver: dict[str, Text] = field(default_factory=dict)
    listen: list[ListenTree] = field(default_factory=list)
    broken: set[tuple[str, str]] = field(default_factory=set)


def tree_of_options(options: Mapping[str, Any]) -> ServiceTree:
    """
    The tree of a command line.

    :param options: a parsed value for each setting.
    """
    settings = Values(Place("the command line"))
    for name, setting in BY_NAME.items():
        if options[name] != setting.default:
            settings.set(name, options[name], _option(name))
    listen = ListenTree(
        LISTENER,
        settings.place,
        settings,
        on=[Text(text, _option("listen")) for text in options["listen"]],
        checks=[Text(text, _option("checks")) for text in options["checks"]],
        extensions=[Text(text, _option("extensions")) for text in options["extensions"]],
        deliver=LISTENER,
    )
    tree = ServiceTree(settings, listen=[listen])
    tree.deliver[LISTENER] = Text(options["backend"], _option("backend"))
    if options["auth"]:
        tree.users[LISTENER] = Text(options["auth"], _option("auth"))
        listen.auth = AuthTree(LISTENER, _option("auth"), settings)
    return tree


def _option(name: str) -> Place:
    return Place(f"--{BY_NAME[name].option}")
