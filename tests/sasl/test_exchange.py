"""What holds for the server's sides of all mechanisms: errors, faults of checkers, cancelling, order."""

from __future__ import annotations

import base64
import traceback
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from twisted.internet import defer
from twisted.internet.defer import CancelledError, Deferred
from twisted.python.failure import Failure

from smtpfw.errors import AuthFailed, AuthMalformed, AuthUnavailable, SMTPError
from smtpfw.hooks import call_hook
from smtpfw.sasl import ISASLServer, ISecretStore, ServerInfo
from smtpfw.sasl.exchange import MAX_RESPONSE, CheckerFault, Mechanism, ServerExchange
from tests.sasl.helpers import (
    BINDINGS,
    BOUND,
    BY_NAME,
    CLEAR,
    PASSWORD,
    TOKEN,
    Checker,
    KeyChecker,
    refusal_of,
    server_for,
    step,
)
from tests.sasl.test_pairs import CLIENTS, MakeClient, info_for, right

NAMES = list(BY_NAME)
NOTHING: dict[str, str] = {}
SECRETS = (PASSWORD, TOKEN, *(base64.b64encode(text.encode()).decode() for text in (PASSWORD, TOKEN)))


def begin(make: MakeClient, name: str, checker: Any) -> tuple[ISASLServer, bytes]:
    """Talk up to the response that the checker is asked about."""
    client, server = make("tim", right(name)), server_for(name, checker)
    _, response = client.start(info_for(name))
    for _ in range({"LOGIN": 2, "CRAM-MD5": 1}.get(name, 0)):
        challenge, _ = step(server, response)
        assert challenge is not None
        response = client.next(challenge, True)
    assert response is not None
    return server, response


class Broken(Checker):
    """Fails in a way that shows all that it was asked."""

    def __init__(self, error: BaseException | None = None, way: str = "value") -> None:
        super().__init__()
        self.error = error
        self.how = way

    def _fail(self, *asked: str) -> Any:
        error = self.error
        if error is None:
            error = UnicodeEncodeError("latin-1", f"{asked} {PASSWORD} {TOKEN}", 0, 1, "ordinal not in range")
        if self.how == "Deferred":
            return defer.fail(error)
        if self.how == "coroutine":

            async def fail() -> None:
                raise error

            return fail()
        raise error

    check_password = get_secret = check_token = check_certificate = check_anonymous = _fail  # type: ignore[assignment]


def wrong_final(name: str, challenge: bytes) -> bytes:
    """SCRAM's last message of the client, with a proof of the right size."""
    proof = base64.b64encode(bytes(20 if "SHA-1" in name else 32))
    binding = base64.b64encode(b"p=tls-exporter,," + BINDINGS["tls-exporter"] if name.endswith("PLUS") else b"n,,")
    return b"c=%s,%s,p=%s" % (binding, challenge.split(b",")[0], proof)


def everything_shown(error: BaseException, variables: bool) -> str:
    """All texts that a log could take from an error, on request with the variables of the mechanism's frames."""
    texts = [str(error), repr(error), repr(error.args), repr(vars(error))]
    texts += traceback.format_exception(error)
    texts.append(Failure(error).getTraceback(detail="verbose"))
    seen: BaseException | None = error
    while seen is not None:
        texts += [str(seen), repr(seen), repr(seen.args)]
        assert seen.__context__ is None
        seen = seen.__cause__
    for frame in traceback.TracebackException.from_exception(error, capture_locals=True).stack:
        if variables and "/smtpfw/sasl/" in frame.filename:
            texts += [repr(frame.locals)]
    return "\n".join(texts)


def assert_no_secret(error: BaseException, variables: bool = True) -> None:
    shown = everything_shown(error, variables)
    for secret in SECRETS:
        assert secret not in shown


@pytest.mark.parametrize("way", ["value", "Deferred", "coroutine"])
@pytest.mark.parametrize(("make", "name"), CLIENTS)
def test_a_fault_of_the_checker(make: MakeClient, name: str, way: str) -> None:
    server, response = begin(make, name, Broken(way=way))
    with pytest.raises(AuthUnavailable) as caught:
        step(server, response)
    assert str(caught.value) == "454 4.7.0 Temporary authentication failure"
    cause = caught.value.__cause__
    # The operator learns what it was and where, and nothing of what it said.
    assert isinstance(cause, CheckerFault)
    assert "UnicodeEncodeError" in str(cause)
    # A Deferred that was fired from outside has no place to show.
    assert way == "Deferred" or "test_exchange.py" in "".join(traceback.format_exception(cause))
    assert_no_secret(caught.value)


