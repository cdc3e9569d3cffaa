"""
A script that sends one message, read from standard input, and tells what became of it for each recipient.

From the checkout; the server, the sender and the recipients are arguments::

    python examples/send_a_message.py 127.0.0.1:2525 me@example.org you@example.org
"""

import sys
from typing import Any

from twisted.internet.task import react

from smtpfw import send_mail
from smtpfw.errors import ClientError, LocalProtocolError, TLSFailed, UnknownOutcome


async def main(reactor: Any, where: str, sender: str, *recipients: str) -> None:
    try:
        # Standard input is read while it is sent, at constant memory. A server that has a name of its own and asks for
        # a password gets auth=("user", "password"); then TLS with its certificate is required.
        result = await send_mail(where, sender, recipients, sys.stdin.buffer, reactor=reactor)
    except UnknownOutcome as error:
        sys.exit(f"Nobody knows whether it was delivered: {error}")
    except TLSFailed as error:
        sys.exit(f"The line is not safe: {error}")
    except (ClientError, LocalProtocolError) as error:
        sys.exit(f"Try again later: {error}" if getattr(error, "temporary", False) else str(error))
    for one in result.refused:
        print(f"{one.recipient}: {one.error}")
    print(f"Sent to {', '.join(str(one.recipient) for one in result.accepted)}: {result.text}")


if __name__ == "__main__":
    react(main, sys.argv[1:])
