"""Trace fields: their form, and that no client can write in them."""

from __future__ import annotations

import email
import email.policy
import email.utils
import re
import time
from types import SimpleNamespace
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from smtpfw.extensions.mt_priority import MT_PRIORITY
from smtpfw.wire.grammar import Address
from smtpfw.wire.parameters import NO_OPTIONS, Options
from smtpfw.wire.trace import delivered_to, received, received_line, return_path
from smtpfw.wire.transaction import Recipient, Transaction

PLAIN: dict[str, object] = {
    "hello_name": "mail.client.example",
    "peer_host": "192.0.2.1",
    "hostname": "mx.example.org",
    "protocol": "ESMTPS",
    "tls": "TLSv1.3 TLS_AES_256_GCM_SHA384",
    "transaction_id": "c1.7",
    "recipient": "bob@example.org",
    "seconds": 1_785_240_000.5,
}


def make(**changes: object) -> bytes:
    return received(**{**PLAIN, **changes})  # type: ignore[arg-type]


def test_received_has_every_clause_in_the_order_of_the_rfc() -> None:
    head, _, date = make().rpartition(b";\r\n\t")
    assert head == (
        b"Received: from mail.client.example ([192.0.2.1])\r\n"
        b"\tby mx.example.org with ESMTPS (TLSv1.3 TLS_AES_256_GCM_SHA384)\r\n"
        b"\tid c1.7\r\n"
        b"\tfor <bob@example.org>"
    )
    assert re.fullmatch(rb"\w{3}, \d\d \w{3} 2026 \d\d:\d\d:\d\d [+-]\d{4}\r\n", date)
    assert email.utils.parsedate_to_datetime(date.decode().strip()).timestamp() == 1_785_240_000


@pytest.mark.parametrize(
    ("changes", "present", "absent"),
    [
        ({"peer_host": "2001:db8::1"}, b"([IPv6:2001:db8::1])\r\n", b"[2001"),
        ({"peer_host": "fe80::1%eth0"}, b"([IPv6:fe80::1])\r\n", b"eth0"),
        ({"peer_host": ""}, b"from mail.client.example\r\n", b"["),
        ({"tls": ""}, b"with ESMTPS\r\n", b"TLSv"),
        ({"recipient": ""}, b"id c1.7;\r\n\t", b" for "),
        ({"recipient": "x" * 2000 + "@example.org"}, b"id c1.7;\r\n\t", b"xxx"),
        ({"recipient": "jürgen@example.org"}, "for <jürgen@example.org>".encode(), b"?"),
        ({"hello_name": ""}, b"from unknown (", b"from  "),
        ({"hello_name": "[192.0.2.9]"}, b"from [192.0.2.9] (", b"?"),
        ({"hello_name": "a);\r\nX-Evil: 1 (b"}, b"from a????X-Evil:?1??b (", b"\nX-Evil"),
        ({"hello_name": "müller"}, b"from m?ller (", b"\xc3"),
        ({"tls": "TLSv1.3 (x)\\\r\n y"}, b"(TLSv1.3 ?x???? y)", b"\\"),
    ],
)
def test_received(changes: dict[str, object], present: bytes, absent: bytes) -> None:
    line = make(**changes)
    assert present in line
    assert absent not in line


def connection_with(*recipients: str) -> SimpleNamespace:
    transaction = Transaction("c1.7", Address("a", "example.com"), NO_OPTIONS)
    transaction.recipients += [Recipient(Address.parse(recipient), NO_OPTIONS) for recipient in recipients]
    names = ("hello_name", "peer_host", "hostname", "protocol", "tls")
    return SimpleNamespace(transaction=transaction, **{name: PLAIN[name] for name in names})


def test_of_a_connection_it_is_made_of_what_the_connection_knows() -> None:
    assert received_line(connection_with("bob@example.org"), seconds=1_785_240_000.5) == make()


@pytest.mark.parametrize(
    ("recipients", "recipient", "named"),
    [
        (["bob@example.org"], None, "bob@example.org"),
        (["postmaster"], None, "postmaster"),
        (["bob@example.org", "eve@example.org"], None, ""),
        (["bob@example.org", "bob@example.org"], None, ""),
        ([], None, ""),
        (["bob@example.org", "eve@example.org"], Address("eve", "example.org"), "eve@example.org"),
    ],
)
def test_whom_the_for_clause_names(recipients: list[str], recipient: Address | None, named: str) -> None:
    line = received_line(connection_with(*recipients), recipient, seconds=1_785_240_000.5)
    assert line == make(recipient=named)


def test_the_time_is_now_unless_it_is_given() -> None:
    before = int(time.time())
    _, _, date = received_line(connection_with()).rpartition(b";\r\n\t")
    moment = email.utils.parsedate_to_datetime(date.decode().strip()).timestamp()
    assert before <= moment <= time.time()


@pytest.mark.parametrize(
    ("given", "clause"), [({}, b""), ({MT_PRIORITY: 0}, b"\r\n\tPRIORITY 0"), ({MT_PRIORITY: -9}, b"\r\n\tPRIORITY -9")]
)
def test_a_priority_that_was_asked_for(given: Any, clause: bytes) -> None:
    connection = connection_with("bob@example.org")
    connection.transaction.options = Options.of(given)
    head, _, _ = received_line(connection).rpartition(b";\r\n\t")
    assert head.partition(b"for <bob@example.org>")[2] == clause


def test_without_a_message_there_is_nothing_to_say() -> None:
    connection = connection_with()
    connection.transaction = None
    with pytest.raises(RuntimeError, match="no message is under way"):
        received_line(connection)


def test_return_path_and_delivered_to() -> None:
    assert return_path("a@example.org") == b"Return-Path: <a@example.org>\r\n"
    assert return_path("") == b"Return-Path: <>\r\n"
    assert delivered_to("bob@example.org") == b"Delivered-To: bob@example.org\r\n"
    assert return_path('"a\r\nX: \x00\u2028"@b\x85') == b'Return-Path: <"a??X: ??"@b?>\r\n'
    assert delivered_to("a\r\n\r\nbody\ud800") == b"Delivered-To: a????body?\r\n"


@given(st.text(), st.text(), st.text(), st.text(), st.text())
def test_whatever_a_client_says_there_are_these_fields_and_no_others(
    hello_name: str, peer_host: str, tls: str, recipient: str, sender: str
) -> None:
    field = make(hello_name=hello_name, peer_host=peer_host, tls=tls, recipient=recipient)
    lines = field.split(b"\r\n")
    assert lines.pop() == b""
    assert lines[0].startswith(b"Received: from ")
    assert all(re.match(rb"\t(by|id|for|\w{3},) ", line) for line in lines[1:])
    assert all(len(line) <= 998 and b"\r" not in line and b"\n" not in line for line in lines)
    head = return_path(sender) + delivered_to(recipient) + field
    message = email.message_from_bytes(head + b"Subject: x\r\n\r\nbody", policy=email.policy.compat32)
    assert message.keys() == ["Return-Path", "Delivered-To", "Received", "Subject"]
    assert message.get_payload() == "body"