@pytest.mark.parametrize("way", ["value", "Deferred", "coroutine"])
@pytest.mark.parametrize(("make", "name"), CLIENTS)
def test_a_checker_that_was_cancelled_by_somebody_else(make: MakeClient, name: str, way: str) -> None:
    # Its database has given up, say; the client is still there, and waits.
    server, response = begin(make, name, Broken(CancelledError(PASSWORD, TOKEN), way))
    with pytest.raises(AuthUnavailable) as caught:
        step(server, response)
    assert "CancelledError" in str(caught.value.__cause__)
    assert_no_secret(caught.value)


@pytest.mark.parametrize(("make", "name"), CLIENTS)
@pytest.mark.parametrize("answer", [True, 1, b"tim", "", ("tim",)])
def test_an_answer_that_is_none(make: MakeClient, name: str, answer: Any) -> None:
    class Odd(Checker):
        def _answer(self, right: bool, *asked: str) -> Any:
            return answer

        def get_secret(self, username: str) -> Any:
            return answer

    server, response = begin(make, name, Odd())
    if name.startswith("SCRAM") and answer == "":
        challenge, _ = step(server, response)
        error = refusal_of(server, wrong_final(name, challenge or b""))
    else:
        error = refusal_of(server, response)
    # An empty secret is nobody's.
    assert type(error) is (AuthFailed if answer == "" and ISecretStore in BY_NAME[name].needs else AuthUnavailable)
    assert not hasattr(server, "identity")


@pytest.mark.parametrize(("make", "name"), CLIENTS)
def test_a_refusal_in_the_checkers_own_words(make: MakeClient, name: str) -> None:
    refusal = SMTPError(454, (4, 7, 12), "Come back with a new password")
    server, response = begin(make, name, Broken(refusal))
    with pytest.raises(SMTPError, match="new password") as caught:
        step(server, response)
    assert caught.value is refusal


def test_what_a_checker_raised_it_from_is_not_shown_either() -> None:
    class Chained(Checker):
        def check_password(self, username: str, password: str) -> Any:
            try:
                NOTHING[password]
            except KeyError as error:
                raise AuthUnavailable("The directory is down") from error

    with pytest.raises(AuthUnavailable, match="directory") as caught:
        step(server_for("PLAIN", Chained()), f"\0tim\0{PASSWORD}".encode())
    assert "KeyError" in str(caught.value.__cause__)
    assert_no_secret(caught.value)

    class Hasty(Checker):
        def check_password(self, username: str, password: str) -> Any:
            try:
                NOTHING[password]
            except KeyError:
                raise AuthFailed  # noqa: B904

    with pytest.raises(AuthFailed) as refused:
        step(server_for("PLAIN", Hasty()), f"\0tim\0{PASSWORD}".encode())
    assert refused.value.__cause__ is None
    assert_no_secret(refused.value)


@pytest.mark.parametrize(("make", "name"), CLIENTS)
def test_no_secret_in_a_refusal(make: MakeClient, name: str) -> None:
    class Stranger(Checker):
        def _answer(self, right: bool, *asked: str) -> Any:
            return super()._answer(False, *asked)

        def get_secret(self, username: str) -> Any:
            return PASSWORD + "x"

    server, response = begin(make, name, Stranger())
    if name.startswith("SCRAM"):
        challenge, _ = step(server, response)
        error = refusal_of(server, wrong_final(name, challenge or b""))
    else:
        # The mechanisms with tokens explain themselves first.
        error = refusal_of(server, response, b"\1")
    assert isinstance(error, AuthFailed)
    assert_no_secret(error)
    assert not any(secret in repr(server) for secret in SECRETS)


@pytest.mark.parametrize(
    "octets", [b"\0tim\0%s\0" % PASSWORD.encode(), b"\0tim\0%s\xff" % PASSWORD.encode(), b"%s\x07" % PASSWORD.encode()]
)
@pytest.mark.parametrize("name", NAMES)
def test_no_secret_in_what_is_said_of_junk(name: str, octets: bytes) -> None:
    server = server_for(name)
    if name in ("LOGIN", "CRAM-MD5"):
        step(server, None)
    assert_no_secret(refusal_of(server, octets, octets))


@pytest.mark.parametrize(("make", "name"), CLIENTS)
def test_no_secret_in_what_a_client_says(make: MakeClient, name: str) -> None:
    client = make("tim", right(name))
    assert not any(secret in repr(client) for secret in SECRETS)
    errors: list[BaseException] = []

    def attempt(function: Any, *arguments: Any) -> None:
        try:
            function(*arguments)
        except Exception as error:
            errors.append(error)

    attempt(client.start, ServerInfo(name="elsewhere.test"))
    client.start(info_for(name))
    for challenge in (b"junk", b"r=a,s=b", b"more", b"e=other-error"):
        attempt(client.next, challenge, True)
    assert errors
    for error in errors:
        assert_no_secret(error)


