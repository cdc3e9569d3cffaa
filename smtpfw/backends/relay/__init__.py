"""Mail that is passed on while it arrives: by LMTP (:mod:`.lmtp`) and by SMTP (:mod:`.smtp`)."""

from smtpfw.backends.relay.lmtp import LMTPBackend
from smtpfw.backends.relay.smtp import RelayBackend

__all__ = ["LMTPBackend", "RelayBackend"]
