"""
docs/coming-from.md: every name of ours in it exists, every proof is there, every code is that of its class, and the two
programs run.

Rule 1: what stands in code in a column "here" is Python or an option, and is
looked up; so is every argument of a call. What can't be looked up fails.

Rule 2: a number behind an option is its default.

Rule 3: whether a proof shows its row, nobody can test; that it is there, this does.
"""

from __future__ import annotations

import ast
import importlib
import inspect
import re
import shlex
from base64 import b64encode
from typing import Any

import pytest
from twisted.internet import endpoints
from twisted.internet.interfaces import IListeningPort, IProtocol, IStreamServerEndpoint
from twisted.internet.task import Clock
from zope.interface.interface import InterfaceClass, Method

from smtpfw import errors
from smtpfw.config.settings import BY_NAME
from smtpfw.errors import NamedSMTPError
from smtpfw.interfaces import IConnection
from smtpfw.service import Options as ServiceOptions
from tests.server.helpers import DATA, DOT, HELLO, MAIL, MESSAGE, codes
from tests.server.tls_in_memory import CONTEXT, TLSClient
from tests.test_readme import ROOT, blocks
from tests.test_wire_rows import exists

PAGE = ROOT / "docs" / "coming-from.md"

PROVED = ("there", "here", "proved by")
DIFFERENT = ("there", "here", "what differs")
ERRORS = ("there", "its code", "here", "our code")
NAMES = ("here", "is")

#: Twisted's own names.
TWISTED = {
    "wrapServerTLS": endpoints.wrapServerTLS,
    "listen": IStreamServerEndpoint["listen"],
    "makeConnection": IProtocol["makeConnection"],
    "getHost": IListeningPort["getHost"],
    "stopListening": IListeningPort["stopListening"],
}

_CODE = re.compile(r"`([^`]+)`")
_TABLE = re.compile(r"^\|(.+)\|\n\|(?:-+\|)+\n((?:\|.*\|\n)+)", re.MULTILINE)
_ADDED = re.compile(r"^(?:await |async for \w+ in )")


def cells(line: str) -> tuple[str, ...]:
    return tuple(cell.strip() for cell in line.strip().removeprefix("|").removesuffix("|").split("|"))


def tables(page: str) -> list[tuple[tuple[str, ...], list[tuple[str, ...]]]]:
    """Each table: the cells of its head, and those of its rows."""
    return [(cells(head), [cells(row) for row in body.splitlines()]) for head, body in _TABLE.findall(page)]


TABLES = tables(PAGE.read_text())


def rows(*heads: tuple[str, ...]) -> list[dict[str, str]]:
    """The rows of all tables with one of these heads, by the name of the column."""
    return [dict(zip(head, row, strict=True)) for head, body in TABLES for row in body if head in heads]


def load(name: str) -> Any:
    """What a dotted name stands for: a module, or something in one."""
    try:
        return importlib.import_module(name)
    except ModuleNotFoundError:
        module, _, attribute = name.rpartition(".")
        return getattr(load(module), attribute)


class Names:
    """What the names of the page stand for, as its first table says."""

    def __init__(self, table: list[dict[str, str]]) -> None:
        first, *others = table
        self.modules = [load(name) for name in _CODE.findall(first["is"])]
        self.objects: dict[str, Any] = dict(TWISTED)
        for row in others:
            ((here,), (kind, *_)) = _CODE.findall(row["here"]), _CODE.findall(row["is"])
            if not here.startswith("--"):
                self.objects[here] = self.find(ast.parse(kind, mode="eval").body)

    def find(self, node: ast.expr) -> Any:
        """
        What an expression stands for, with everything in it.

        :raises LookupError: if there is no such thing, or it takes no such arguments.
        """
        match node:
            case ast.Name("smtpfw"):
                return importlib.import_module("smtpfw")
            case ast.Name(name) if name[0].isupper():
                found = {id(found): found for module in self.modules if (found := getattr(module, name, None))}
                if len(found) != 1:
                    raise LookupError(f"{name} is the name of {len(found)} things")
                return found.popitem()[1]
            case ast.Name(name) if name in self.objects:
                return self.objects[name]
            case ast.Attribute(value, name):
                return self.attribute(self.find(value), name)
            case ast.Subscript(value, key):
                return self.find(value), self.find(key)
            case ast.Call(function, arguments, keywords):
                called = self.find(function)
                if not callable(called) and not isinstance(called, Method):
                    raise LookupError(f"{called!r} is not called")
                check_call(called, arguments, [keyword.arg or "" for keyword in keywords])
                return called
        raise LookupError(f"what is {ast.unparse(node)}?")

    def attribute(self, owner: Any, name: str) -> Any:
        """An attribute, as far as the class tells what it is."""
        if isinstance(owner, InterfaceClass):
            if name not in owner.names(all=True):
                raise LookupError(f"{owner.__name__} has no {name}")
            found = owner[name]
        elif hasattr(owner, name):
            found = getattr(owner, name)
        elif isinstance(owner, type) and (
            name in owner.__annotations__ or re.search(rf"self\.{name}(: .*)? = ", inspect.getsource(owner))
        ):
            found = None
        else:
            try:
                found = importlib.import_module(f"{owner.__name__}.{name}")
            except ModuleNotFoundError:
                raise LookupError(f"{owner.__name__} has no {name}") from None
        # A name that means the same wherever it stands: envelope.connection.peer.
        return found if inspect.ismodule(owner) else self.objects.get(name, found)


