"""The page on the client, held against what is there: its code runs against servers in memory, its tables are true."""

from __future__ import annotations

import ast
import inspect
import re
from collections.abc import Iterator
from dataclasses import fields
from pathlib import Path
from typing import Any

import pytest
from cryptography import x509
from cryptography.x509.oid import ExtendedKeyUsageOID
from twisted.internet.task import Clock
from twisted.names import dns

import smtpfw.client.connecting
import smtpfw.client.protocol
from examples.own_extension import TICKET, Ticket
from smtpfw import ClientConfig, Pool, ServerConfig, SMTPClientProtocol, SMTPServerFactory, errors
from smtpfw.client import Destination, connector_of
from smtpfw.client.connecting import NONE, OPPORTUNISTIC, REQUIRED
from smtpfw.errors import ClientError, ExtensionMissing, MailboxUnavailable
from smtpfw.extensions import CLIENT, STANDARD, Auth
from smtpfw.sasl.checkers import FunctionChecker
from smtpfw.testing import MemoryEndpoint, RecordingBackend, tls_server
from smtpfw.testing.link import outcome_of
from smtpfw.tls import client_context, server_context
from smtpfw.wire.dialect import Extension
from smtpfw.wire.grammar import Address
from smtpfw.wire.parameters import Options
from tests.certificates import Authority
from tests.client.test_mx import Resolver
from tests.running import ROOT
from tests.test_coming_from import load
from tests.test_readme import table

PAGE = ROOT / "docs" / "client.md"

_PART = re.compile(r"^## (.*?)\n(.*?)(?=^## |\Z)", re.MULTILINE | re.DOTALL)
_BLOCK = re.compile(r"^```python\n(.*?)^```$", re.MULTILINE | re.DOTALL)
_CODE = re.compile(r"`([^`]+)`")
_METHODS = re.compile(r"^(\| `hello\(name\)`.*?)\n\n", re.MULTILINE | re.DOTALL)

#: Heading -> its blocks.
BLOCKS = {heading: _BLOCK.findall(text) for heading, text in _PART.findall(PAGE.read_text())}

#: Heading -> how many messages arrive from each of its blocks, and what it prints.
RUNS: dict[str, list[tuple[int, str]]] = {
    "In five lines": [(1, "Message accepted\n"), (1, "")],
    "Logging in": [(1, "")],
    "Bodies": [(2, "")],
    "What comes back": [
        (1, "nobody@example.org 550 False\n"),
        (0, "never RCPT 127.0.0.1:2525 refused RCPT: 550 5.1.1 "),
    ],
    "Step by step": [(1, "550 No such mailbox here\n"), (1, ""), (1, "you@example.org True Message accepted\n")],
    "Without waiting": [(2, "")],
    "By a connection of your own": [(1, "")],
    "Parameters": [(1, "")],
    "Many messages": [(20, "")],
    "To the servers of a domain": [(0, "10 mx.example.org ('192.0.2.1',)\n")],
    "Settings": [(1, "")],
    "What was said": [(1, "S: 220 mx.example.org ESMTP smtpfw\nC: EHLO ")],
}

#: Those of the last part are whole tests.
TESTS = "Testing what sends mail"


class World:
    """
    Every name leads to a server in memory that has a good certificate, and takes mail for all but nobody.

    :ivar backend: what has arrived.
    :ivar extensions: those that are served besides.
    """

    def __init__(self, folder: Path) -> None:
        self.extensions: list[Extension] = []
        authority = Authority("the authority of these tests")
        self.ca = str(folder / "ca.pem")
        Path(self.ca).write_bytes(authority.pem)
        pem, name = folder / "mail.example.org.pem", x509.DNSName("mail.example.org")
        pem.write_bytes(authority.issue(names=[name], usage=ExtendedKeyUsageOID.SERVER_AUTH))
        self.tls = server_context(str(pem))
        self.clock = Clock()
        self.backend = RecordingBackend(frozenset({"DSN", "REQUIRETLS"}), rcpt=self._refuse_nobody)
        self._endpoints: list[MemoryEndpoint] = []

    @staticmethod
    def _refuse_nobody(recipient: Address, options: Options) -> None:
        if recipient.local_part == "nobody":
            raise MailboxUnavailable

    def endpoint(self, destination: Any = None, reactor: Any = None, timeout: float = 0.0) -> MemoryEndpoint:
        """See :meth:`Destination.endpoint`."""
        auth = Auth(FunctionChecker(lambda username, password: (username, password) == ("me", "secret")))
        factory: Any = SMTPServerFactory(
            self.backend,
            ServerConfig(hostname="mx.example.org", protocol=getattr(destination, "protocol", "smtp")),
            tls=self.tls,
            extensions=[*STANDARD, auth, *self.extensions],
            reactor=self.clock,
        )
        if getattr(destination, "implicit_tls", False):
            factory = tls_server(factory, self.tls)
        self._endpoints.append(MemoryEndpoint(factory))
        return self._endpoints[-1]

    def run(self, awaitable: Any) -> Any:
        return outcome_of(awaitable, self._flow)

    def _flow(self) -> None:
        while any(endpoint.flow() for endpoint in list(self._endpoints)):
            pass

    def close(self) -> None:
        """End what a block that has failed has left open."""
        for endpoint in self._endpoints:
            for link in endpoint.links:
                link.client.close()
        self._flow()

    @property
    def all_closed(self) -> bool:
        return all(link.client_transport.closed for endpoint in self._endpoints for link in endpoint.links)


