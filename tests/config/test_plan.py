"""The plan of a file: what comes of it, and what is told."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from twisted.internet.task import Clock

from smtpfw.backends.maildir import MaildirBackend
from smtpfw.backends.relay import RelayBackend
from smtpfw.config import make_plan, read_tree
from smtpfw.config.certificates import Stores
from smtpfw.config.plan import ServicePlan
from tests.certificates import write_pair
from tests.config.plans import mistakes_of_file, parsed, plan_of, plan_of_file
from tests.running import ROOT

FILE = """\
hostname = "mx.example.org"
tls      = "certs"

[auth]
users = "htpasswd:users"

[deliver]
local = "maildir:md/{domain}/{user}"
isp   = { plugin = "relay", via = "smtps:smtp.isp.example:465", login = "file:isp.secret" }

[listen.mx]
on     = ["tcp6:25"]
checks = ["rate:ip=30/m"]
routes = [ { to = "example.org", deliver = "local" } ]

[listen.submission]
on     = ["tcp6:587", "smtps:465"]
auth   = "users"
routes = [ { to = "example.org", deliver = "local" }, { to = "*", deliver = "isp" } ]
"""

ONE = """\
[deliver]
local = "discard"

[listen.mx]
on     = "tcp:0:interface=127.0.0.1"
routes = [ { to = "example.org", deliver = "local" } ]
"""


@pytest.fixture(autouse=True)
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "certs").mkdir()
    write_pair(tmp_path / "certs")
    (tmp_path / "users").write_text("")
    (tmp_path / "isp.secret").write_text("me:open sesame\n")
    return tmp_path


def plan(text: str, *words: str) -> ServicePlan:
    return plan_of_file(Path("smtpfw.toml"), text, *words)


def mistakes(text: str) -> list[str]:
    return [line.removeprefix("smtpfw.toml:") for line in mistakes_of_file(Path("smtpfw.toml"), text)]


def test_two_listeners_that_share_a_delivery() -> None:
    made = plan(FILE)
    mx, submission = made.listen
    assert [(one.name, [listener.text for listener in one.listeners]) for one in made.listen] == [
        ("mx", ["tcp6:25"]),
        ("submission", ["tcp6:587", "smtps:465"]),
    ]
    local, isp = made.deliveries
    assert isinstance(local.backend, MaildirBackend)
    assert isinstance(isp.backend, RelayBackend)
    assert mx.backend.routes.backends == (local.backend,)  # type: ignore[attr-defined]
    assert submission.backend.routes.backends == (local.backend, isp.backend)  # type: ignore[attr-defined]
    assert (mx.auth, len(mx.checks), len(submission.checks)) == (None, 1, 0)
    assert submission.auth is not None
    assert submission.auth.required
    assert not submission.auth.allow_insecure
    assert mx.config.hostname == submission.config.hostname == "mx.example.org"
    assert mx.tls is not None
    assert len(made.stores) == 1
    assert made.warnings == ()
    # Behind routes nobody is asked twice, and the name is told there, too.
    assert isp.backend.trusted is None
    assert isp.backend._connectors[0].config.hello_name == "mx.example.org"


def test_the_secret_is_in_no_text_of_the_plan() -> None:
    assert "sesame" not in repr(plan(FILE))


def test_settings_of_a_listener_are_over_those_of_all() -> None:
    made = plan(
        FILE.replace(
            'on     = ["tcp6:25"]', 'on = "tcp6:25"\nhostname = "in.example.org"\nlimits = {max_recipients = 5}'
        )
        + "[limits]\nmax_recipients = 7\nmax_connections = 8\n"
    )
    assert [(one.config.hostname, one.config.max_recipients, one.config.max_connections) for one in made.listen] == [
        ("in.example.org", 5, 8),
        ("mx.example.org", 7, 8),
    ]


def test_what_leads_nowhere_is_told_and_not_served() -> None:
    more = ONE.replace("[deliver]", "[deliver]\nold = 'maildir:old'")
    made = plan(f"[auth]\nusers = 'htpasswd:users'\nothers = 'session'\n{more}")
    assert [delivery.name for delivery in made.deliveries] == ["local"]
    assert made.warnings == (
        "smtpfw.toml:2: auth.users: no listener names it, so it is not used",
        "smtpfw.toml:3: auth.others: no listener names it, so it is not used",
        "smtpfw.toml:5: deliver.old: no route leads there, so it is not used",
    )


def test_what_leads_nowhere_is_checked_all_the_same() -> None:
    (line,) = mistakes(ONE.replace("[deliver]", "[deliver]\nold = 'maildri:old'"))
    assert line.startswith("2: deliver.old maildri: unknown backend 'maildri'; did you mean maildir?")


def test_another_port_each_time_is_no_twin() -> None:
    on = "['tcp:port=0:interface=127.0.0.1', 'tcp:port=0:interface=127.0.0.1']"
    made = plan(ONE.replace('"tcp:0:interface=127.0.0.1"', on))
    assert len(made.listen[0].listeners) == 2


def test_one_route_needs_no_brackets() -> None:
    text = ONE.replace("[ {", "{").replace("} ]", "}")
    assert text != ONE
    backend: Any = plan(text).listen[0].backend
    assert [route.patterns[0].text for route in backend.routes.routes] == ["example.org"]
    assert mistakes(text.replace('"local" }', '"lokal" }')) == [
        "6: listen.mx.routes: there is no 'lokal' in [deliver]; did you mean local?",
    ]


def test_a_command_line_has_no_warnings() -> None:
    assert plan_of("--backend", "discard").warnings == ()


@pytest.mark.parametrize(
    ("first", "second", "same"),
    [
        ("tcp:2525", "tcp:2525", True),
        ("tcp:465", "smtps:465", True),
        ("tcp:2525", "tcp:2525:backlog=1024", True),
        ("tcp:2525", "tcp:2526", False),
        ("tcp:2525:interface=127.0.0.1", "tcp:2525:interface=127.0.0.2", False),
        ("tcp:0", "tcp:0", False),
        ("unix:a", "unix:a", True),
        ("unix:a", "unix:b", False),
    ],
)
def test_two_at_one_place(first: str, second: str, same: bool) -> None:
    both = f"tls = 'certs'\n{ONE.replace('tcp:0:interface=127.0.0.1', first)}"
    text = f"{both}\n[listen.other]\non = '{second}'\nroutes = [{{to = 'example.org', deliver = 'local'}}]\n"
    if same:
        assert mistakes(text) == [f"10: listen.other.on {second}: listen.mx.on in line 6 listens there already"]
    else:
        assert len(plan(text).listen) == 2


def test_one_place_twice_on_the_command_line() -> None:
    with pytest.raises(Exception, match=r"^--listen tcp:2525: it listens there already$"):
        plan_of("--backend", "discard", "--listen", "tcp:2525", "--listen", "tcp:2525")


def test_what_was_broken_already_is_not_missed_once_more() -> None:
    text = (
        ONE.replace('local = "discard"', "local = 5").replace("tcp:0:interface", "tcp:0:interface") + "auth = 'users'\n"
    )
    assert mistakes(f"{text}[auth]\nusers = 5\n") == [
        "2: deliver.local: it is 5; it should be a text or a table",
        "9: auth.users: it is 5; it should be a text",
    ]


def test_a_mistake_that_two_listeners_have_in_common_is_told_once() -> None:
    text = FILE.replace('"certs"', '"absent"')
    assert mistakes(text) == ["2: tls: absent: no such file or directory"]


def test_certificates_stay_the_same_from_one_plan_to_the_next() -> None:
    Path("smtpfw.toml").write_text(FILE)
    stores = Stores()

    def again() -> ServicePlan:
        tree, problems = read_tree(parsed("--config", "smtpfw.toml"))
        begun = stores.begin()
        made = make_plan(tree, Clock(), problems, begun)
        stores.keep(begun)
        return made

    assert again().stores[0] is again().stores[0]


def test_the_page_of_the_file_shows_a_plan() -> None:
    """The first file of the page is served as it stands there, with other paths."""
    page = (ROOT / "docs" / "configuration.md").read_text()
    text = page.split("```toml\n")[1].split("```")[0].replace("/etc/smtpfw/", "").replace("/var/mail/", "md/")
    made = plan(text)
    assert [one.name for one in made.listen] == ["mx", "submission"]
    assert made.warnings == ()
