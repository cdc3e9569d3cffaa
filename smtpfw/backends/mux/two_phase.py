"""
One SMTP message to several targets: one answer, and no target keeps what another one refused.

Rule 1: everybody reads as the message arrives; at its end those whose delivery
can be taken back prepare it, and only when all have does the one whose delivery
cannot (there is one at most) see the end of the body.

Rule 2: if that one accepts, the others commit. Whatever fails before, everything
that is prepared is rolled back, and that one's body breaks off before its end, as if the client had gone.

Rule 3: the answer is a success if all have accepted, permanent if every failure
is, and 451 otherwise. A commit that fails is 451, too, though others may have
delivered: the client sends again, so somebody may get the message twice, and nobody loses it.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

from twisted.logger import Logger

from smtpfw.backends.mux.calls import Call, Gate
from smtpfw.backends.mux.target import Target
from smtpfw.backends.mux.tee import Leg, Tee, ended
from smtpfw.errors import SMTPError, TryAgainLater
from smtpfw.hooks import Acceptance, accepted
from smtpfw.interfaces import IBody, IPrepared
from smtpfw.memory import MemoryBudget
from smtpfw.wire.replies import Reply

__all__ = ["TwoPhaseDelivery"]


class TwoPhaseDelivery:
    """
    :param targets: those of one message, at least two; at most one is not revocable.
    :param id: of the transaction, for the log.
    :param memory: counts what the targets keep of the message.
    """

    _log = Logger()

    def __init__(self, targets: Iterable[Target], id: str, memory: MemoryBudget | None) -> None:
        self._id = id
        self._gate = Gate()
        self._revocable: list[Leg] = []
        self._last: Leg | None = None
        legs = []
        for target in targets:
            if target.revocable:
                leg = Leg(self._gate, _as_prepared, target.hook("prepare"), memory)
                self._revocable.append(leg)
            else:
                leg = self._last = Leg(self._gate, accepted, target.hook("data"), memory)
                self._last_target = target
            legs.append(leg)
        self._tee = Tee(self._gate, legs)

    async def run(self, body: IBody) -> Acceptance:
        """
        Deliver.

        :return: what the targets have said, in one text.
        :raises SMTPError: when one of them did not accept, and nobody keeps the message.
        """
        try:
            await self._tee.feed(body)
        except Exception:
            # Who has read on knows what ended the message; who had answered before hears of it by reset.
            await self._roll_back()
            raise
        await self._tee.end(self._revocable)
        if not self._errors() and self._last is not None:
            await self._tee.end([self._last])
        errors = self._errors()
        if errors:
            await self._take_back()
            raise _refusal(errors)
        return await self._commit()

    def _errors(self) -> list[Exception]:
        return [leg.error for leg in self._tee.legs if leg.error is not None]

    async def _take_back(self) -> None:
        last = self._last
        if last is not None and last.running:
            await self._tee.abort(last)
        if last is not None and last.error is None:
            # It has accepted before the end, which the contract allows; what is told to it is what would be if the
            # message itself were found wrong.
            self._last_target.reset("refused")
        await self._roll_back()

    async def _roll_back(self) -> None:
        await self._all("roll_back")

    async def _commit(self) -> Acceptance:
        commits = await self._all("commit")
        failed = [call for call in commits if call.error is not None]
        if failed:
            self._log.error(
                "mux: {id}: {failed} of {all} targets could not commit what they had prepared; the client was told to "
                "try again, so the others may get the message twice",
                id=self._id,
                failed=len(failed),
                all=len(self._tee.legs),
            )
            raise TryAgainLater
        answers = [call.value for call in commits]
        return _in_one([*answers, self._last.value if self._last is not None else None])

    async def _all(self, step: str) -> list[Call]:
        """Take a step with everything that is prepared, at the same time: targets on one disk share its flush."""
        calls = []
        for leg in self._revocable:
            if leg.value is not None:
                call = Call(self._gate, accepted)
                call.start(getattr(leg.value, step))
                calls.append(call)
        await self._gate.until(lambda: ended(calls), cancelled=lambda: None)
        return calls


def _as_prepared(answer: Any) -> IPrepared:
    if IPrepared.providedBy(answer):
        return answer
    accepted(answer)  # a reply that refuses
    raise TypeError(f"prepare() returns an IPrepared, not {answer!r}")


def _refusal(errors: list[Exception]) -> SMTPError:
    for error in errors:
        if not isinstance(error, SMTPError) or error.code == 421:
            # 421 would close the connection on behalf of one of several.
            return TryAgainLater()
        if error.temporary:
            return SMTPError(451, error.enhanced_code, error.message)
    first = errors[0]
    assert isinstance(first, SMTPError)
    return first


def _in_one(answers: list[Acceptance]) -> Acceptance:
    texts = dict.fromkeys(answer.text if isinstance(answer, Reply) else answer for answer in answers)
    return "; ".join(text for text in texts if text) or None
