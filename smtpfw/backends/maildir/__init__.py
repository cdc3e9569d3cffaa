"""Messages into Maildir folders, durable when the client reads 250. See :mod:`smtpfw.backends.maildir.backend`."""

from smtpfw.backends.maildir.backend import MaildirBackend

__all__ = ["MaildirBackend"]
