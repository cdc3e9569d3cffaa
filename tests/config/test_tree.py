"""Settings with their places and defaults, and the tree of a command line."""

from smtpfw.config.places import Place
from smtpfw.config.settings import BY_NAME
from smtpfw.config.tree import LISTENER, Text, Values, tree_of_options
from tests.config.plans import parsed

TABLE = Place("limits", "x", 3)
KEY = Place("limits.grace", "x", 4)


def test_a_setting_that_is_not_given_has_its_default() -> None:
    values = Values(TABLE)
    assert values["grace"] == BY_NAME["grace"].default == 30.0
    assert "grace" not in values
    assert values.place_of("grace") == TABLE
    assert (len(values), list(values)) == (0, [])


def test_one_that_is_given_has_its_place() -> None:
    values = Values(TABLE)
    values.set("grace", 5.0, KEY)
    assert (values["grace"], values.place_of("grace"), list(values)) == (5.0, KEY, ["grace"])


def test_one_table_over_another() -> None:
    above, below = Values(TABLE), Values(Place("x"))
    above.set("grace", 5.0, KEY)
    below.set("grace", 6.0, Place("x"))
    below.set("workers", 2, Place("x"))
    both = above.over(below)
    assert (both["grace"], both["workers"], both.place_of("grace"), both.place) == (5.0, 2, KEY, TABLE)
    # And neither has changed.
    assert ("workers" in above, below["grace"]) == (False, 6.0)


def test_a_command_line_is_one_listener_that_takes_everything() -> None:
    tree = tree_of_options(parsed("--listen", "tcp:25", "--checks", "loop", "--backend", "discard", "--grace", "1s"))
    (listen,) = tree.listen
    assert (listen.name, listen.routes, listen.deliver, listen.auth) == (LISTENER, None, LISTENER, None)
    assert listen.on == [Text("tcp:25", Place("--listen"))]
    assert listen.checks == [Text("loop", Place("--checks"))]
    assert tree.deliver == {LISTENER: Text("discard", Place("--backend"))}
    assert tree.settings["grace"] == 1.0
    assert str(listen.place_of("trusted").error("x")) == "the command line.trusted: x"


def test_what_is_as_it_would_be_anyway_is_not_given() -> None:
    assert list(tree_of_options(parsed()).settings) == []
    assert list(tree_of_options(parsed("--grace", "30s")).settings) == []


def test_users_of_a_command_line() -> None:
    tree = tree_of_options(parsed("--auth", "htpasswd:users", "--require-auth"))
    (listen,) = tree.listen
    assert tree.users == {LISTENER: Text("htpasswd:users", Place("--auth"))}
    assert listen.auth is not None
    assert (listen.auth.users, listen.auth.place) == (LISTENER, Place("--auth"))
    assert listen.auth.settings["require_auth"]
