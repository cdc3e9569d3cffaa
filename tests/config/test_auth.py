"""Who may authenticate: from a string to AUTH, and the one line that each mistake gets."""

from __future__ import annotations

from pathlib import Path

import pytest
from twisted.internet.task import Clock
from zope.interface import implementer

from smtpfw import ServerConfig, Session, SessionBackend, SMTPServerFactory
from smtpfw.config.auth import auth_from_string, checker_from_string, mechanisms_from_string
from smtpfw.config.plan import ListenPlan
from smtpfw.errors import ConfigError
from smtpfw.extensions import STANDARD, StartTLS
from smtpfw.interfaces import IPlainAuthSession
from smtpfw.sasl import (
    CRAM_MD5,
    PLAIN,
    SCRAM_SHA_256,
    CertificateChecker,
    ICertificateChecker,
    IPasswordChecker,
    Mechanism,
)
from smtpfw.sasl.checkers import CredChecker, FunctionChecker
from smtpfw.sasl.plugins import available_mechanisms
from smtpfw.sasl.users import UsersFile
from smtpfw.testing import MemoryClient
from tests.config.plans import plan_of

CODE = """
from zope.interface import Interface, implementer


async def check(username, password):
    return username == "tim"


number = 3


class ITicketChecker(Interface):
    pass


@implementer(ITicketChecker)
class Tickets:
    pass


tickets = Tickets()
"""


@pytest.fixture
def module(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "authcode").mkdir()
    (tmp_path / "authcode" / "users.py").write_text(CODE)
    monkeypatch.syspath_prepend(tmp_path)


def test_a_users_file(tmp_path: Path) -> None:
    (tmp_path / "users").write_text("")
    checker = checker_from_string(f"htpasswd:{tmp_path}/users")
    assert isinstance(checker, UsersFile)
    assert ICertificateChecker.providedBy(checker)


def test_a_checker_of_cred(tmp_path: Path) -> None:
    (tmp_path / "passwords").write_text("tim:secret\n")
    for text in ("memory:tim:secret", f"file:{tmp_path}/passwords"):
        assert isinstance(checker_from_string(text), CredChecker)


@pytest.mark.usefixtures("module")
def test_a_function() -> None:
    checker = checker_from_string("authcode.users:check")
    assert isinstance(checker, FunctionChecker)
    assert IPasswordChecker.providedBy(checker)


def test_certificates() -> None:
    assert isinstance(checker_from_string("certificate"), CertificateChecker)
    assert auth_from_string("certificate").keyword == "AUTH"


def test_where_no_client_is_asked_for_a_certificate(tmp_path: Path) -> None:
    (tmp_path / "users").write_text("")
    with pytest.raises(ConfigError, match="no client is asked for a certificate; give client_ca, --client-ca FILE"):
        auth_from_string("certificate", client_certificates=False)
    # It can do more.
    assert auth_from_string(f"htpasswd:{tmp_path}/users", client_certificates=False)


@pytest.mark.usefixtures("module")
def test_a_checker_of_a_mechanism_that_is_not_ours() -> None:
    from authcode.users import ITicketChecker, tickets  # type: ignore[import-not-found]

    ticket = Mechanism("TICKET", PLAIN.make, needs=(ITicketChecker,))
    assert checker_from_string("authcode.users:tickets", (ticket,)) is tickets
    assert auth_from_string("authcode.users:tickets", mechanisms=(ticket,))
    with pytest.raises(ConfigError, match="neither a function nor a checker"):
        auth_from_string("authcode.users:tickets")


class TestMechanisms:
    available = available_mechanisms()

    @pytest.mark.parametrize("text", ["SCRAM-SHA-256 PLAIN", " scram-sha-256\tplain ", "Scram-Sha-256 Plain"])
    def test_they_keep_their_order(self, text: str) -> None:
        assert mechanisms_from_string(text, self.available) == (SCRAM_SHA_256, PLAIN)
        assert mechanisms_from_string("PLAIN SCRAM-SHA-256", self.available) == (PLAIN, SCRAM_SHA_256)

    @pytest.mark.parametrize(
        ("text", "expected"),
        [
            ("PLIAN", "unknown mechanism 'PLIAN'; did you mean PLAIN? (known are SCRAM-"),
            ("PLAIN scram-sha256", "unknown mechanism 'scram-sha256'; did you mean SCRAM-SHA-256? (known are "),
            ("PLAIN,LOGIN", "unknown mechanism 'PLAIN,LOGIN'"),
            ("PLAIN LOGIN plain", "PLAIN stands there twice"),
            ("", "it is empty; name one or more"),
            (" ", "it is empty; name one or more"),
        ],
    )
    def test_a_mistake_is_one_line(self, text: str, expected: str) -> None:
        with pytest.raises(ConfigError) as caught:
            mechanisms_from_string(text, self.available)
        assert expected in str(caught.value)
        assert "\n" not in str(caught.value)

    def test_none_that_the_checker_can_verify(self) -> None:
        # twisted.cred's checkers know no passwords in clear.
        with pytest.raises(ConfigError, match="it can verify none of the mechanisms CRAM-MD5 SCRAM-SHA-256"):
            auth_from_string("memory:tim:secret", mechanisms=(CRAM_MD5, SCRAM_SHA_256))
        assert auth_from_string("memory:tim:secret", mechanisms=(CRAM_MD5, PLAIN))


