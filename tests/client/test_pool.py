"""A pool of connections: who gets which, and in which order."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest
from twisted.internet.defer import gatherResults
from twisted.internet.task import Clock

from smtpfw import ServerConfig, SMTPServerFactory
from smtpfw.client import Destination, connector_of
from smtpfw.client.pool import Pool
from smtpfw.errors import ExtensionMissing, LocalProtocolError
from smtpfw.testing import MemoryEndpoint, RecordingBackend
from tests.client.pool_rig import CONFIG, Rig, nothing_in_the_log, quick_collections  # noqa: F401

BIG = b"Subject: x\r\n\r\n" + (b"y" * 76 + b"\r\n") * 20_000


# -- who gets which -------------------------------------------------------------


def test_one_after_another_takes_one_connection() -> None:
    rig = Rig()
    for name in ("a", "b", "c"):
        rig.send(name)
        assert rig.was_sent(name)
    assert len(rig.links) == 1
    assert rig.accepted == ["a", "b", "c"]
    assert (rig.pool.open, rig.pool.waiting, rig.pool.unused) == (1, 0, True)
    rig.end()
    assert rig.servers[0].heard[-1] == "QUIT"


def test_several_at_a_time_take_as_many_as_there_may_be() -> None:
    rig = Rig(prompt=False, pipelining=False, max_connections=3)
    rig.send("a", "b", "c", "d", "e")
    assert len(rig.links) == 3
    assert (rig.pool.open, rig.pool.waiting) == (0, 5)
    for server in range(3):
        rig.answer(server)
    assert (rig.pool.open, rig.pool.waiting, rig.pool.unused) == (3, 2, False)
    rig.answer_all()
    assert rig.was_sent(*"abcde")
    assert len(rig.links) == 3
    rig.end()


@pytest.mark.parametrize("pipelining", [True, False])
def test_who_comes_first_is_served_first(pipelining: bool) -> None:
    rig = Rig(prompt=False, pipelining=pipelining, max_connections=1)
    rig.send(*"abcdefg")
    rig.answer_all()
    assert rig.accepted == list("abcdefg") == list(rig.told)
    rig.end()


def test_of_two_that_are_idle_the_last_used_is_taken() -> None:
    """So the other one comes to its end."""
    rig = Rig(prompt=False)
    rig.send("a", "b")
    rig.answer(0), rig.answer(1)
    rig.answer(1, 4), rig.answer(0, 4)
    assert list(rig.told) == ["b", "a"]
    rig.factory.prompt = True
    rig.send("c"), rig.send("d")
    assert [server.accepted for server in rig.servers] == [["a", "c", "d"], ["b"]]
    rig.advance(59)
    rig.send("e")
    rig.advance(2)
    assert [server.lost for server in rig.servers] == [False, True]
    rig.end()


def test_a_message_shares_a_write_with_the_end_of_the_one_before() -> None:
    rig = Rig(prompt=False, max_connections=1)
    rig.send("a", "b")
    rig.answer(0, 3)
    before = len(rig.links[0].client_transport.writes)
    rig.answer(0)
    assert rig.links[0].client_transport.writes[before:] == [
        b"Subject: a\r\n\r\na\r\n.\r\nMAIL FROM:<b@a.test>\r\nRCPT TO:<b@b.test>\r\nDATA\r\n"
    ]
    # One that comes later goes there, too, and not behind a message that has not come to its end.
    rig.send("c")
    assert rig.pool.waiting == 1
    rig.answer_all()
    assert rig.was_sent("a", "b", "c")
    rig.end()


def test_one_that_comes_late_is_pipelined_too() -> None:
    rig = Rig(prompt=False, max_connections=1)
    rig.send("a")
    rig.answer(0, 4)
    rig.send("b")
    assert rig.links[0].client_transport.writes[-1] == b"MAIL FROM:<b@a.test>\r\nRCPT TO:<b@b.test>\r\nDATA\r\n"
    assert not rig.told
    rig.answer_all()
    assert list(rig.told) == ["a", "b"]
    rig.end()


def test_without_pipelining_each_waits_for_the_answer_before() -> None:
    rig = Rig(prompt=False, pipelining=False, max_connections=1)
    rig.send("a", "b")
    rig.answer(0, 4)
    assert rig.links[0].client_transport.writes[-1].endswith(b"\r\n.\r\n")
    rig.answer(0)
    assert rig.links[0].client_transport.writes[-1] == b"MAIL FROM:<b@a.test>\r\n"
    rig.answer_all()
    rig.end()


def test_none_is_pipelined_while_there_may_be_another_connection() -> None:
    """A server that takes its time with one message does not hold up the next."""
    rig = Rig(prompt=False, max_connections=3)
    rig.send("a")
    rig.answer(0)
    rig.send("b")
    rig.answer(0, 3)
    assert len(rig.links) == 2
    assert rig.links[0].client_transport.writes[-1].endswith(b"\r\n.\r\n")
    rig.answer(1)
    assert rig.links[1].client_transport.writes[-1].startswith(b"MAIL FROM:<b@")
    rig.answer_all()
    rig.end()


def test_what_comes_free_serves_who_waits_for_a_new_one() -> None:
    rig = Rig(prompt=False, max_connections=2)
    rig.send("a")
    rig.answer(0)
    rig.send("b")
    rig.answer(0, 4)
    assert rig.servers[0].accepted == ["a"]
    rig.answer(0, 4)
    assert rig.was_sent("b")
    rig.answer(1)
    assert (rig.pool.open, rig.pool.unused) == (2, True)
    rig.end()


def test_who_sends_one_after_another_from_callbacks_keeps_his_connection() -> None:
    rig = Rig()
    left = list("bcdefgh")

    def next_one(_: Any) -> None:
        if left:
            rig.send(left.pop(0), then=next_one)

    rig.send("a", then=next_one)
    assert rig.accepted == list("abcdefgh")
    assert len(rig.links) == 1
    rig.end()


def test_what_is_sent_from_a_callback_does_not_wait_behind_a_long_message() -> None:
    """The connection that has answered is busy with the message behind; another one is free."""
    rig = Rig(prompt=False, max_connections=2)
    rig.send("a", then=lambda _: rig.send("d"))
    rig.send("b")
    rig.answer(0), rig.answer(1)
    rig.answer(0, 3), rig.answer(1, 3)
    rig.send("c")
    # c stands behind a; b's connection comes free.
    rig.answer(1)
    assert rig.was_sent("b")
    rig.answer(0)
    assert rig.was_sent("a")
    assert rig.pool.waiting == 0
    assert rig.links[1].client_transport.writes[-1].startswith(b"MAIL FROM:<d@")
    rig.answer_all()
    rig.end()


def test_a_message_that_cannot_be_said_holds_nobody_up() -> None:
    rig = Rig(max_connections=1, prompt=False)
    rig.send("a")
    rig.send("b", body=b"\r\n\xff\r\n")
    rig.send("c")
    rig.answer_all()
    assert isinstance(rig.error("b"), ExtensionMissing)
    assert rig.was_sent("a", "c")
    rig.end()


def test_what_is_no_message_opens_no_connection() -> None:
    rig = Rig()
    rig.hear("a", rig.pool.send_mail("a\r\n@a.test", "b@b.test", b"x"))
    rig.hear("b", rig.pool.send_mail("a@a.test", "b@b.test", 17))
    rig.hear("c", rig.pool.send_mail(None, None, b"x"))
    assert isinstance(rig.error("a"), LocalProtocolError)
    assert isinstance(rig.error("b"), TypeError)
    assert isinstance(rig.error("c"), TypeError)
    assert rig.links == []
    rig.end()


# -- with the real server ----------------------------------------------------------------


@pytest.mark.parametrize("lmtp", [False, True])
@pytest.mark.parametrize("settings", [{}, {"max_connections": 1}, {"max_messages": 3}])
@pytest.mark.parametrize("chunking", [True, False])
def test_many_messages_to_the_real_server(lmtp: bool, settings: dict[str, Any], chunking: bool) -> None:
    backend = RecordingBackend()
    clock = Clock()
    protocol = "lmtp" if lmtp else "smtp"
    factory = SMTPServerFactory(backend, ServerConfig(hostname="mx.test", protocol=protocol), reactor=clock)
    endpoint = MemoryEndpoint(factory)
    config = replace(CONFIG, chunking=chunking)
    pool = Pool(Destination.of(endpoint, protocol=protocol), config=config, reactor=clock, **settings)
    sent = [
        pool.send_mail(f"m{number}@a.test", ["b@b.test", "c@c.test"], BIG if number % 7 == 3 else b"text\r\n")
        for number in range(30)
    ]
    results = endpoint.run(gatherResults(sent))
    assert all(len(result.accepted) == 2 for result in results)
    assert sorted(str(message.sender) for message in backend.messages) == sorted(
        f"m{number}@a.test" for number in range(30)
    )
    said = [link.said_by_client.count(b"MAIL FROM:") for link in endpoint.links]
    assert sum(said) == 30
    if "max_messages" in settings:
        assert max(said) == 3
    else:
        assert len(said) == settings.get("max_connections", 10)
    endpoint.run(pool.close())
    assert all(link.client_transport.closed for link in endpoint.links)


# -- arguments ----------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("settings", "said"),
    [
        ({"max_connections": 0}, "max_connections: 0 is none"),
        ({"max_messages": -1}, "max_messages: -1 is below 0"),
        ({"max_age": -0.5}, "max_age: -0.5 is below 0"),
        ({"max_idle": -1}, "max_idle: -1 is below 0"),
        ({"tls": "perhaps"}, "tls is one of"),
    ],
)
def test_arguments_that_make_no_sense(settings: dict[str, Any], said: str) -> None:
    with pytest.raises(ValueError, match=said):
        Pool("mx.test", **settings)


def test_a_connector_has_its_settings() -> None:
    connector = connector_of("mx.test")
    assert Pool(connector).connector is connector
    with pytest.raises(ValueError, match="give no auth, tls"):
        Pool(connector, tls="none", auth=("a", "b"))
