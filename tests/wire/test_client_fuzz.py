"""
A peer that says anything, in any pieces: nobody waits for ever, nobody is told a lie, and nothing is said that was not
meant.
"""

from __future__ import annotations

from itertools import pairwise
from typing import Any

from hypothesis import event, example, given, settings
from hypothesis import strategies as st

from smtpfw.errors import UnknownOutcome
from smtpfw.wire.results import SendResult
from tests.wire.client_end import ClientEnd, Text, Told, hello_reply, shown, text
from tests.wire.client_model import PeerModel

#: What is due -> what a good peer says.
GOOD = {"GREETING": 220, "DATA": 354}


class Fuzzed:
    """
    A client, and the model of its peer.

    :ivar sent: message -> what was told of it.
    """

    def __init__(self, offers: list[str], lmtp: bool, chunk_bytes: int) -> None:
        self.offers = offers
        self.model = PeerModel(lmtp)
        self.end = ClientEnd(None, lmtp=lmtp, chunk_bytes=chunk_bytes)
        self.asked: list[Told] = []
        self.sent: dict[int, Told] = {}
        self.cancelled: set[int] = set()
        self.messages = 0

    # -- what may happen ----------------------------------------------------------

    def send(self, recipients: int, body: bytes, stream: bool) -> None:
        content = Text(None) if stream else text(body)
        number = self.messages
        self.messages += 1
        names = [f"r{index}@d.test" for index in range(recipients)]
        self.sent[number] = self._asked(self.end.send(*names, sender=f"m{number}@b.test", body=content))

    def steps(self, recipients: int, body: bytes) -> None:
        number = self.messages
        self.messages += 1
        self._asked(self.end.mail(f"m{number}@b.test"))
        for index in range(recipients):
            self._asked(self.end.rcpt(f"r{index}@d.test"))
        self.sent[number] = self._asked(self.end.data(body))

    def command(self, line: bytes) -> None:
        self._asked(self.end.command(line))

    def reset(self) -> None:
        self._asked(self.end.reset())

    def cancel(self, index: int) -> None:
        if self.asked:
            told = self.asked[index % len(self.asked)]
            # As a Deferred has it: what was told can't be cancelled.
            if told.silent and id(told) not in self.cancelled:
                self.cancelled.add(id(told))
                self.end.cancel(told)
                self._taken()

    def piece(self, octets: bytes) -> None:
        if self.end.bodies:
            self.end.write(self.end.bodies[-1], octets)
            self._taken()

    def finish(self) -> None:
        if self.end.bodies:
            self.end.write(self.end.bodies[-1], end=True)
            self._taken()

    def abandon(self) -> None:
        if self.end.bodies:
            self.end.bodies[-1].abandon(OSError("the source has failed"))
            self.end.flush()
            self._taken()

    def say(self, codes: list[int], places: list[int]) -> None:
        """Say some replies, in some pieces."""
        octets = b""
        ends = []
        for code in codes:
            octets += self._reply(code)
            ends.append(len(octets))
        edges = sorted({place % (len(octets) + 1) for place in places} | {0, len(octets)})
        for start, stop in pairwise(edges):
            if self.end.wire.is_over:
                return
            for code, end in zip(codes, ends, strict=True):
                if start < end <= stop and not self.model.reply(code):
                    # Whatever answers nothing ends the connection.
                    self._hear(octets[start:stop])
                    assert self.end.wire.is_over
                    return
            self._hear(octets[start:stop])

    def behave(self, bad: int, code: int, places: list[int]) -> None:
        """Answer all that is due as a good peer does, but for one."""
        due = list(self.model.due)
        codes = [GOOD.get(verb, 250) for verb, _, _ in due]
        if bad < len(codes):
            codes[bad] = code
        if codes:
            self.say(codes, places)

    def noise(self, octets: bytes) -> None:
        # Digits could make a reply that the model does not know of.
        if not self.end.wire.is_over:
            self._hear(octets.translate(None, b"0123456789") + b"\r\n")
            assert self.end.wire.is_over

    def lose(self) -> None:
        self.end.lose()

    # -- what holds -----------------------------------------------------------------

    def _reply(self, code: int) -> bytes:
        hello = bool(self.model.due) and self.model.due[0][0] in ("EHLO", "LHLO") and code == 250
        return hello_reply(*self.offers) if hello else b"%d-a\r\n%d b\r\n" % (code, code)

    def _asked(self, told: Told) -> Told:
        self.asked.append(told)
        self._taken()
        return told

    def _hear(self, octets: bytes) -> None:
        over = self.end.wire.is_over
        for write in self.end.hear(octets):
            assert not over, "said behind the end"
            self.model.take(write)

    def _taken(self) -> None:
        over = self.end.wire.is_over
        for write in self.end.said():
            assert not over, "said behind the end"
            self.model.take(write)

    def check(self) -> None:
        """The connection is over: everybody was told, and it was the truth."""
        end, model = self.end, self.model
        end.lose()
        assert len(end.ends) == 1
        assert end.said() == []
        assert end.wire.idle
        for told in self.asked:
            assert told.silent is (id(told) in self.cancelled)
        for number, told in self.sent.items():
            if told.silent:
                continue
            outcome = told.outcome
            result = outcome if isinstance(outcome, SendResult) else getattr(outcome, "result", None)
            results = result.recipients if result is not None else []
            said_yes = [one.recipient.address.local_part for one in results if one.accepted]
            assert said_yes == model.accepted.get(number, []), (number, outcome)
            assert bool(said_yes) is isinstance(outcome, SendResult)
            unknown = [one for one in results if isinstance(one.error, UnknownOutcome)]
            if unknown:
                assert number in model.complete
            unanswered = any(verb == "END" and message == number for verb, message, _ in model.due)
            if unanswered and number not in model.chunk_refused:
                assert unknown
        event(f"accepted: {bool(model.accepted)}")
        event(f"complete: {bool(model.complete)}")


