"""
A backend: takes mail for one domain and prints whom it is from and what it is about.

From the checkout::

    twistd -n smtpfw --python-path . --backend examples.inbox:Inbox
"""

from smtpfw import Session
from smtpfw.errors import RelayDenied


class Inbox(Session):
    def rcpt(self, recipient, options):
        # A bare <postmaster>, which every server has to take, comes without a domain.
        if recipient.domain.lower() not in ("example.org", ""):
            raise RelayDenied("We take mail for example.org only")

    async def data(self, body):
        message = await body.message()
        print(f"{self.connection.transaction.sender} writes about {message['Subject']!r}")
        return "Read and forgotten"