def check_call(called: Any, arguments: list[ast.expr], keywords: list[str]) -> None:
    """
    Whether something takes these arguments; those that are names have to be its own names for them.

    :raises LookupError: if it does not.
    """
    given = [ast.unparse(argument) for argument in arguments]
    partly = given[:1] == ["..."]
    given = given[partly:]
    if isinstance(called, Method):
        signature = called.getSignatureInfo()
        own, needed = list(signature["positional"]), len(signature["required"])
        fits = needed <= len(given) <= len(own) and not keywords
    else:
        parameters = inspect.signature(called).parameters
        # A method is looked up in its class.
        own = [name for name in parameters if name != "self"]
        free = any(parameter.kind is parameter.VAR_KEYWORD for parameter in parameters.values())
        fits = len(given) <= len(own) and (free or all(name in own for name in keywords))
    wrong = [(name, meant) for name, meant in zip(given, own, strict=False) if name.isidentifier() and name != meant]
    if not fits or [name for name, _ in wrong if name not in ("None", "True", "False")]:
        raise LookupError(f"{called!r} takes {own}, not {given} {keywords}")


NAMED = Names(rows(NAMES))
OPTIONS = set(re.findall(r"(?<![\w-])--[a-z][a-z-]+", ServiceOptions().getUsage()))


def check(code: str) -> None:
    """
    Whether what stands in code is there: a command line, an option, or Python.

    :raises LookupError: if it is not.
    """
    words = shlex.split(code)
    if words[:3] == ["twistd", "-n", "smtpfw"] or code.startswith("--"):
        unknown = [word for word in words if word.startswith("--") and word not in OPTIONS]
        if unknown:
            raise LookupError(f"there is no {unknown}")
        return
    try:
        node = ast.parse(_ADDED.sub("", code), mode="eval").body
    except SyntaxError:
        raise LookupError(f"{code} is neither an option nor Python") from None
    NAMED.find(node)


#: An option, and its default in words.
_DEFAULT = re.compile(r"`--([a-z-]+)`, ([0-9][0-9,]*)(?: (s|min|h|MiB))?(?![0-9])")
_UNITS = {"": 1, "s": 1, "min": 60, "h": 3600, "MiB": 1 << 20}

TOLD = [told for row in rows(PROVED) for told in _DEFAULT.findall(row["here"])]


def test_defaults_are_told() -> None:
    """Those of chrj/smtpd have their counterparts beside them."""
    assert {option for option, _, _ in TOLD} >= {
        "command-timeout", "write-timeout", "data-timeout", "message-timeout", "max-connections", "max-message-bytes",
        "max-recipients",
    }  # fmt: skip


@pytest.mark.parametrize(("option", "number", "unit"), TOLD)
def test_a_default_is_what_is_told(option: str, number: str, unit: str) -> None:
    assert BY_NAME[option.replace("-", "_")].default == int(number.replace(",", "")) * _UNITS[unit]


HERE = sorted({code for row in rows(PROVED, DIFFERENT, ERRORS) for code in _CODE.findall(row["here"])})


@pytest.mark.parametrize("code", HERE)
def test_a_name_is_there(code: str) -> None:
    check(code)


@pytest.mark.parametrize(
    "code",
    [
        "--nowhere",
        "--listen tcp:25 --nowhere",
        "twistd -n smtpfw --nowhere",
        "Nowhere",
        "RequireTLS.nowhere",
        "connection.nowhere",
        "envelope.connection.nowhere",
        "IBackend.nowhere",
        "smtpfw.nowhere",
        "smtpfw.errors.nowhere",
        "ISession.mail(recipient, options)",
        "ISession.mail(sender)",
        "Plain(name, password)",
        "SMTPServerFactory(..., nowhere=...)",
        "ServerConfig.max_message_bytes()",
        "something",
        "two words",
        "options[NOTIFY]",
        "smtpfw.client.nowhere",
        "client.nowhere",
        "client.mail(recipient)",
    ],
)
def test_what_is_no_name(code: str) -> None:
    with pytest.raises((LookupError, AttributeError)):
        check(code)


