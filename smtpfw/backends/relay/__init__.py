"""Mail that is passed on while it arrives, by LMTP and by SMTP. See :mod:`smtpfw.backends.relay.backend`."""

from smtpfw.backends.relay.backend import LMTPBackend, RelayBackend

__all__ = ["LMTPBackend", "RelayBackend"]