@pytest.mark.parametrize("make", [make for make, name in CLIENTS if name not in ("EXTERNAL", "ANONYMOUS")])
@pytest.mark.parametrize("addition", ["\0", "\ud800", "\0\ud800"])
def test_no_secret_in_what_a_client_refuses(make: Any, addition: str) -> None:
    for arguments in (("tim", TOKEN + addition), ("tim" + addition, TOKEN), ("", TOKEN + addition), ("tim", "")):
        with pytest.raises(ValueError) as caught:  # noqa: PT011
            make(*arguments)
        # Its own arguments are the caller's business.
        assert_no_secret(caught.value, variables=False)


@pytest.mark.parametrize("name", NAMES)
def test_after_an_error_it_is_over(name: str) -> None:
    server = server_for(name)
    assert refusal_of(server, b"\xff\0\xff").code == 501
    for response in (None, b"", b"\0tim\0" + PASSWORD.encode()):
        with pytest.raises(AuthMalformed, match="over"):
            step(server, response)
    assert not hasattr(server, "identity")


@pytest.mark.parametrize("name", NAMES)
def test_over_long(name: str) -> None:
    server = server_for(name)
    if name in ("LOGIN", "CRAM-MD5"):
        step(server, None)
    with pytest.raises(AuthMalformed, match="too long"):
        step(server, b"a" * (MAX_RESPONSE + 1))


@pytest.mark.parametrize("name", NAMES)
def test_no_second_response_is_missing(name: str) -> None:
    server = server_for(name)
    challenge, done = step(server, None)
    assert not done
    assert challenge is not None
    with pytest.raises(AuthMalformed):
        step(server, None)


def test_a_second_call_while_the_checker_thinks() -> None:
    waiting: Deferred[str] = Deferred()

    class Slow(Checker):
        def check_password(self, username: str, password: str) -> Any:
            return waiting

    server = server_for("PLAIN", Slow())
    response = f"\0tim\0{PASSWORD}".encode()
    answer = call_hook(server.next, response)
    with pytest.raises(AuthMalformed):
        step(server, response)
    waiting.callback("tim")
    assert answer.result == (None, True)
    assert server.identity == "tim"


def test_cancelling_reaches_the_checker() -> None:
    cancelled: list[Deferred[str]] = []

    class Slow(Checker):
        def check_password(self, username: str, password: str) -> Any:
            return Deferred(cancelled.append)

    server = server_for("PLAIN", Slow())
    answer = call_hook(server.next, f"\0tim\0{PASSWORD}".encode())
    failures: list[Failure] = []
    answer.addErrback(failures.append)
    answer.cancel()
    assert len(cancelled) == 1
    assert failures[0].check(CancelledError)
    assert not hasattr(server, "identity")


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize("states", [0, 1])
def test_dropped_in_the_middle(name: str, states: int) -> None:
    # A client that says * leaves it like this: there is nothing to clean up, and nobody is logged in.
    server = server_for(name)
    for _ in range(states):
        step(server, None)
    assert not hasattr(server, "identity")


#: Beginnings that lead further into the grammars than chance does.
PIECES = [
    b"\0", b"\1", b",", b"=", b" ", b"n,,", b"y,,", b"p=tls-exporter,,", b"n,a=tim,", b"n=tim,r=abc", b",r=", b"c=biws",
    b",p=", b"AAAA", b"auth=", b"auth=Bearer ", b"user=tim\1", b"\1\1", b"tim", PASSWORD.encode(), TOKEN.encode(),
    b"0" * 32, b"\xff", b"\xc3", "\u202e".encode(), "\U0001f600".encode(), b"m=x,", b"=2C", b"=2",
]  # fmt: skip
RESPONSES = st.one_of(
    st.none(),
    st.binary(max_size=60),
    st.lists(st.sampled_from(PIECES), max_size=8).map(b"".join),
    st.just(b"a" * 20_000),
)


@settings(max_examples=60)
@pytest.mark.parametrize("name", NAMES)
@given(responses=st.lists(RESPONSES, min_size=1, max_size=5), keys=st.booleans(), bound=st.booleans())
def test_nothing_but_replies(name: str, responses: list[bytes | None], keys: bool, bound: bool) -> None:
    checker: Any = KEYS if keys and name.startswith("SCRAM") else Checker()
    server = server_for(name, checker, BOUND if bound else CLEAR)
    for response in responses:
        try:
            challenge, done = step(server, response)
        except SMTPError as error:
            refusal = error
            break
        assert done == hasattr(server, "identity")
        assert isinstance(challenge, bytes) or (challenge is None and done)
        if done:
            return
    else:
        return
    assert refusal.code in (454, 501, 535)
    assert refusal.__cause__ is None
    assert_no_secret(refusal)
    assert isinstance(refusal_of(server, responses[0]), AuthMalformed)


KEYS = KeyChecker()


def test_a_mechanism_without_a_message_is_none() -> None:
    with pytest.raises(AuthUnavailable) as caught:
        step(Mechanism("X", ServerExchange, ()).make_server(None, CLEAR), b"")
    assert "NotImplementedError" in str(caught.value.__cause__)
