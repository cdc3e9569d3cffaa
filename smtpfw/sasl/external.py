"""
EXTERNAL (RFC 4422 appendix A): the client's certificate has said already who it is.

The one message is the authorization identity, or empty. Whom a certificate
stands for, the checker says: :mod:`smtpfw.sasl.certificates` has the usual one.
"""

from __future__ import annotations

from zope.interface import implementer

from smtpfw.errors import AuthFailed, AuthMalformed
from smtpfw.sasl.exchange import Mechanism, ServerExchange, Step, ask_checker, prepare
from smtpfw.sasl.guard import credential, expect_end
from smtpfw.sasl.interfaces import ICertificateChecker, ISASLClient
from smtpfw.sasl.values import SASLContext, ServerInfo

__all__ = ["EXTERNAL", "External", "ExternalServer"]


def _has_certificate(context: SASLContext) -> bool:
    return context.tls and context.peer_certificate is not None


class ExternalServer(ServerExchange):
    __slots__ = ()

    async def message(self, response: bytes) -> Step:
        if b"\0" in response:
            raise AuthMalformed
        authorization_identity = prepare(response) if response else ""
        if not _has_certificate(self.context):
            raise AuthFailed
        return self.accept(
            await ask_checker(
                self.checker.check_certificate, self.context.peer_certificate, authorization_identity, kind=str
            )
        )


EXTERNAL = Mechanism("EXTERNAL", ExternalServer, needs=(ICertificateChecker,), condition=_has_certificate)


@implementer(ISASLClient)
class External:
    """
    Log in with the certificate that TLS was started with.

    :param authorization_identity: whom to act as; empty for whomever the certificate stands for.
    :raises ValueError: if it holds NUL.
    """

    __slots__ = ("_message",)

    def __init__(self, authorization_identity: str = "") -> None:
        self._message = credential(authorization_identity, "authorization identity", empty=True)

    def start(self, server_info: ServerInfo) -> tuple[str, bytes | None]:
        return "EXTERNAL", self._message

    def next(self, challenge: bytes, more: bool) -> bytes | None:
        expect_end(more)
        return None
