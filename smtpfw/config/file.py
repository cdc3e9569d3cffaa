"""
From a TOML file to the tree of what it says; see :mod:`smtpfw.config.schema` for its keys.

Every mistake is noted with its line, and the rest is read all the same.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Literal

from smtpfw.config import schema
from smtpfw.config.places import Place, Problems
from smtpfw.config.schema import TableSchema, about_unknown
from smtpfw.config.settings import BY_NAME, show
from smtpfw.config.toml import KeyPath, TOMLFile, key_of
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
        tree.broken = {
            (key, name)
            for key, found in (("auth", tree.users), ("deliver", tree.deliver))
            for name in self._table(raw, (key,))
            if name not in found
        }
        for name, table in self._listeners(raw):
            tree.listen.append(self._listener(name, table))
        return tree

    def _listeners(self, raw: Mapping[str, Any]) -> list[tuple[str, Mapping[str, Any]]]:
        tables = raw.get("listen", {})
        if not isinstance(tables, dict):
            self._problems.add(self._place(("listen",)), f"it is {show(tables)}; write a table [listen.NAME] for each")
            return []
        if not tables:
            self._problems.add(self._place(()), "it says nowhere where to listen; write a table [listen.NAME]")
        found: list[tuple[str, Mapping[str, Any]]] = []
        for name, table in tables.items():
            if isinstance(table, dict) and name not in schema.LISTEN.others:
                found.append((name, table))
                continue
            place = self._place(("listen", name))
            if name in schema.LISTEN.keys:
                self._problems.add(place, "a listener has a name of yours: write [listen.NAME], and this below it")
            else:
                self._problems.add(place, f"it is {show(table)}; it should be a table, [{place.key}]")
        return found

    def _listener(self, name: str, raw: Mapping[str, Any]) -> ListenTree:
        path: KeyPath = ("listen", name)
        settings = self._settings(raw, path, schema.LISTEN)
        limits = self._settings(self._table(raw, (*path, "limits")), (*path, "limits"), schema.LIMITS)
        listen = ListenTree(name, self._place(path), limits.over(settings))
        listen.places = {key: self._place((*path, key)) for key in raw}
        listen.settings.place = listen.place
        known = len(self._problems)
        listen.on = [Text(text, place) for text, place in self._strings(raw, (*path, "on"))]
        if "trusted" in raw:
            listen.trusted = tuple(text for text, _ in self._strings(raw, (*path, "trusted")))
        if not raw.get("on", []):
            self._problems.add(listen.place_of("on"), 'nowhere to listen; write on = ["tcp:25"], or the like')
        if "auth" in raw:
            listen.auth = self._auth(raw["auth"], (*path, "auth"))
        listen.is_whole = len(self._problems) == known
        listen.checks = [Text(text, place) for text, place in self._strings(raw, (*path, "checks"))]
        listen.extensions = [Text(text, place) for text, place in self._strings(raw, (*path, "extensions"))]
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
        for key, default in schema.AUTH.defaults.items():
            if key not in raw:
                settings.set(schema.AUTH.settings[key], default, place)
        users = self._text(raw, (*path, "use"))
        if "use" not in raw:
            self._problems.add(place, 'whom? write { use = "NAME" }, a name of [auth]')
        return AuthTree(users, place, settings) if users else None

    def _routes(self, raw: Mapping[str, Any], path: KeyPath) -> list[RouteTree]:
        value = raw.get("routes", [])
        if isinstance(value, dict) and value:
            # One alone needs no brackets.
            found = self._route(value, path)
            return [] if found is None else [found]
        if not isinstance(value, list):
            self._problems.add(
                self._place(path),
                f'it is {show(value)}; it is written as [ {{ to = "example.org", deliver = "NAME" }} ]',
            )
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
            said = " and ".join(outcomes) or "none"
            self._problems.add(place, f"a route has one of deliver, reject and discard; this one has {said}")
        if not raw.get("to", []):
            self._problems.add(place, 'for whom? write to = "example.org", or to = "*" for everybody')
        to = tuple(text for text, _ in self._strings(raw, (*path, "to")))
        return RouteTree(
            place,
            to=to if len(outcomes) == 1 else (),
            logins=self._logins(raw, (*path, "login")),
            networks=tuple(text for text, _ in self._strings(raw, (*path, "network"))) if "network" in raw else None,
            deliver=self._text(raw, (*path, "deliver")),
            reject=self._reject(raw, (*path, "reject")),
            discard=self._discard(raw, (*path, "discard")),
        )

    def _logins(self, raw: Mapping[str, Any], path: KeyPath) -> Literal[True] | tuple[str, ...] | None:
        value = raw.get("login")
        if value is None or value is True:
            return value
        if not isinstance(value, (str, list)) or not value:
            self._problems.add(
                self._place(path), f"it is {show(value)}; write true for whoever has authenticated, or names"
            )
            return None
        return tuple(text for text, _ in self._strings(raw, path))

    def _reject(self, raw: Mapping[str, Any], path: KeyPath) -> str | bool:
        value = raw.get("reject", "")
        if value is True or (isinstance(value, str) and (value or "reject" not in raw)):
            return value
        self._problems.add(self._place(path), f"it is {show(value)}; write true, or the text of the refusal")
        return ""

    def _discard(self, raw: Mapping[str, Any], path: KeyPath) -> bool:
        value = raw.get("discard", True)
        if value is not True:
            self._problems.add(self._place(path), f"it is {show(value)}; write true, or leave it out")
        return "discard" in raw

    # -- values -----------------------------------------------------------------

    def _settings(self, raw: Mapping[str, Any], path: KeyPath, table: TableSchema) -> Values:
        values = Values(self._place(path))
        for key, value in raw.items():
            place = self._place((*path, key))
            name = table.settings.get(key)
            if name is None:
                if key not in table.others:
                    self._problems.add(place, f"there is no such key here{about_unknown(key, table)}")
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

    def _texts(self, raw: Mapping[str, Any], key: str, *, tables: bool) -> dict[str, Text]:
        found = {}
        for name, value in self._table(raw, (key,)).items():
            place = self._place((key, name))
            if name in schema.SERVICE.settings:
                # In TOML all that stands behind a [table] belongs to it.
                self._problems.add(
                    place, f"{name} stands at the top, above the first [table]; if this is one of yours, rename it"
                )
            elif isinstance(value, str) and value:
                found[name] = Text(value, place)
            elif tables and isinstance(value, dict):
                plugin = self._text(value, (key, name, "plugin"))
                if "plugin" not in value:
                    self._problems.add(place, 'plugin is missing; write plugin = "maildir", or the like')
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
                found.append((one, Place(key_of(path), place.file, place.line)))
            else:
                self._problems.add(place, f"it is {show(one)}; it should be a text")
        return found

    def _place(self, path: KeyPath) -> Place:
        return Place(key_of(path), self._file.name, self._file.line(path))
