"""
ESMTP extensions, one module each; the client's role will have its place beside the server's.

An extension is one value, an :class:`~smtpfw.wire.dialect.Extension`. A
listener serves those that are in its list, and no other code knows them by
name. To add one of your own, write a module like these and put an instance
into the list::

    SMTPServerFactory(backend, config, extensions=[*STANDARD, MyExtension()])
"""

from smtpfw.extensions.auth import Auth
from smtpfw.extensions.binarymime import BinaryMIME
from smtpfw.extensions.chunking import Chunking
from smtpfw.extensions.dsn import DSN
from smtpfw.extensions.eightbitmime import EightBitMIME
from smtpfw.extensions.enhanced_status_codes import EnhancedStatusCodes
from smtpfw.extensions.limits import Limits
from smtpfw.extensions.pipelining import Pipelining
from smtpfw.extensions.requiretls import RequireTLS
from smtpfw.extensions.size import Size
from smtpfw.extensions.smtputf8 import SMTPUTF8
from smtpfw.extensions.starttls import StartTLS

__all__ = [
    "DSN",
    "SMTPUTF8",
    "STANDARD",
    "Auth",
    "BinaryMIME",
    "Chunking",
    "EightBitMIME",
    "EnhancedStatusCodes",
    "Limits",
    "Pipelining",
    "RequireTLS",
    "Size",
    "StartTLS",
]

#: What every listener serves unless told otherwise. StartTLS is offered where there is a certificate; those that
#: promise something beyond the wire, DSN and REQUIRETLS, are offered where the backend honours them.
STANDARD = (
    Pipelining(),
    Size(),
    EightBitMIME(),
    EnhancedStatusCodes(),
    SMTPUTF8(),
    Chunking(),
    BinaryMIME(),
    DSN(),
    RequireTLS(),
    Limits(),
    StartTLS(),
)
