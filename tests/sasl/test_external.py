"""EXTERNAL and ANONYMOUS."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest
from zope.interface import implementer

from smtpfw.errors import AuthFailed, AuthMalformed
from smtpfw.sasl import EXTERNAL, Anonymous, External, ICertificateChecker, PreparationError
from tests.sasl.helpers import BOUND, CLEAR, INFO, Checker, refusal_of, server_for, step


class TestExternal:
    def test_the_dialog(self) -> None:
        checker = Checker()
        server = server_for("EXTERNAL", checker)
        assert step(server, None) == (b"", False)
        assert step(server, b"") == (None, True)
        assert server.identity == "tim"
        assert checker.asked == [("",)]

    def test_the_checker_decides_whom_a_certificate_may_act_as(self) -> None:
        @implementer(ICertificateChecker)
        class Aliases:
            def check_certificate(self, certificate: Any, authorization_identity: str) -> str:
                return f"{certificate} as {authorization_identity}"

        server = server_for("EXTERNAL", Aliases())
        assert step(server, "ursel\u00ad".encode()) == (None, True)
        assert server.identity == "a certificate as ursel"
        assert isinstance(refusal_of(server_for("EXTERNAL"), b"ursel"), AuthFailed)

    @pytest.mark.parametrize(
        "context",
        [
            CLEAR,
            replace(BOUND, tls=False),
            replace(BOUND, peer_certificate=None),
        ],
    )
    def test_without_a_verified_certificate(self, context: Any) -> None:
        checker = Checker()
        assert not EXTERNAL.available(context)
        assert isinstance(refusal_of(server_for("EXTERNAL", checker, context), b""), AuthFailed)
        assert checker.asked == []

    @pytest.mark.parametrize(
        ("response", "error"),
        [
            (b"tim\0", AuthMalformed),
            (b"\0", AuthMalformed),
            (b"\xff", AuthMalformed),
            ("\u202e".encode(), AuthFailed),
            ("\u00ad".encode(), AuthFailed),
        ],
    )
    def test_refused(self, response: bytes, error: type[Exception]) -> None:
        checker = Checker()
        assert type(refusal_of(server_for("EXTERNAL", checker), response)) is error
        assert checker.asked == []

    def test_the_client(self) -> None:
        assert External().start(INFO) == ("EXTERNAL", b"")
        assert External("büch").start(INFO) == ("EXTERNAL", "büch".encode())
        with pytest.raises(ValueError, match="authorization identity"):
            External("a\0b")


class TestAnonymous:
    def test_the_example_of_the_rfc(self) -> None:
        # RFC 4505 section 4.
        assert Anonymous("sirhc").start(INFO) == ("ANONYMOUS", b"sirhc")
        checker = Checker(identity="anonymous")
        server = server_for("ANONYMOUS", checker)
        assert step(server, None) == (b"", False)
        assert step(server, b"sirhc") == (None, True)
        assert server.identity == "anonymous"
        assert checker.asked == [("sirhc",)]

    @pytest.mark.parametrize("trace", ["", "joe@example.org", "é" * 255, "Ⅸ a\u00a0b"])
    def test_traces_are_not_changed(self, trace: str) -> None:
        checker = Checker()
        assert step(server_for("ANONYMOUS", checker), trace.encode()) == (None, True)
        assert checker.asked == [(trace,)]

    @pytest.mark.parametrize("trace", ["a\nb", "\0", "a" * 256, "\u202e", "\u06271", "\ue000"])
    def test_refused(self, trace: str) -> None:
        checker = Checker()
        error = refusal_of(server_for("ANONYMOUS", checker), trace.encode())
        assert isinstance(error, AuthMalformed)
        assert error.message.startswith("The trace is not usable: it ")
        assert checker.asked == []
        with pytest.raises(PreparationError):
            Anonymous(trace)

    def test_not_in_utf_8(self) -> None:
        assert isinstance(refusal_of(server_for("ANONYMOUS"), b"\xff"), AuthMalformed)
