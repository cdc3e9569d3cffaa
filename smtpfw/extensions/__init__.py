"""
ESMTP extensions, one module each, with both roles in it.

An extension is one value, an :class:`~smtpfw.wire.dialect.Extension`. A
listener serves those that are in its list, and no other code knows them by
name. To add one of your own, write a module like these and put an instance
into the list::

    SMTPServerFactory(backend, config, extensions=[*STANDARD, MyExtension()])
"""

from smtpfw.extensions.binarymime import BinaryMIME
from smtpfw.extensions.chunking import Chunking
from smtpfw.extensions.eightbitmime import EightBitMIME
from smtpfw.extensions.enhanced_status_codes import EnhancedStatusCodes
from smtpfw.extensions.pipelining import Pipelining
from smtpfw.extensions.size import Size
from smtpfw.extensions.smtputf8 import SMTPUTF8
from smtpfw.extensions.starttls import StartTLS

__all__ = [
    "SMTPUTF8",
    "STANDARD",
    "BinaryMIME",
    "Chunking",
    "EightBitMIME",
    "EnhancedStatusCodes",
    "Pipelining",
    "Size",
    "StartTLS",
]

#: What every listener serves unless told otherwise. StartTLS joins them where there is a certificate.
STANDARD = (
    Pipelining(),
    Size(),
    EightBitMIME(),
    EnhancedStatusCodes(),
    SMTPUTF8(),
    Chunking(),
    BinaryMIME(),
)
