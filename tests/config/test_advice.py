"""What works, and is most likely not meant: each warning where it belongs, and not elsewhere."""

from __future__ import annotations

from pathlib import Path

import pytest

from smtpfw.config.advice import warnings_of
from tests.certificates import write_pair
from tests.config.plans import mistakes, mistakes_of_file, plan_of, plan_of_file

NAME = ("--hostname", "mx.example.org")


def advice(*words: str) -> list[str]:
    """Warnings about a command line."""
    plan = plan_of(*NAME, *words)
    return warnings_of(plan.listen[0], plan.deliveries)


def advice_of_file(path: Path, text: str) -> list[str]:
    """Warnings about the one listener of a file."""
    plan = plan_of_file(path / "x.toml", f'hostname = "mx.example.org"\n{text}')
    return warnings_of(plan.listen[0], plan.deliveries)


@pytest.fixture
def inbox(tmp_path: Path) -> str:
    return f"maildir:{tmp_path}/inbox"


@pytest.fixture
def tls(tmp_path: Path) -> tuple[str, str]:
    return "--tls", str(write_pair(tmp_path))


def test_nothing_is_said_of_what_is_in_order(inbox: str, tls: tuple[str, str]) -> None:
    users = ("--auth", "memory:tim:secret", "--require-auth")
    assert advice("--backend", inbox) == []
    assert advice("--backend", inbox, "--listen", "tcp6:25", *tls) == []
    assert advice("--backend", inbox, "--listen", "tcp6:587", "--listen", "smtps:465", *tls, *users) == []


def test_promises_of_nothing(tmp_path: Path) -> None:
    (tmp_path / "promising.py").write_text(
        "from smtpfw import Session\n\n\nclass Desk(Session):\n    honours = {'DELIVER-BY', 'DSN', 'rrvs'}\n"
    )
    assert advice("--python-path", str(tmp_path), "--backend", "promising:Desk") == [
        "main honours 'DELIVER-BY', which is no extension that is promised; did you mean DELIVERBY?",
        "main honours 'rrvs', which is no extension that is promised",
    ]


def test_auth_in_clear(inbox: str) -> None:
    words = ("--backend", inbox, "--auth", "memory:tim:secret", "--allow-insecure-auth")
    assert advice(*words, "--listen", "tcp:2525") == [
        "AUTH is offered without TLS, too: whoever listens learns passwords"
    ]
    assert advice(*words, "--listen", "tcp:2525:interface=127.0.0.1") == []


@pytest.mark.parametrize(
    ("listen", "with_tls", "expected"),
    [
        ("tcp:587", False, "port 587 without TLS: "),
        ("tcp:587:interface=192.0.2.1", False, "port 587 without TLS: "),
        ("tcp:587", True, ""),
        ("tcp:587:interface=127.0.0.1", False, ""),
        ("tcp6:465", True, "port 465 without smtps: before it: "),
        ("smtps:tcp6:465", True, ""),
        ("smtps:587", True, "port 587 with smtps: before it: "),
        ("smtps:25", True, "port 25 with smtps: before it: "),
        ("tcp:2525", False, ""),
        ("unix:/run/x.sock", False, ""),
    ],
)
def test_well_known_ports(listen: str, with_tls: bool, expected: str, inbox: str, tls: tuple[str, str]) -> None:
    found = advice("--backend", inbox, "--listen", listen, *(tls if with_tls else ()))
    assert len(found) == bool(expected)
    assert "".join(found).startswith(expected)


def test_port_25_for_those_with_a_password(inbox: str, tls: tuple[str, str]) -> None:
    words = ("--backend", inbox, "--listen", "tcp6:25", "--auth", "memory:tim:secret", *tls)
    assert advice(*words) == []
    sentence = "port 25 requires AUTH: other servers, which have no password, can't deliver any mail"
    assert advice(*words, "--require-auth") == [sentence]
    assert advice(*words, "--checks", "require_auth") == [sentence]


def test_a_name_that_nobody_can_look_up(inbox: str) -> None:
    def of(name: str, listen: str) -> list[str]:
        plan = plan_of("--hostname", name, "--listen", listen, "--backend", inbox)
        return warnings_of(plan.listen[0], plan.deliveries)

    (sentence,) = of("mx", "tcp:25")
    assert sentence.startswith("hostname 'mx' has no dot")
    assert of("mx", "tcp:25:interface=127.0.0.1") == []
    assert of("[192.0.2.1]", "tcp:25") == []
    assert of("[IPv6:2001:db8::1]", "tcp:25") == []


