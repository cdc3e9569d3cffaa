"""From a file to its tree: what it says, and where."""

from __future__ import annotations

from smtpfw.config.file import tree_of_file
from smtpfw.config.places import Place, Problems
from smtpfw.config.toml import TOMLFile
from smtpfw.config.tree import RouteTree, ServiceTree, Text

TEXT = """\
hostname = "mx.example.org"
tls      = "certs"

[auth]
users = "htpasswd:users"

[deliver]
local = "maildir:md/{domain}/{user}"
isp   = { plugin = "relay", via = "smtps:smtp.isp.example:465", login = "file:isp.secret" }

[listen.mx]
on      = ["tcp6:25", "tcp:26"]
checks  = "rate:ip=30/m"
routes  = [
    { to = ["example.org", "*.example.org"], deliver = "local" },
    { to = "old.example", reject = true, network = "10.0.0.0/8" },
    { to = "older.example", reject = "550 5.1.6 Moved" },
    { to = "trash.example", discard = true, login = ["tim", "ann"] },
]
trusted    = ["10.0.0.0/8"]
extensions = ["-DSN"]

[listen.submission]
on   = "smtps:465"
auth = { use = "users", required = false, mechanisms = ["PLAIN", "LOGIN"] }
limits.max_recipients = 5
[[listen.submission.routes]]
to      = "*"
login   = true
deliver = "isp"

[limits]
max_recipients    = 10
max_message_bytes = "1M"

[log]
level = "warn"
"""


def tree_of(text: str) -> ServiceTree:
    problems = Problems()
    tree = tree_of_file(TOMLFile("x", text), problems)
    problems.check()
    return tree


def place(key: str, line: int) -> Place:
    return Place(key, "x", line)


def test_all_that_it_says() -> None:
    tree = tree_of(TEXT)
    assert {name: tree.settings[name] for name in tree.settings} == {
        "hostname": "mx.example.org",
        "tls": "certs",
        "max_recipients": 10,
        "max_message_bytes": 1024 * 1024,
        "log_level": "warn",
    }
    assert tree.settings.place_of("log_level") == place("log.level", 37)
    assert tree.users == {"users": Text("htpasswd:users", place("auth.users", 5))}
    assert tree.deliver == {
        "local": Text("maildir:md/{domain}/{user}", place("deliver.local", 8)),
        "isp": Text(
            "relay", place("deliver.isp", 9), {"via": "smtps:smtp.isp.example:465", "login": "file:isp.secret"}
        ),
    }
    mx, submission = tree.listen
    assert (mx.name, mx.place) == ("mx", place("listen.mx", 11))
    assert mx.on == [Text("tcp6:25", place("listen.mx.on", 12)), Text("tcp:26", place("listen.mx.on", 12))]
    assert mx.checks == [Text("rate:ip=30/m", place("listen.mx.checks", 13))]
    assert mx.routes == [
        RouteTree(place("listen.mx.routes[1]", 15), to=("example.org", "*.example.org"), deliver="local"),
        RouteTree(place("listen.mx.routes[2]", 16), to=("old.example",), reject=True, networks=("10.0.0.0/8",)),
        RouteTree(place("listen.mx.routes[3]", 17), to=("older.example",), reject="550 5.1.6 Moved"),
        RouteTree(place("listen.mx.routes[4]", 18), to=("trash.example",), discard=True, logins=("tim", "ann")),
    ]
    assert mx.trusted == ("10.0.0.0/8",)
    assert mx.extensions == [Text("-DSN", place("listen.mx.extensions", 21))]
    assert mx.auth is None
    assert mx.place_of("routes") == place("listen.mx.routes", 14)
    assert mx.place_of("limits") == place("listen.mx.limits", 11)
    assert submission.on == [Text("smtps:465", place("listen.submission.on", 24))]
    assert submission.routes == [
        RouteTree(place("listen.submission.routes[1]", 27), to=("*",), logins=True, deliver="isp")
    ]
    assert submission.auth is not None
    assert (submission.auth.users, submission.auth.place) == ("users", place("listen.submission.auth", 25))
    assert (submission.auth.settings["require_auth"], submission.auth.settings["auth_mechanisms"]) == (
        False,
        "PLAIN LOGIN",
    )
    assert submission.trusted is None


def test_a_listener_has_its_own_settings_over_those_of_all() -> None:
    tree = tree_of(TEXT)
    mx, submission = (listen.settings.over(tree.settings) for listen in tree.listen)
    assert (mx["max_recipients"], submission["max_recipients"]) == (10, 5)
    assert submission["max_message_bytes"] == mx["max_message_bytes"] == 1024 * 1024
    assert submission.place_of("max_recipients") == place("listen.submission.limits.max_recipients", 26)
    assert mx.place_of("max_recipients") == place("limits.max_recipients", 33)


def test_whoever_names_users_requires_them() -> None:
    for auth in ("'users'", "{ use = 'users' }"):
        (listen,) = tree_of(
            f"[listen.mx]\non = 'tcp:25'\nauth = {auth}\nroutes = [{{to = '*', discard = true}}]"
        ).listen
        assert listen.auth is not None
        assert listen.auth.settings["require_auth"] is True


def test_what_is_broken_is_remembered_by_its_name() -> None:
    problems = Problems()
    tree = tree_of_file(
        TOMLFile("x", "[auth]\na = 1\nb = 'htpasswd:x'\n[deliver]\nc = {}\nd = 'memory'\nhostname = 'x'"), problems
    )
    assert tree.broken == {("auth", "a"), ("deliver", "c"), ("deliver", "hostname")}
    assert (list(tree.users), list(tree.deliver)) == (["b"], ["d"])
