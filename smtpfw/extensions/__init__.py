"""
ESMTP extensions, one module each, with the server's and the client's half in it.

An extension is one value, an :class:`~smtpfw.wire.dialect.Extension`. A
listener serves those that are in its list, a client uses those that are in its
own where the server offers them, and no other code knows them by name. To add
one of yours, write a module like these and put an instance into the list::

    SMTPServerFactory(backend, config, extensions=[*STANDARD, MyExtension()])
    SMTPClientFactory(config, extensions=[*CLIENT, MyExtension()])
"""

from smtpfw.extensions.auth import Auth
from smtpfw.extensions.binarymime import BinaryMIME
from smtpfw.extensions.chunking import Chunking
from smtpfw.extensions.deliverby import DeliverBy
from smtpfw.extensions.dsn import DSN
from smtpfw.extensions.eightbitmime import EightBitMIME
from smtpfw.extensions.enhanced_status_codes import EnhancedStatusCodes
from smtpfw.extensions.futurerelease import FutureRelease
from smtpfw.extensions.limits import Limits
from smtpfw.extensions.mt_priority import MTPriority
from smtpfw.extensions.pipelining import Pipelining
from smtpfw.extensions.requiretls import RequireTLS
from smtpfw.extensions.rrvs import RecipientValidSince
from smtpfw.extensions.size import Size
from smtpfw.extensions.smtputf8 import SMTPUTF8
from smtpfw.extensions.starttls import StartTLS
from smtpfw.extensions.xclient import XClient
from smtpfw.wire.dialect import Extension

__all__ = [
    "CLIENT",
    "DSN",
    "SMTPUTF8",
    "STANDARD",
    "Auth",
    "BinaryMIME",
    "Chunking",
    "DeliverBy",
    "EightBitMIME",
    "EnhancedStatusCodes",
    "FutureRelease",
    "Limits",
    "MTPriority",
    "Pipelining",
    "RecipientValidSince",
    "RequireTLS",
    "Size",
    "StartTLS",
    "XClient",
]

#: What every listener serves unless told otherwise. StartTLS is offered where there is a certificate; those that
#: promise something beyond the wire, from DSN to FUTURERELEASE, are offered where the backend honours them.
STANDARD: tuple[Extension, ...] = (
    Pipelining(),
    Size(),
    EightBitMIME(),
    EnhancedStatusCodes(),
    SMTPUTF8(),
    Chunking(),
    BinaryMIME(),
    DSN(),
    RequireTLS(),
    DeliverBy(),
    MTPriority(),
    RecipientValidSince(),
    FutureRelease(),
    Limits(),
    StartTLS(),
)

#: What every client uses unless told otherwise, where the server offers it.
CLIENT: tuple[Extension, ...] = (*STANDARD, Auth())
