"""
An extension of your own: MAIL takes ``XTICKET=4711``. From the checkout; a port other than 2525 may follow::

    python examples/own_extension.py
"""

import sys
from typing import Any

from twisted.internet.defer import Deferred
from twisted.internet.endpoints import TCP4ServerEndpoint
from twisted.internet.task import react

from smtpfw import Address, ServerConfig, Session, SessionBackend, SMTPServerFactory
from smtpfw.extensions import STANDARD
from smtpfw.wire.dialect import Extension
from smtpfw.wire.parameters import Options, Parameter


def parse_ticket(text: str | None) -> int:
    if text and text.isascii() and text.isdigit():
        return int(text)
    raise ValueError("must be a number")


TICKET = Parameter("XTICKET", parse=parse_ticket, format=str, default=0)


class Ticket(Extension):
    keyword = "XTICKET"
    mail_parameters = (TICKET,)
    extra_line_octets = 29  # " XTICKET=" and 20 digits


class Desk(Session):
    def mail(self, sender: Address, options: Options) -> str:
        return f"about ticket {options[TICKET]}"


async def main(reactor: Any, port: str = "2525") -> None:
    config = ServerConfig(hostname="localhost")
    factory = SMTPServerFactory(SessionBackend(Desk), config, extensions=[*STANDARD, Ticket()])
    listening = await TCP4ServerEndpoint(reactor, int(port), interface="127.0.0.1").listen(factory)
    print(f"Listening on 127.0.0.1:{listening.getHost().port}", flush=True)
    await Deferred()


if __name__ == "__main__":
    react(lambda *args: Deferred.fromCoroutine(main(*args)), sys.argv[1:])
