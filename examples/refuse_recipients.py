"""
A look-up that takes its time: only users of this machine are taken as recipients; what they are sent is thrown away.

From the checkout::

    twistd -n smtpfw --python-path . --backend examples.refuse_recipients:LocalUsers
"""

import pwd

from twisted.internet.threads import deferToThread

from smtpfw import Address, Session
from smtpfw.errors import MailboxUnavailable
from smtpfw.wire.parameters import Options


class LocalUsers(Session):
    async def rcpt(self, recipient: Address, options: Options) -> None:
        name = "root" if recipient.is_postmaster else recipient.local_part.lower()
        try:
            # It may ask a directory server and block, so not in the reactor's thread. The client's next commands wait;
            # other clients don't.
            await deferToThread(pwd.getpwnam, name)
        except KeyError:
            raise MailboxUnavailable from None
