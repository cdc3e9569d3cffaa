"""
A server inside of a Twisted application that exists: a factory on an endpoint, and an orderly end.

From the checkout; a port other than 2525 may follow::

    python examples/discard_server.py
"""

import sys
from typing import Any

from twisted.internet.defer import Deferred
from twisted.internet.endpoints import TCP4ServerEndpoint
from twisted.internet.task import react

from smtpfw import ServerConfig, SMTPServerFactory
from smtpfw.backends.discard import DiscardBackend


async def main(reactor: Any, port: str = "2525") -> None:
    factory = SMTPServerFactory(DiscardBackend(), ServerConfig(hostname="localhost"), reactor=reactor)
    listening = await TCP4ServerEndpoint(reactor, int(port), interface="127.0.0.1").listen(factory)

    async def stop() -> None:
        await listening.stopListening()
        # Idle clients hear 421, messages under way have ten seconds.
        await factory.stop(10.0)

    reactor.addSystemEventTrigger("before", "shutdown", lambda: Deferred.fromCoroutine(stop()))
    print(f"Listening on 127.0.0.1:{listening.getHost().port}", flush=True)
    # Until a signal stops the reactor.
    await Deferred()


if __name__ == "__main__":
    react(lambda *args: Deferred.fromCoroutine(main(*args)), sys.argv[1:])
