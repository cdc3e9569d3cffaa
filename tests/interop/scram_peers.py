"""
Two implementations of SCRAM that are not ours, each on a TLS that is not the server's code either.

GNU SASL
    libgsasl on GnuTLS, both by ctypes, as the program ``gsasl`` has them. It binds by ``tls-exporter`` (RFC 9266). The
    program itself speaks no TLS from the first octet, and shows too little of what it says.
scramp
    in Python, on Python's ssl. It binds by ``tls-server-end-point`` (RFC 5929) and computes it by itself. It does not
    know ``tls-exporter``, nor has Python's ssl what that would take.

A line gives and takes whole lines; a mechanism turns challenges into responses, both in base64.
"""

from __future__ import annotations

import ctypes
import importlib.util
import socket
import ssl
from base64 import b64decode, b64encode
from collections.abc import Callable
from ctypes import byref, c_char_p, c_int, c_size_t, c_ubyte, c_uint, c_void_p
from dataclasses import dataclass
from functools import cache
from typing import Any, Protocol

TIMEOUT = 30.0


class Line(Protocol):
    """A connection to a server, under TLS."""

    #: The registered name of the channel binding that it has.
    binding: str

    def channel(self) -> Any: ...

    def write(self, octets: bytes) -> None: ...

    def read(self) -> bytes: ...

    def close(self) -> None: ...


class ClearLine:
    """A socket."""

    def __init__(self, port: int) -> None:
        self.socket = socket.create_connection(("127.0.0.1", port), TIMEOUT)

    def write(self, octets: bytes) -> None:
        self.socket.sendall(octets)

    def read(self) -> bytes:
        return self.socket.recv(65536)

    def close(self) -> None:
        self.socket.close()


class SSLLine(ClearLine):
    """Python's TLS on a socket."""

    binding = "tls-server-end-point"

    def __init__(self, clear: ClearLine) -> None:
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
        context.check_hostname = False
        context.verify_mode = ssl.CERT_NONE
        self.socket: socket.socket = context.wrap_socket(clear.socket)

    def channel(self) -> ssl.SSLSocket:
        """What scramp computes the data from."""
        assert isinstance(self.socket, ssl.SSLSocket)
        return self.socket


class _Datum(ctypes.Structure):
    _fields_ = (("data", c_void_p), ("size", c_uint))


@cache
def _gnutls() -> Any:
    library = ctypes.CDLL("libgnutls.so.30")
    library.gnutls_strerror.restype = c_char_p
    library.gnutls_record_recv.restype = library.gnutls_record_send.restype = ctypes.c_ssize_t
    library.gnutls_transport_set_int2.restype = None
    return library


def _gnutls_check(status: int) -> int:
    if status < 0:
        raise OSError(_gnutls().gnutls_strerror(status).decode())
    return status


class GnuTLSLine:
    """GnuTLS on a socket."""

    binding = "tls-exporter"

    #: Of gnutls.h.
    CLIENT = 1 << 1
    CREDENTIALS_OF_CERTIFICATES = 1
    BINDING_BY_EXPORTER = 2

    def __init__(self, clear: ClearLine) -> None:
        library = _gnutls()
        # GnuTLS does the waiting itself.
        clear.socket.settimeout(None)
        self._clear = clear
        self._session, self._credentials = c_void_p(), c_void_p()
        _gnutls_check(library.gnutls_init(byref(self._session), self.CLIENT))
        _gnutls_check(library.gnutls_certificate_allocate_credentials(byref(self._credentials)))
        _gnutls_check(library.gnutls_set_default_priority(self._session))
        kind = self.CREDENTIALS_OF_CERTIFICATES
        _gnutls_check(library.gnutls_credentials_set(self._session, kind, self._credentials))
        number = clear.socket.fileno()
        library.gnutls_transport_set_int2(self._session, number, number)
        library.gnutls_handshake_set_timeout(self._session, int(TIMEOUT * 1000))
        library.gnutls_record_set_timeout(self._session, int(TIMEOUT * 1000))
        _gnutls_check(library.gnutls_handshake(self._session))

    def channel(self) -> bytes:
        """The exported data."""
        datum, kind = _Datum(), self.BINDING_BY_EXPORTER
        _gnutls_check(_gnutls().gnutls_session_channel_binding(self._session, kind, byref(datum)))
        return ctypes.string_at(datum.data, datum.size)

    def write(self, octets: bytes) -> None:
        assert _gnutls_check(_gnutls().gnutls_record_send(self._session, octets, c_size_t(len(octets)))) == len(octets)

    def read(self) -> bytes:
        buffer = (c_ubyte * 65536)()
        again, interrupted = -28, -52
        while (count := _gnutls().gnutls_record_recv(self._session, buffer, c_size_t(65536))) in (again, interrupted):
            # TLS 1.3: what came was a ticket.
            pass
        return bytes(buffer[: _gnutls_check(count)])

    def close(self) -> None:
        _gnutls().gnutls_deinit(self._session)
        _gnutls().gnutls_certificate_free_credentials(self._credentials)
        self._clear.close()


