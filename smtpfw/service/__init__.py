"""What twistd runs: see :mod:`smtpfw.service.making` for how it comes to be."""

from smtpfw.service.making import Options, makeService
from smtpfw.service.service import SMTPService

__all__ = ["Options", "SMTPService", "makeService"]
