"""Our client sends to OpenSMTPD, which has none of PIPELINING, CHUNKING and SMTPUTF8."""

from __future__ import annotations

from contextlib import AbstractContextManager

from twisted.trial import unittest

from tests.interop.client_matrix import WithLimit
from tests.interop.secured_matrix import WithAuth
from tests.interop.servers.common import Peer
from tests.interop.servers.opensmtpd_server import opensmtpd_server


class ToOpenSMTPD(WithLimit, WithAuth, unittest.TestCase):
    """It has AUTH only within TLS."""

    @classmethod
    def open_peer(cls) -> AbstractContextManager[Peer]:
        return opensmtpd_server()
