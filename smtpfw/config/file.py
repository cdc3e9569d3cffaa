"""
From a TOML file to the tree of what it says; see :mod:`smtpfw.config.schema` for its keys.

Every mistake is noted with its line, and the rest is read all the same.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Literal

from smtpfw.config import schema
from smtpfw.config.places import Place, Problems
from smtpfw.config.schema import TableSchema
from smtpfw.config.settings import BY_NAME, nearest, show
from smtpfw.config.toml import KeyPath, TOMLFile
from smtpfw.config.tree import AuthTree, ListenTree, RouteTree, ServiceTree, Text, Values

__all__ = ["tree_of_file"]


def tree_of_file(file: TOMLFile, problems: Problems) -> ServiceTree:
    """Read the tree of a file."""
    return _Reader(file, problems).service()


class _Reader:
    def __init__(self, file: TOMLFile, problems: Problems) -> None:
        self._file = file
        self._problems = problems

    def service(self) -> ServiceTree:
        raw = self._file.values
        tree = ServiceTree(self._settings(raw, (), schema.SERVICE))
        for key, keys in (("limits", schema.LIMITS), ("log", schema.LOG)):
            settings = self._settings(self._table(raw, (key,)), (key,), keys)
            tree.settings = settings.over(tree.settings)
        tree.settings.place = self._place(())
        tree.users = self._texts(raw, "auth", tables=False)
        tree.deliver = self._texts(raw, "deliver", tables=True)
        for name, table in self._named(raw, "listen"):
            tree.listen.append(self._listener(name, table))
        if not tree.listen and "listen" not in raw:
            self._problems.add(self._place(()), "it says nowhere where to listen; write a table [listen.NAME]")
        return tree

    def _listener(self, name: str, raw: Mapping[str, Any]) -> ListenTree:
        path: KeyPath = ("listen", name)
        settings = self._settings(raw, path, schema.LISTEN)
        limits = self._settings(self._table(raw, (*path, "limits")), (*path, "limits"), schema.LIMITS)
        listen = ListenTree(name, self._place(path), limits.over(settings))
        listen.settings.place = listen.place
        listen.on = [Text(text, place) for text, place in self._strings(raw, (*path, "on"))]
        listen.checks = [Text(text, place) for text, place in self._strings(raw, (*path, "checks"))]
        listen.without = tuple(text for text, _ in self._strings(raw, (*path, "without")))
        if "trusted" in raw:
            listen.trusted = tuple(text for text, _ in self._strings(raw, (*path, "trusted")))
        if not listen.on and "on" not in raw:
            self._problems.add(listen.place, 'on is missing; write on = ["tcp:25"], or the like')
        if "auth" in raw:
            listen.auth = self._auth(raw["auth"], (*path, "auth"))
        listen.routes = self._routes(raw, (*path, "routes"))
        return listen

    def _auth(self, raw: Any, path: KeyPath) -> AuthTree | None:
        place = self._place(path)
        if isinstance(raw, str):
            raw = {"use": raw}
        elif not isinstance(raw, dict):
            self._problems.add(place, f'it is {show(raw)}; write a name of [auth], or {{ use = "NAME" }}')
            return None
        settings = self._settings(raw, path, schema.AUTH)
        if "require_auth" not in settings:
            settings.set("require_auth", True, place)
        users = self._text(raw, (*path, "use"))
        if "use" not in raw:
            self._problems.add(place, 'use is missing; write { use = "NAME" }, a name of [auth]')
        return AuthTree(users, self._place((*path, "use")), settings) if users else None

    def _routes(self, raw: Mapping[str, Any], path: KeyPath) -> list[RouteTree]:
        value = raw.get("routes", [])
        if not isinstance(value, list):
            self._problems.add(self._place(path), f"it is {show(value)}; write a list of tables, [ {{ to = ... }} ]")
            return []
        if not value:
            self._problems.add(
                self._place(path), 'nobody gets any mail; write routes = [ { to = "example.org", deliver = "NAME" } ]'
            )
        routes = (self._route(one, (*path, index)) for index, one in enumerate(value))
        return [route for route in routes if route is not None]

    def _route(self, raw: Any, path: KeyPath) -> RouteTree | None:
        place = self._place(path)
        if not isinstance(raw, dict):
            self._problems.add(place, f'it is {show(raw)}; a route is {{ to = "example.org", deliver = "NAME" }}')
            return None
        self._settings(raw, path, schema.ROUTE)
        outcomes = [key for key in ("deliver", "reject", "discard") if key in raw]
        if len(outcomes) != 1:
            said = " and ".join(outcomes) or "nothing"
            self._problems.add(place, f"a route has one of deliver, reject and discard; this one has {said}")
            return None
        if "to" not in raw:
            self._problems.add(place, 'to is missing; write to = "example.org", or to = "*" for everybody')
            return None
        return RouteTree(
            place,
            to=tuple(text for text, _ in self._strings(raw, (*path, "to"))),
            logins=self._logins(raw, (*path, "login")),
            networks=tuple(text for text, _ in self._strings(raw, (*path, "network"))) if "network" in raw else None,
            deliver=self._text(raw, (*path, "deliver")),
            reject=raw.get("reject") is True or self._text(raw, (*path, "reject")),
            discard=self._flag(raw, (*path, "discard")),
        )

    def _logins(self, raw: Mapping[str, Any], path: KeyPath) -> Literal[True] | tuple[str, ...] | None:
        if raw.get("login") is True:
            return True
        return tuple(text for text, _ in self._strings(raw, path)) if "login" in raw else None

    # -- values -----------------------------------------------------------------

    def _settings(self, raw: Mapping[str, Any], path: KeyPath, table: TableSchema) -> Values:
        values = Values(self._place(path))
        for key, value in raw.items():
            place = self._place((*path, key))
            name = table.settings.get(key)
            if name is None:
                if key not in table.others:
                    self._problems.add(place, f"there is no such key here{nearest(key, table.keys)}")
                continue
            setting = BY_NAME[name]
            with self._problems.at(place):
                if setting.repeatable:
                    texts = self._strings(raw, (*path, key))
                    values.set(name, tuple(setting.kind.parse(text) for text, _ in texts), place)
                else:
                    values.set(name, setting.kind.read(value), place)
        return values

    def _table(self, raw: Mapping[str, Any], path: KeyPath) -> Mapping[str, Any]:
        value = raw.get(str(path[-1]), {})
        if isinstance(value, dict):
            return value
        self._problems.add(self._place(path), f"it is {show(value)}; it should be a table")
        return {}

    def _named(self, raw: Mapping[str, Any], key: str) -> list[tuple[str, Mapping[str, Any]]]:
        tables = self._table(raw, (key,))
        found: list[tuple[str, Mapping[str, Any]]] = []
        for name, value in tables.items():
            if isinstance(value, dict):
                found.append((name, value))
            else:
                self._problems.add(
                    self._place((key, name)), f"it is {show(value)}; it should be a table, [{key}.{name}]"
                )
        return found

    def _texts(self, raw: Mapping[str, Any], key: str, *, tables: bool) -> dict[str, Text]:
        found = {}
        for name, value in self._table(raw, (key,)).items():
            place = self._place((key, name))
            if isinstance(value, str) and value:
                found[name] = Text(value, place)
            elif tables and isinstance(value, dict):
                plugin = self._text(value, (key, name, "plugin"))
                if "plugin" not in value:
                    self._problems.add(place, 'plugin is missing; write { plugin = "maildir", ... }')
                elif plugin:
                    arguments = {one: argument for one, argument in value.items() if one != "plugin"}
                    found[name] = Text(plugin, place, arguments)
            else:
                self._problems.add(place, f"it is {show(value)}; it should be a text{' or a table' * tables}")
        return found

    def _text(self, raw: Mapping[str, Any], path: KeyPath) -> str:
        value = raw.get(str(path[-1]), "")
        if isinstance(value, str) and (value or path[-1] not in raw):
            return value
        self._problems.add(self._place(path), f"it is {show(value)}; it should be a text")
        return ""

    def _flag(self, raw: Mapping[str, Any], path: KeyPath) -> bool:
        value = raw.get(str(path[-1]), False)
        if value is False and path[-1] in raw:
            self._problems.add(self._place(path), "false says nothing; leave it out")
        elif not isinstance(value, bool):
            self._problems.add(self._place(path), f"it is {show(value)}; write true")
        return value is True

    def _strings(self, raw: Mapping[str, Any], path: KeyPath) -> list[tuple[str, Place]]:
        """A list of texts; one alone needs no brackets."""
        value = raw.get(str(path[-1]), [])
        if isinstance(value, str):
            value = [value]
        if not isinstance(value, list):
            self._problems.add(self._place(path), f"it is {show(value)}; it should be a list of texts")
            return []
        found = []
        for index, one in enumerate(value):
            place = self._place((*path, index))
            if isinstance(one, str) and one:
                found.append((one, Place(self._key(path), place.file, place.line)))
            else:
                self._problems.add(place, f"it is {show(one)}; it should be a text")
        return found

    def _place(self, path: KeyPath) -> Place:
        return Place(self._key(path), self._file.name, self._file.line(path))

    @staticmethod
    def _key(path: KeyPath) -> str:
        words = ""
        for part in path:
            words += f"[{part}]" if isinstance(part, int) else f".{part}" if words else part
        return words