#: The registered name of a binding, and its data, or what they are computed from.
Binding = tuple[str, bytes | ssl.SSLSocket]


class Mechanism(Protocol):
    """The client's side of one exchange."""

    def start(self) -> bytes: ...

    def next(self, challenge: bytes) -> bytes: ...


@cache
def _gsasl() -> Any:
    library = ctypes.CDLL("libgsasl.so.18")
    library.gsasl_strerror.restype = c_char_p
    return library


class GSASL:
    """libgsasl's. Where it is told the data and the mechanism does not bind, 2.2 gives up instead of saying ``y``."""

    #: Properties, of gsasl.h.
    AUTHID, PASSWORD, CB_TLS_EXPORTER = 1, 3, 25

    def __init__(self, mechanism: str, user: str, password: str, binding: Binding | None) -> None:
        library = _gsasl()
        context, self._session = c_void_p(), c_void_p()
        assert library.gsasl_init(byref(context)) == 0
        status = library.gsasl_client_start(context, mechanism.encode(), byref(self._session))
        assert status == 0, library.gsasl_strerror(status)
        self._set(self.AUTHID, user.encode())
        self._set(self.PASSWORD, password.encode())
        if binding is not None:
            name, data = binding
            assert name == "tls-exporter" and isinstance(data, bytes)
            self._set(self.CB_TLS_EXPORTER, b64encode(data))

    def _set(self, name: int, value: bytes) -> None:
        _gsasl().gsasl_property_set(self._session, c_int(name), c_char_p(value))

    def start(self) -> bytes:
        return self.next(b"")

    def next(self, challenge: bytes) -> bytes:
        library, response = _gsasl(), c_char_p()
        status = library.gsasl_step64(self._session, c_char_p(challenge), byref(response))
        if status not in (0, 1):
            raise ValueError(library.gsasl_strerror(status).decode())
        return response.value or b""


class Scramp:
    """scramp's."""

    def __init__(self, name: str, user: str, password: str, binding: Binding | None) -> None:
        from scramp import ScramClient

        self._client = ScramClient([name], user, password, channel_binding=binding)
        self._step: Callable[[str], bytes] = self._final

    def start(self) -> bytes:
        return b64encode(self._client.get_client_first().encode())

    def next(self, challenge: bytes) -> bytes:
        return self._step(b64decode(challenge).decode())

    def _final(self, message: str) -> bytes:
        self._client.set_server_first(message)
        self._step = self._end
        return b64encode(self._client.get_client_final().encode())

    def _end(self, message: str) -> bytes:
        # Raises if the server does not know the password.
        self._client.set_server_final(message)
        return b""


@dataclass(frozen=True, slots=True)
class Peer:
    """
    One of the two.

    :ivar secure: starts TLS.
    :ivar mechanism: begins an exchange.
    :ivar missing: why it can't be run here; empty if it can.
    """

    secure: Callable[[ClearLine], Any]
    mechanism: Callable[[str, str, str, Binding | None], Mechanism]
    missing: Callable[[], str]


def _gsasl_missing() -> str:
    try:
        _gsasl()
        _gnutls()
    except OSError as error:
        return f"libgsasl and GnuTLS are not installed: {error}"
    return ""


def _scramp_missing() -> str:
    return "" if importlib.util.find_spec("scramp") else "scramp is not installed"


PEERS = {
    "gsasl": Peer(GnuTLSLine, GSASL, _gsasl_missing),
    "scramp": Peer(SSLLine, Scramp, _scramp_missing),
}
