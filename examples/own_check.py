"""
A check of your own: whoever writes to an address that nobody has is not served for an hour.

From the checkout; a port other than 2525 may follow::

    python examples/own_check.py
"""

import sys
from typing import Any

from twisted.internet.defer import Deferred
from twisted.internet.endpoints import TCP4ServerEndpoint
from twisted.internet.interfaces import IReactorTime
from twisted.internet.task import react

from smtpfw import Address, Check, ServerConfig, Session, SessionBackend, SMTPError, SMTPServerFactory
from smtpfw.interfaces import IConnection
from smtpfw.wire.parameters import Options


class Trap(Check):
    def __init__(self, local_part: str, clock: IReactorTime, *, seconds: float = 3600, max_hosts: int = 10_000) -> None:
        self.local_part, self.clock, self.seconds, self.max_hosts = local_part, clock, seconds, max_hosts
        self.until: dict[str, float] = {}

    def connect(self, connection: IConnection) -> None:
        if self.until.get(connection.peer_host, 0) > self.clock.seconds():
            raise SMTPError(554, "5.7.1", "You have written to our trap")

    def rcpt(self, connection: IConnection, recipient: Address, options: Options) -> None:
        if recipient.local_part.lower() == self.local_part:
            self.until[connection.peer_host] = self.clock.seconds() + self.seconds
            if len(self.until) > self.max_hosts:
                del self.until[next(iter(self.until))]
            raise SMTPError(550, "5.1.1", "No such mailbox here")


async def main(reactor: Any, port: str = "2525") -> None:
    backend, config = SessionBackend(Session), ServerConfig(hostname="localhost")
    factory = SMTPServerFactory(backend, config, checks=[Trap("no-such-user", reactor)])
    listening = await TCP4ServerEndpoint(reactor, int(port), interface="127.0.0.1").listen(factory)
    print(f"Listening on 127.0.0.1:{listening.getHost().port}", flush=True)
    await Deferred()


if __name__ == "__main__":
    react(lambda *args: Deferred.fromCoroutine(main(*args)), sys.argv[1:])