CODES = st.sampled_from([250, 250, 354, 550, 451, 421, 220, 221, 252, 334, 503, 552, 500])
PLACES = st.lists(st.integers(0, 200), max_size=4)
BODY = st.lists(st.sampled_from([b"x", b"y", b".", b"\r\n", b"\n", b"\r", b"\r\n.\r\n"]), max_size=6).map(b"".join)
COMMANDS = st.sampled_from([b"NOOP", b"VRFY", b"QUIT"])

STEPS = st.one_of(
    st.tuples(st.just("send"), st.integers(1, 3), BODY, st.booleans()),
    st.tuples(st.just("send"), st.integers(1, 3), BODY, st.booleans()),
    st.tuples(st.just("steps"), st.integers(1, 2), BODY),
    st.tuples(st.just("command"), COMMANDS),
    st.tuples(st.just("reset")),
    st.tuples(st.just("cancel"), st.integers(0, 9)),
    st.tuples(st.just("piece"), BODY),
    st.tuples(st.just("finish")),
    st.tuples(st.just("abandon")),
    st.tuples(st.just("say"), st.lists(CODES, min_size=1, max_size=6), PLACES),
    *[st.tuples(st.just("behave"), st.integers(0, 12), CODES, PLACES)] * 4,
    st.tuples(st.just("noise"), st.binary(min_size=1, max_size=20)),
)
OFFERS = st.lists(st.sampled_from(["PIPELINING", "PIPELINING", "CHUNKING", "8BITMIME"]), unique=True)
BEHAVE = ("behave", 99, 250, [])


@settings(max_examples=500)
@given(OFFERS, st.booleans(), st.integers(1, 9), st.lists(STEPS, max_size=25))
@example(["PIPELINING"], False, 9, [("send", 2, b"x", False)] * 2 + [BEHAVE] * 6)
@example(["PIPELINING", "CHUNKING"], True, 2, [("send", 2, b"x\r\nx", False)] * 2 + [BEHAVE] * 6)
@example(
    ["PIPELINING"], False, 9, [("command", b"NOOP"), ("send", 1, b"x", False), BEHAVE, BEHAVE, ("say", [250] * 2, [])]
)
def test_anything(offers: list[str], lmtp: bool, chunk_bytes: int, steps: list[Any]) -> None:
    fuzzed = Fuzzed(offers, lmtp, chunk_bytes)
    for name, *arguments in steps:
        getattr(fuzzed, name)(*arguments)
    fuzzed.check()


@settings(max_examples=200)
@given(st.lists(st.binary(max_size=60), max_size=8), st.booleans())
def test_octets(pieces: list[bytes], lmtp: bool) -> None:
    fuzzed = Fuzzed([], lmtp, 9)
    fuzzed.send(2, b"x", False)
    for octets in pieces:
        fuzzed.end.hear(octets)
    fuzzed.end.lose()
    assert not isinstance(fuzzed.sent[0].outcome, SendResult)
    assert len(fuzzed.end.ends) == 1


ASKED = st.lists(
    st.one_of(
        st.tuples(st.just("send"), st.integers(1, 3), BODY, st.just(False)),
        st.tuples(st.just("steps"), st.integers(1, 2), BODY),
        st.tuples(st.just("command"), COMMANDS),
        st.tuples(st.just("reset")),
    ),
    min_size=1,
    max_size=5,
)


def honest(
    offers: list[str], lmtp: bool, asked: list[Any], refusals: list[int], places: list[int], single: bool
) -> tuple[list[list[str]], dict[int, bytes]]:
    """
    A peer that answers each thing once, and some with a refusal.

    :param places: where its words are cut.
    :param single: cut them everywhere.
    """
    fuzzed = Fuzzed(offers, lmtp, 4)
    for name, *arguments in asked:
        getattr(fuzzed, name)(*arguments)
    answered = 0
    while fuzzed.model.due and not fuzzed.end.wire.is_over:
        verb = fuzzed.model.due[0][0]
        code = GOOD.get(verb, 250)
        if refusals and verb not in ("GREETING", "EHLO", "LHLO") and refusals[answered % len(refusals)]:
            code = refusals[answered % len(refusals)]
        answered += 1
        # The answers to a group come together, or one by one.
        fuzzed.say([code], list(range(60)) if single else places)
    fuzzed.check()
    return [shown(told.outcome) for told in fuzzed.asked], fuzzed.model.messages


@settings(max_examples=150)
@given(OFFERS, st.booleans(), ASKED, st.lists(st.sampled_from([0, 0, 0, 451, 550, 421]), max_size=7), PLACES)
def test_fragments_change_nothing(
    offers: list[str], lmtp: bool, asked: list[Any], refusals: list[int], places: list[int]
) -> None:
    whole = honest(offers, lmtp, asked, refusals, [], False)
    assert honest(offers, lmtp, asked, refusals, places, False) == whole
    assert honest(offers, lmtp, asked, refusals, [], True) == whole
