"""
Postfix delivers to ``twistd smtpfw --protocol lmtp`` over a Unix socket: its log has for each recipient what we said.

What was accepted is in the mailboxes, once for each recipient, octet for octet.
"""

from __future__ import annotations

import random
import tempfile
from base64 import b64encode
from collections.abc import Iterator
from email import message_from_bytes
from pathlib import Path

import pytest

from tests.interop.mailboxes import ANSWERS, UNKNOWN, first_word
from tests.interop.message import make_message
from tests.interop.postfix import Delivery, Postfix, unpacked_postfix
from tests.interop.servers.packages import PeerMissing
from tests.running import Twistd

MESSAGE = make_message()

ALIASES = {
    "one@alias.example": "double@example.org",
    "other@alias.example": "double@example.org",
    "left@alias.example": "both@example.org",
    "right@alias.example": "both@example.org",
}

#: What Postfix makes of a reply, by its first digit.
STATUS = {2: "sent", 4: "deferred", 5: "bounced"}


@pytest.fixture(scope="module")
def folder() -> Iterator[Path]:
    """Postfix's users must come in, too: pytest's own folders are root's alone."""
    with tempfile.TemporaryDirectory(prefix="lmtp-") as name:
        Path(name).chmod(0o755)
        (Path(name) / "mail").mkdir()
        yield Path(name)


@pytest.fixture(scope="module")
def postfix(folder: Path) -> Iterator[Postfix]:
    listen = ("--listen", "tcp:0:interface=127.0.0.1", "--listen", f"unix:{folder}/lmtp.sock:mode=666")
    options = ("--protocol", "lmtp", "--hostname", "localhost", "--backend")
    backend = f"tests.interop.mailboxes:Mailboxes:{folder}/mail"
    try:
        with (
            unpacked_postfix() as root,
            Twistd(*listen, *options, backend, folder=folder),
            Postfix(root, folder / "lmtp.sock", ALIASES) as running,
        ):
            yield running
    except PeerMissing as error:
        pytest.skip(str(error))


def taken(folder: Path, *names: str) -> dict[str, list[bytes]]:
    """What is in the mailboxes of these names."""
    found: dict[str, list[bytes]] = {name: [] for name in names}
    for path in (folder / "mail").iterdir():
        name = path.name.partition(".")[0]
        if name in found:
            found[name].append(path.read_bytes())
    return found


def check_octets(stored: bytes, message: bytes) -> None:
    """In front of the message is the line that Postfix writes for what its own sendmail has handed in."""
    front = stored[: -len(message)]
    assert stored[len(front) :] == message
    assert front.startswith(b"Received: by postfix.example.net")
    assert front.count(b"\n") == front.count(b"\r\n") == front.count(b"\r\n\t") + 1


