"""
Mail by its recipients: a domain into Maildirs, one address to a class, and a message for both to both or to neither.

From the checkout::

    twistd -n smtpfw --python-path . --backend examples.mux_to_maildirs:by_recipient:messages
"""

from pathlib import Path

from smtpfw import Session, SessionBackend
from smtpfw.backends.maildir import MaildirBackend
from smtpfw.backends.mux import MuxBackend
from smtpfw.errors import TransactionFailed


class Orders(Session):
    """Cannot be taken back once it has answered, so it sees the end of the body when the Maildirs have theirs."""

    async def data(self, body):
        message = await body.message()
        if not message["Subject"]:
            raise TransactionFailed("An order needs a subject")
        print(f"An order: {message['Subject']}")


def by_recipient(folder):
    inbox = MaildirBackend(str(Path(folder) / "{user}"), create=True)
    return MuxBackend({"example.org": inbox, "orders@example.org": SessionBackend(Orders), "postmaster": inbox})
