"""What a listener can't be configured with: said when the value is made, not at the first connection."""

from __future__ import annotations

from typing import Any

import pytest
from twisted.internet.ssl import CertificateOptions
from twisted.internet.task import Clock

from smtpfw import ServerConfig, Session, SMTPError, SMTPServerFactory
from smtpfw.errors import ConfigError
from smtpfw.extensions import STANDARD, StartTLS
from smtpfw.testing import RecordingBackend
from smtpfw.wire.dialect import Extension


@pytest.mark.parametrize(
    ("settings", "expected"),
    [
        ({"hostname": "a b"}, "hostname: 'a b' is no host name"),
        ({"hostname": "mx\r\n250 x"}, "is no host name"),
        ({"hostname": ""}, "is no host name"),
        ({"max_message_bytes": -1}, "max_message_bytes: -1 is no number from 0"),
        ({"command_timeout": "5m"}, "command_timeout: '5m' is no number from 0"),
        ({"profile": "strict"}, "profile: 'strict' is no Profile"),
        ({"protocol": "http"}, "protocol: 'http' is neither smtp nor lmtp"),
    ],
)
def test_a_setting_that_cannot_be(settings: dict[str, Any], expected: str) -> None:
    with pytest.raises(ConfigError, match=expected):
        ServerConfig(**{"hostname": "mx.test", **settings})


def test_an_address_literal_is_a_name() -> None:
    assert ServerConfig(hostname="[192.0.2.1]").hostname == "[192.0.2.1]"


class Nameless(Extension):
    pass


class Spaced(Extension):
    keyword = "TWO WORDS"


@pytest.mark.parametrize(
    ("extensions", "expected"),
    [
        ([*STANDARD, Nameless()], "'' of Nameless is no keyword"),
        ([Spaced()], "'TWO WORDS' of Spaced is no keyword"),
        ([Nameless], "is no Extension; an instance is meant"),
        ([StartTLS(), StartTLS()], "extension STARTTLS is listed twice"),
    ],
)
def test_an_extension_that_cannot_be(extensions: list[Any], expected: str) -> None:
    config = ServerConfig(hostname="mx.test")
    with pytest.raises(ConfigError, match=expected):
        SMTPServerFactory(RecordingBackend(), config, tls=CertificateOptions(), extensions=extensions, reactor=Clock())


def test_a_session_class_is_no_backend() -> None:
    class Inbox(Session):
        pass

    backend: Any = Inbox
    with pytest.raises(ConfigError, match=r"give SessionBackend\(Inbox\)"):
        SMTPServerFactory(backend, ServerConfig(hostname="mx.test"), reactor=Clock())


def test_an_enhanced_code_as_text() -> None:
    assert SMTPError(550, "5.7.1", "no").enhanced_code == (5, 7, 1)
    with pytest.raises(ValueError, match="not an enhanced status code"):
        SMTPError(550, "5.7", "no")
