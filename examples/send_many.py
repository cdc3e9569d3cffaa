"""
A letter to each address of a list, over a few connections that are kept.

From the checkout; the server is an argument, the addresses come from standard input, one a line::

    python examples/send_many.py 127.0.0.1:2525
"""

import sys
from email.message import EmailMessage
from typing import Any

from twisted.internet.defer import Deferred, gatherResults
from twisted.internet.task import react

from smtpfw import Pool, SMTPError
from smtpfw.errors import ClientError, LocalProtocolError


def letter(recipient: str) -> EmailMessage:
    message = EmailMessage()
    message["From"] = "News <news@example.org>"
    message["To"] = recipient
    message["Subject"] = "What is new"
    message.set_content("Nothing.\n")
    return message


async def main(reactor: Any, where: str) -> None:
    pool = Pool(where, max_connections=3, reactor=reactor)
    addresses = filter(None, map(str.strip, sys.stdin))

    async def work() -> None:
        for address in addresses:
            try:
                await pool.send_mail("news@example.org", address, letter(address))
            except (ClientError, SMTPError, LocalProtocolError) as error:
                print(f"{address}: {error}")

    # All of them take from the same list, so one of any length needs no more memory than ten letters.
    await gatherResults([Deferred.fromCoroutine(work()) for _ in range(10)])
    await pool.close()


if __name__ == "__main__":
    react(main, sys.argv[1:])