@pytest.fixture
def world(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[World]:
    made = World(tmp_path)

    def context(name: str, *, verify: bool, ca: str | None = None, **others: Any) -> Any:
        return client_context(name, verify=verify, ca=ca or made.ca, **others)

    resolver = Resolver(
        {
            "example.org": [dns.Record_MX(10, b"mx.example.org")],
            "mx.example.org": [dns.Record_A("192.0.2.1")],
        }
    )
    for module in (smtpfw.client.connecting, smtpfw.client.protocol):
        monkeypatch.setattr(module, "client_context", context)
    monkeypatch.setattr(Destination, "endpoint", lambda self, reactor, timeout: made.endpoint(self))
    monkeypatch.setattr("twisted.internet.endpoints.HostnameEndpoint", lambda *where: made.endpoint())
    monkeypatch.setattr("smtpfw.client.mx.resolver_with_hosts", lambda: resolver)
    monkeypatch.setattr("twisted.internet.task.react", lambda main: made.run(main(made.clock)))
    monkeypatch.setattr("twisted.internet.reactor", made.clock, raising=False)
    monkeypatch.chdir(tmp_path)
    Path("message.eml").write_bytes(b"Subject: a file\r\n\r\n")
    yield made
    assert made.all_closed
    assert made.clock.getDelayedCalls() == []


def run(block: str, names: dict[str, Any], world: World) -> None:
    """Run a block; it may have ``await`` outside of functions."""
    code = compile(block, str(PAGE), "exec", ast.PyCF_ALLOW_TOP_LEVEL_AWAIT, dont_inherit=True)
    coroutine = eval(code, names)
    if coroutine is not None:
        world.run(coroutine)


@pytest.mark.parametrize(
    ("block", "messages", "printed"),
    [
        pytest.param(block, *expected, id=f"{heading} {number}")
        for heading, runs in RUNS.items()
        for number, (block, expected) in enumerate(zip(BLOCKS[heading], runs, strict=True), 1)
    ],
)
def test_the_code_runs(
    block: str, messages: int, printed: str, world: World, capsys: pytest.CaptureFixture[str]
) -> None:
    run(block, {"reactor": world.clock}, world)
    assert len(world.backend.messages) == messages
    said = capsys.readouterr().out
    assert (said[: len(printed)] if printed else said) == printed


def test_an_extension_of_ones_own(world: World) -> None:
    (block,) = (block for block in _BLOCK.findall((ROOT / "docs" / "extensions.md").read_text()) if "await" in block)
    tickets: list[int] = []
    world.extensions.append(Ticket())
    world.backend.answers["mail"] = lambda sender, options: tickets.append(options[TICKET])
    run(block, {"Ticket": Ticket, "TICKET": TICKET}, world)
    assert tickets == [4711]
    world.extensions.clear()
    with pytest.raises(ExtensionMissing, match="XTICKET"):
        run(block, {"Ticket": Ticket, "TICKET": TICKET}, world)
    assert tickets == [4711]
    world.close()


def test_the_methods_of_an_extension_are_there() -> None:
    rows = table(ROOT / "docs" / "extensions.md", "method", "asked", "what comes of it")
    told = {row[0].strip("`").partition("(")[0] for row in rows}
    half = inspect.getsource(Extension).partition("the client's half")[2]
    assert told == set(re.findall(r"^    def ([a-z]\w+)\(", half, re.MULTILINE))
    for row in rows:
        name, _, arguments = row[0].strip("`").partition("(")
        assert list(inspect.signature(getattr(Extension, name)).parameters)[1:] == arguments.rstrip(")").split(", ")


def test_no_code_is_left_out() -> None:
    assert {heading for heading, blocks in BLOCKS.items() if blocks} == {*RUNS, TESTS}


@pytest.mark.parametrize("block", BLOCKS[TESTS])
def test_the_tests_pass(block: str) -> None:
    names: dict[str, Any] = {}
    exec(block, names)
    tests = [value for name, value in names.items() if name.startswith("test_")]
    assert len(tests) == 1
    tests[0]()


@pytest.mark.parametrize("row", table(PAGE, "string", "is"), ids=lambda row: str(row[0]))
def test_a_destination_is_understood(row: list[str]) -> None:
    for where in _CODE.findall(row[0]):
        destination = Destination.parse(where)
        assert (destination.protocol == "lmtp") is ("LMTP" in row[1])
        assert destination.implicit_tls is ("TLS" in row[1])


def test_the_ports() -> None:
    assert [connector_of("mail.example.org", auth=auth).destination.text for auth in (None, ("me", "secret"))] == [
        "mail.example.org:25",
        "mail.example.org:587",
    ]
    assert Destination.parse("smtps:mail.example.org").text.endswith(":465")


def test_the_policies_are_those_that_there_are() -> None:
    rows = table(PAGE, "`tls=`", "does", "keeps out")
    assert [row[0] for row in rows] == [f'`"{policy}"`' for policy in (NONE, OPPORTUNISTIC, REQUIRED)]


@pytest.mark.parametrize("row", table(PAGE, "where", "with `auth`", "without"), ids=lambda row: str(row[0]))
def test_the_default_policies(row: list[str]) -> None:
    wheres, with_auth, without = row
    for where in _CODE.findall(wheres):
        assert connector_of(where, auth=("me", "secret")).tls == with_auth
        assert connector_of(where, ca="ca.pem", tls_name="mail.example.org").tls == "required"
        assert connector_of(where).tls == without


def test_every_error_of_a_client_is_told() -> None:
    told = [name for row in table(PAGE, "raised", "when", "it means", "what to do") for name in _CODE.findall(row[0])]

    def children(kind: type[Exception]) -> set[type[Exception]]:
        return {kind}.union(*(children(child) for child in kind.__subclasses__()))

    assert {getattr(errors, name) for name in told[:11]} == {
        kind
        for kind in children(ClientError)
        if kind is not ClientError and not kind.__name__.startswith("_") and kind.__module__ == ClientError.__module__
    }
    assert all(hasattr(errors, name) or name in ("ValueError", "TypeError") for name in told[11:])


def test_the_methods_are_there() -> None:
    rows = _METHODS.findall(PAGE.read_text())[0].splitlines()
    told = [name for line in rows for name in _CODE.findall(line.split(" | ")[0])]
    assert len(told) == 17
    for name in told:
        method, parenthesis, arguments = name.partition("(")
        found = inspect.getattr_static(SMTPClientProtocol, method)
        if parenthesis:
            given = [one for one in arguments.removesuffix(")").split(", ") if one]
            assert [*inspect.signature(found).parameters][1 : len(given) + 1] == given


@pytest.mark.parametrize("row", table(PAGE, "parameter", "of", "value"), ids=lambda row: str(row[0]))
def test_a_parameter_is_one_of_the_clients(row: list[str]) -> None:
    parameter = load(row[0].strip("`"))
    where = "mail_parameters" if row[1] == "MAIL" else "rcpt_parameters"
    assert any(parameter is one for extension in CLIENT for one in getattr(extension, where))


def test_no_parameter_is_left_out() -> None:
    rows = table(PAGE, "parameter", "of", "value")
    names = {one.keyword for extension in CLIENT for one in (*extension.mail_parameters, *extension.rcpt_parameters)}
    assert {load(row[0].strip("`")).keyword for row in rows} == names


def test_the_defaults_of_a_pool() -> None:
    rows = {name.strip("`"): default for name, default, _ in table(PAGE, "argument", "default", "meaning")}
    parameters = inspect.signature(Pool).parameters.values()
    assert rows == {
        one.name: f"{one.default:g}{' s' if isinstance(one.default, float) else ''}"
        for one in parameters
        if one.name not in ("where", "reactor", "settings")
    }


def test_the_settings_and_their_defaults() -> None:
    rows = [row[:2] for row in table(PAGE, "setting", "default", "meaning")]
    defaults = [(field.name, field.default) for field in fields(ClientConfig)]
    assert rows == [[f"`{name}`", f"{value:g}" if isinstance(value, float) else str(value)] for name, value in defaults]