def check(delivery: Delivery) -> None:
    """What Postfix logged is what we said to this recipient."""
    name = delivery.recipient.partition("@")[0]
    word = first_word(name)
    code, enhanced_code, text = 250, "2.0.0", "{} has it"
    where = ""
    if word in ANSWERS:
        code, enhanced_code, text = ANSWERS[word]
        where = "(in reply to end of DATA command)"
    elif word == UNKNOWN:
        code, enhanced_code, text = 550, "5.1.1", "{} is not here"
        where = "(in reply to RCPT TO command)"
    assert (delivery.status, delivery.dsn) == (STATUS[code // 100], enhanced_code), delivery
    assert f"{code} {enhanced_code} {text.format(name)}" in delivery.text
    assert delivery.text.endswith(where)


def test_each_recipient_has_its_own_answer(postfix: Postfix, folder: Path) -> None:
    names = ["reader", "gone-1", "later-1", "unknown-1", "second", "full-1", "refused-1", "unknown-2", "third"]
    addresses = [f"{name}@example.org" for name in names]
    id = postfix.submit("first@example.net", [*addresses, "one@alias.example", "other@alias.example"], MESSAGE)
    deliveries = postfix.deliveries(id, len(names) + 2)
    for delivery in deliveries:
        check(delivery)
    found = sorted((delivery.recipient, delivery.original) for delivery in deliveries)
    assert found == sorted(
        [
            *((address, "") for address in addresses),
            ("double@example.org", "one@alias.example"),
            ("double@example.org", "other@alias.example"),
        ]
    )
    expected = dict.fromkeys(names, 0) | {"reader": 1, "second": 1, "third": 1, "double": 2}
    mailboxes = taken(folder, *expected)
    assert {name: len(messages) for name, messages in mailboxes.items()} == expected
    for messages in mailboxes.values():
        for octets in messages:
            check_octets(octets, MESSAGE)


def test_the_same_recipient_twice_in_one_transaction(postfix: Postfix, folder: Path) -> None:
    """Two aliases of one mailbox: Postfix gives it twice, and waits for two replies."""
    id = postfix.submit("twice@example.net", ["left@alias.example", "right@alias.example"], MESSAGE)
    deliveries = postfix.deliveries(id, 2)
    assert {delivery.original for delivery in deliveries} == {"left@alias.example", "right@alias.example"}
    for delivery in deliveries:
        check(delivery)
    transactions = [path.name.rpartition("-")[0] for path in (folder / "mail").glob("both.*")]
    assert len(transactions) == 2
    assert len(set(transactions)) == 1


def test_the_sender_is_told_of_those_refused_for_good(postfix: Postfix, folder: Path) -> None:
    recipients = [f"{name}@example.org" for name in ("gone-x", "unknown-x", "later-x", "told")]
    id = postfix.submit("teller@example.net", recipients, b"Subject: x\n\ntext\n")
    (delivery,) = postfix.deliveries(postfix.bounce_of(id), 1)
    assert (delivery.recipient, delivery.status) == ("teller@example.net", "sent")
    (bounce,) = taken(folder, "teller")["teller"]
    report = message_from_bytes(bounce)
    (status,) = (part for part in report.walk() if part.get_content_type() == "message/delivery-status")
    told = [part for part in status.walk() if part["Final-Recipient"]]
    assert sorted((part["Final-Recipient"], part["Status"], part["Diagnostic-Code"]) for part in told) == [
        ("rfc822; gone-x@example.org", "5.2.1", "smtp; 550 5.2.1 gone-x is disabled"),
        ("rfc822; unknown-x@example.org", "5.1.1", "smtp; 550 5.1.1 unknown-x is not here"),
    ]


def test_fifty_recipients_with_answers_mixed(postfix: Postfix, folder: Path) -> None:
    chance = random.Random(50)
    words = ["mixed", "mixed", *ANSWERS, UNKNOWN]
    names = [f"{chance.choice(words)}-mixed{number}" for number in range(50)]
    id = postfix.submit("mixer@example.net", [f"{name}@example.org" for name in names], MESSAGE)
    deliveries = postfix.deliveries(id, len(names))
    for delivery in deliveries:
        check(delivery)
    assert sorted(delivery.recipient for delivery in deliveries) == sorted(f"{name}@example.org" for name in names)
    mailboxes = taken(folder, *names)
    assert {name: len(messages) for name, messages in mailboxes.items()} == {
        name: int(name.startswith("mixed-")) for name in names
    }


def test_a_message_of_some_megabytes(postfix: Postfix, folder: Path) -> None:
    chance = random.Random(8)
    lines = [b"." * chance.randrange(3) + b64encode(chance.randbytes(chance.randrange(720))) for _ in range(16_000)]
    header = [b"From: big@example.net", b"Date: Sat, 21 Nov 2026 10:00:00 +0000", b"Message-ID: <8@example.net>", b""]
    octets = b"\r\n".join([*header, *lines, b""])
    assert len(octets) > 7_000_000
    id = postfix.submit("big@example.net", ["large@example.org", "later-large@example.org"], octets)
    for delivery in postfix.deliveries(id, 2):
        check(delivery)
    (large,) = taken(folder, "large")["large"]
    check_octets(large, octets)


def test_many_messages_at_once(postfix: Postfix, folder: Path) -> None:
    """Their deliveries overlap."""
    recipients = [f"{word}-crowd{number}@example.org" for number in range(4) for word in ("crowd", "gone", "later")]
    ids = [postfix.submit(f"crowd{number}@example.net", recipients, MESSAGE) for number in range(20)]
    for id in ids:
        deliveries = postfix.deliveries(id, len(recipients))
        assert sorted(delivery.recipient for delivery in deliveries) == sorted(recipients)
        for delivery in deliveries:
            check(delivery)
    names = [f"crowd-crowd{number}" for number in range(4)]
    assert [len(messages) for messages in taken(folder, *names).values()] == [len(ids)] * len(names)
