"""
Delivers a message directly to the servers of the recipient's domain, the best first, as a mail server does.

From the checkout; the message comes from standard input. A port in the place of 25 may follow::

    python examples/send_to_mx.py me@example.org you@[127.0.0.1]
"""

import sys
from typing import Any

from twisted.internet.task import react

from smtpfw import Address, SMTPError, send_mail
from smtpfw.client import Destination, look_up_mx
from smtpfw.errors import ClientError, UnknownOutcome


async def deliver(reactor: Any, sender: str, recipient: str, message: bytes, port: int) -> str:
    domain = Address.parse(recipient).domain
    last: Exception = SMTPError(451)
    for hop in await look_up_mx(domain, clock=reactor):
        for address in hop.addresses:
            where = Destination.parse(address, default_port=port)
            try:
                # TLS is opportunistic: the name of the host came from DNS, which anybody may have written.
                result = await send_mail(where, sender, recipient, message, tls_name=hop.host, reactor=reactor)
            except UnknownOutcome:
                # The next server could deliver it a second time.
                raise
            except ClientError as error:
                last = error
                if not error.temporary:
                    raise
            else:
                return f"{hop.host}: {result.text}"
    raise last


async def main(reactor: Any, sender: str, recipient: str, port: str = "25") -> None:
    try:
        print(await deliver(reactor, sender, recipient, sys.stdin.buffer.read(), int(port)))
    except (ClientError, SMTPError) as error:
        sys.exit(str(error))


if __name__ == "__main__":
    react(main, sys.argv[1:])