@pytest.mark.usefixtures("module")
@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("htpaswd:users", "unknown kind 'htpaswd'; did you mean htpasswd? (known are "),
        ("htpasswd:/no/such/file", "/no/such/file"),
        ("certificates", "did you mean certificate? (known are "),
        ("certificate:tim", "it is written certificate, and takes nothing behind it"),
        ("file:/no/such/file", "there is no such file"),
        ("memory:tim", "it is written memory:"),
        ("authcode.absent:check", "--python-path DIR adds a folder"),
        ("authcode.users:chek", "authcode.users has no chek"),
        ("authcode.users:number", "int is neither a function nor a checker"),
    ],
)
def test_a_mistake_is_one_line(text: str, expected: str) -> None:
    with pytest.raises(ConfigError) as caught:
        auth_from_string(text)
    assert expected in str(caught.value)
    assert "\n" not in str(caught.value)


def plan(*arguments: str) -> ListenPlan:
    (listen,) = plan_of("--backend", "discard", *arguments).listen
    return listen


@pytest.mark.parametrize(
    ("arguments", "expected"),
    [
        (("--auth", "memory:tim:secret"), "--auth: it is offered under TLS only"),
        (("--require-auth",), "--require-auth: there is nobody who could authenticate"),
        (("--allow-insecure-auth",), "--allow-insecure-auth: there is nobody who could authenticate"),
        (("--auth-mechanisms", "PLAIN"), "--auth-mechanisms: there is nobody who could authenticate"),
        (("--checks", "require_auth"), "--checks require_auth: there is nobody who could authenticate"),
        (("--checks", "sender_login"), "--checks sender_login: there is nobody who could authenticate"),
        (("--auth", "session", "--allow-insecure-auth"), "--auth session: the sessions of discard verify nobody"),
        (("--auth", "htpasswd", "--allow-insecure-auth"), "--auth htpasswd: it is written htpasswd:PATH"),
        (("--auth", "htpasswd:/none", "--allow-insecure-auth"), "--auth htpasswd:/none: /none: the users file"),
        (("--auth", "memory:tim", "--allow-insecure-auth"), "^--auth memory: "),
        (
            ("--auth", "memory:tim:secret", "--allow-insecure-auth", "--auth-mechanisms", "PLIAN"),
            "^--auth-mechanisms PLIAN: unknown mechanism 'PLIAN'",
        ),
    ],
)
def test_what_does_not_go_together(arguments: tuple[str, ...], expected: str) -> None:
    with pytest.raises(ConfigError, match=expected):
        plan(*arguments)


def test_auth_joins_the_extensions() -> None:
    keywords = [extension.keyword for extension in plan().extensions]
    assert "AUTH" not in keywords
    asked = plan("--auth", "memory:tim:secret", "--allow-insecure-auth", "--require-auth")
    assert [extension.keyword for extension in asked.extensions] == [*keywords, "AUTH"]


def test_sessions_may_check_themselves() -> None:
    @implementer(IPlainAuthSession)
    class Knows(Session):
        def auth_plain(self, username: str, password: str) -> None:
            assert (username, password) == ("tim", "sesame")

    auth = auth_from_string("session", allow_insecure=True)
    extensions = [extension for extension in STANDARD if not isinstance(extension, StartTLS)]
    factory = SMTPServerFactory(
        SessionBackend(Knows), ServerConfig(hostname="mx.test"), extensions=[*extensions, auth], reactor=Clock()
    )
    client = MemoryClient.of(factory)
    assert b"AUTH PLAIN LOGIN" in client.send(b"EHLO me\r\n")
    assert client.send(b"AUTH PLAIN AHRpbQBzZXNhbWU=\r\n").startswith(b"235 2.7.0 ")