@pytest.mark.parametrize(
    ("network", "warned"),
    [
        ("10.0.0.0/8", False),
        ("fd00::/8", False),
        ("unix", False),
        ("203.0.113.9", False),
        ("203.0.113.0/24", True),
        ("2001:db8::/32", True),
        # It has a private network in it, and the rest.
        ("10.0.0.0/7", True),
        ("0.0.0.0/1", True),
    ],
)
def test_trusted_networks(network: str, warned: bool, tmp_path: Path) -> None:
    text = f"""
        [deliver]
        local = "maildir:{tmp_path}/inbox"
        out = "relay:192.0.2.1"
        [listen.x]
        on = "tcp:25"
        trusted = ["{network}"]
        """
    guarded = f'{text}routes = [ {{ to = "example.org", deliver = "local" }}, {{ to = "*", deliver = "out" }} ]'
    found = advice_of_file(tmp_path, guarded)
    expected = [f"trusted has {network}, which is of the Internet: is each of its addresses yours?"]
    assert found == (expected if warned else [])
    harmless = f'{text}routes = [ {{ to = "example.org", deliver = "local" }} ]'
    assert advice_of_file(tmp_path, harmless) == []
    # On the command line a backslash takes the colons of an address.
    written = network.replace(":", r"\:")
    assert advice("--listen", "tcp:25", "--backend", f"relay:192.0.2.1:trusted={written}") == (
        expected if warned else []
    )


@pytest.mark.parametrize("world", ["0.0.0.0/0", "::/0"])
def test_an_open_relay_is_no_plan(world: str, tmp_path: Path) -> None:
    escaped = world.replace(":", r"\:")
    (line,) = mistakes("--backend", f"relay:192.0.2.1:trusted={escaped}", "--listen", "tcp:25")
    assert "that is everybody, which makes an open relay" in line.replace("trusted= is", "that is")
    text = f"""
        deliver.out = "relay:192.0.2.1"
        [listen.x]
        on = "tcp:25"
        trusted = "{world}"
        routes = [ {{ to = "*", deliver = "out" }} ]
        """
    assert any("open relay" in line for line in mistakes_of_file(tmp_path / "x.toml", text))


class TestPostmaster:
    ROUTES = """
        deliver.local = "maildir:{folder}/{{domain}}/{{user}}"
        [listen.x]
        on = "tcp:25"
        routes = [ {{ to = {to}, deliver = "local" }} ]
        """

    def advice(self, folder: Path, to: str = '"example.org"') -> list[str]:
        return advice_of_file(folder, self.ROUTES.format(folder=folder, to=to))

    def test_without_a_folder(self, tmp_path: Path) -> None:
        # The domain of its route, and not our own name.
        path = tmp_path / "example.org" / "postmaster"
        assert self.advice(tmp_path) == [
            f"mail for <postmaster>, which every server has to take, is refused: there is no folder {path}"
        ]
        path.mkdir(parents=True)
        assert self.advice(tmp_path) == []

    def test_refused_by_a_route(self, tmp_path: Path) -> None:
        text = f"""
            deliver.local = "maildir:{tmp_path}/inbox"
            [listen.x]
            on = "tcp:25"
            routes = [
                {{ to = "postmaster", network = "10.0.0.0/8", deliver = "local" }},
                {{ to = "postmaster", reject = "go away" }},
                {{ to = "example.org", deliver = "local" }},
            ]
            """
        assert advice_of_file(tmp_path, text) == [
            "mail for <postmaster>, which every server has to take, is refused: 550 5.7.1 go away"
        ]

    def test_without_routes(self, tmp_path: Path) -> None:
        words = ("--listen", "tcp:25", "--backend")
        (sentence,) = advice(*words, f"maildir:{tmp_path}/{{user}}")
        assert sentence.endswith(f"there is no folder {tmp_path}/postmaster")
        assert advice(*words, f"maildir:{tmp_path}/{{user}}:create=yes") == []

    def test_where_it_does_not_matter(self, tmp_path: Path, tls: tuple[str, str]) -> None:
        backend = ("--backend", f"maildir:{tmp_path}/{{user}}")
        assert advice(*backend) == []
        assert advice(*backend, "--listen", "tcp:24", "--protocol", "lmtp") == []
        users = ("--auth", "memory:tim:secret", "--require-auth", *tls)
        assert advice(*backend, "--listen", "tcp:587", *users) == []


@pytest.mark.parametrize(("backend", "what"), [("memory", "forgets its mail"), ("discard", "throws away")])
def test_mail_that_is_lost(backend: str, what: str, tmp_path: Path) -> None:
    (sentence,) = advice("--listen", "tcp:25", "--backend", backend)
    assert what in sentence
    assert advice("--backend", backend) == []
    text = f"""
        deliver.lost = "{backend}"
        deliver.other = "maildir:{tmp_path}/inbox"
        [listen.x]
        on = "tcp:25"
        routes = [ {{ to = "example.org", deliver = "%s" }}, {{ to = "example.com", discard = true }} ]
        """
    (sentence,) = advice_of_file(tmp_path, text % "lost")
    assert sentence.startswith("lost ")
    # Who has written discard has meant it.
    assert advice_of_file(tmp_path, text % "other") == []


def test_messages_of_any_size(inbox: str) -> None:
    words = ("--backend", inbox, "--max-message-bytes", "0")
    assert advice(*words, "--listen", "tcp:25") == ["max_message_bytes is 0: one message may fill the disk"]
    assert advice(*words) == []