def is_there(proof: str) -> bool:
    """Whether there is such a dialog, or such a test; of one with a parameter, in brackets, the file has to name it."""
    path, bracket, parameter = proof.removesuffix("]").partition("[")
    inside, slash, of_tests = path.partition("/")
    return (
        (inside, slash) == ("tests", "/")
        and exists(of_tests)
        and (not bracket or f'"{parameter}"' in (ROOT / path.partition("::")[0]).read_text())
    )


@pytest.mark.parametrize(
    "proof",
    [
        "test_errors.py::test_defaults",
        "tests/test_errors.py::test_nothing",
        "tests/dialogs/nothing.smtp",
        "tests/test_examples.py::test_example[nothing.py]",
    ],
)
def test_what_is_no_proof(proof: str) -> None:
    assert not is_there(proof)


@pytest.mark.parametrize("row", rows(PROVED), ids=lambda row: row["there"])
def test_a_row_is_proved(row: dict[str, str]) -> None:
    assert row["there"] and row["here"]
    proofs = _CODE.findall(row["proved by"])
    assert proofs and row["proved by"] == ", ".join(f"`{proof}`" for proof in proofs)
    assert [proof for proof in proofs if not is_there(proof)] == []


def test_each_library_has_its_tables() -> None:
    heads = [head for head, _ in TABLES]
    assert [heads.count(head) for head in (PROVED, DIFFERENT, ERRORS, NAMES)] == [5, 5, 2, 1]
    for head, body in TABLES:
        assert all(len(row) == len(head) for row in body)
        # Of the errors one name may have two meanings, told apart behind it.
        assert len({row[0] for row in body}) == len(body)


@pytest.mark.parametrize("row", rows(ERRORS), ids=lambda row: row["there"])
def test_an_error_has_the_code_that_is_told(row: dict[str, str]) -> None:
    found = [getattr(errors, name, None) for name in _CODE.findall(row["here"])]
    named = [error for error in found if isinstance(error, type) and issubclass(error, NamedSMTPError)]
    if named:
        (error,) = named
        assert row["our code"] == f"{error.code} {error.enhanced_code}"
    else:
        assert re.fullmatch(r"none|5\d\d 5\.5\.[12]", row["our code"])


def programs() -> list[str]:
    return blocks(PAGE, "python")


@pytest.mark.parametrize("number", [0, 1], ids=["session", "functions"])
def test_both_programs_do_the_same(number: int, capsys: pytest.CaptureFixture[str]) -> None:
    assert len(programs()) == 2
    names: dict[str, Any] = {}
    exec(programs()[number], names)
    client = TLSClient(names["serve"](Clock(), CONTEXT))
    client.send()
    assert b"AUTH" not in client.send(HELLO)
    assert codes(client.send(MAIL)) == [b"530"]
    client.send(b"STARTTLS\r\n")
    client.start_tls()
    assert b"AUTH PLAIN LOGIN" in client.send(HELLO)
    assert codes(client.send(b"AUTH PLAIN " + b64encode(b"\0tim\0secret") + b"\r\n")) == [b"235"]
    envelope = MAIL + b"RCPT TO:<c@example.net>\r\nRCPT TO:<c@Example.ORG>\r\nRCPT TO:<postmaster>\r\n"
    assert codes(client.send(envelope + DATA)) == [b"250", b"550", b"250", b"250", b"354"]
    assert codes(client.send(MESSAGE + DOT)) == [b"250"]
    assert capsys.readouterr().out == f"{len(MESSAGE)} octets from a@b.test\n"
    client.send(b"QUIT\r\n")
    assert client.closed


@pytest.mark.parametrize("number", [0, 1], ids=["session", "functions"])
def test_neither_takes_a_wrong_password(number: int) -> None:
    names: dict[str, Any] = {}
    exec(programs()[number], names)
    clock = Clock()
    client = TLSClient(names["serve"](clock, CONTEXT), implicit=True)
    client.start_tls()
    client.send(HELLO)
    assert client.send(b"AUTH PLAIN " + b64encode(b"\0tim\0wrong") + b"\r\n") == b""
    clock.advance(2)
    assert codes(client.send()) == [b"535"]
    client.send(b"QUIT\r\n")


def test_what_is_read_of_a_page() -> None:
    page = "# One\n\n| there | here |\n|---|---|\n| `a` | b, `c` |\n| d | |\n\nText.\n"
    assert tables(page) == [(("there", "here"), [("`a`", "b, `c`"), ("d", "")])]
    assert NAMED.objects["connection"] is IConnection
