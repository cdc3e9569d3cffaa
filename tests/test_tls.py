"""Server contexts: what they offer in a handshake, and the one line for each file that can't be used."""

import contextlib
import ssl
from pathlib import Path

import pytest
from OpenSSL import SSL
from twisted.internet.ssl import CertificateOptions
from twisted.logger import LogLevel, capturedLogs

from smtpfw.errors import ConfigError
from smtpfw.tls import describe_tls, server_context
from tests.certificates import certificate_pem, key_pem, make_key, write_pair


class Transport:
    """As much of a TLS transport as says what was agreed on."""

    def __init__(self, handle: object) -> None:
        self._handle = handle

    def getHandle(self) -> object:
        return self._handle


def handshake(
    context: CertificateOptions, client: ssl.SSLContext, session: ssl.SSLSession | None = None
) -> tuple[SSL.Connection, ssl.SSLObject]:
    """Shake hands in memory, then say one octet, so that the client gets its tickets."""
    server = SSL.Connection(context.getContext(), None)
    server.set_accept_state()
    to_client, to_server = ssl.MemoryBIO(), ssl.MemoryBIO()
    peer = client.wrap_bio(to_client, to_server, server_hostname="localhost", session=session)
    for step in (peer.do_handshake, server.do_handshake, peer.do_handshake, server.do_handshake):
        with contextlib.suppress(ssl.SSLWantReadError, SSL.WantReadError):
            step()
        _carry(server, to_client, to_server)
    server.send(b"x")
    _carry(server, to_client, to_server)
    assert peer.read(1) == b"x"
    return server, peer


def _carry(server: SSL.Connection, to_client: ssl.MemoryBIO, to_server: ssl.MemoryBIO) -> None:
    if to_server.pending:
        server.bio_write(to_server.read())
    with contextlib.suppress(SSL.WantReadError):
        to_client.write(server.bio_read(65536))


def client_context(version: ssl.TLSVersion) -> ssl.SSLContext:
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.check_hostname = False
    context.verify_mode = ssl.CERT_NONE
    context.minimum_version = context.maximum_version = version
    return context


VERSIONS = [(ssl.TLSVersion.TLSv1_2, "TLSv1.2"), (ssl.TLSVersion.TLSv1_3, "TLSv1.3")]


@pytest.mark.parametrize(("version", "name"), VERSIONS)
def test_what_was_agreed_on_is_told(tmp_path: Path, version: ssl.TLSVersion, name: str) -> None:
    server, peer = handshake(server_context(str(write_pair(tmp_path))), client_context(version))
    cipher = peer.cipher()
    assert cipher is not None
    assert describe_tls(Transport(server)) == f"{name} {cipher[0]}"


@pytest.mark.parametrize(("version", "name"), VERSIONS)
def test_a_session_is_resumed(tmp_path: Path, version: ssl.TLSVersion, name: str) -> None:
    context = server_context(str(write_pair(tmp_path)))
    client = client_context(version)
    _, first = handshake(context, client)
    _, second = handshake(context, client, first.session)
    assert (first.session_reused, second.session_reused) == (False, True)


def test_tls_before_1_2_is_refused(tmp_path: Path) -> None:
    client = client_context(ssl.TLSVersion.TLSv1_2)
    with pytest.warns(DeprecationWarning, match="TLSv1_1"):
        client.minimum_version = client.maximum_version = ssl.TLSVersion.TLSv1_1
    client.set_ciphers("ALL:@SECLEVEL=0")
    with pytest.raises((ssl.SSLError, SSL.Error)):
        handshake(server_context(str(write_pair(tmp_path))), client)


@pytest.mark.parametrize("transport", [object(), Transport(None), Transport(object())])
def test_other_transports_have_nothing_to_tell(transport: object) -> None:
    assert describe_tls(transport) == ""


def test_before_the_handshake_there_is_nothing_to_tell(tmp_path: Path) -> None:
    connection = SSL.Connection(server_context(str(write_pair(tmp_path))).getContext(), None)
    assert describe_tls(Transport(connection)) == ""


def test_a_chain_with_the_key_in_a_second_file(tmp_path: Path) -> None:
    key, other = make_key(), make_key()
    (tmp_path / "chain.pem").write_bytes(certificate_pem(key) + certificate_pem(other))
    (tmp_path / "key.pem").write_bytes(key_pem(key))
    context = server_context(str(tmp_path / "chain.pem"), str(tmp_path / "key.pem"))
    assert len(context.extraCertChain) == 1


def test_an_expired_certificate_is_only_logged(tmp_path: Path) -> None:
    key = make_key()
    path = tmp_path / "old.pem"
    path.write_bytes(certificate_pem(key, days=-1) + key_pem(key))
    with capturedLogs() as events:
        server_context(str(path))
    (event,) = [event for event in events if event["log_level"] is LogLevel.warn]
    assert event["path"] == str(path)


def complaint(certificate: Path, key: Path | None = None) -> str:
    with pytest.raises(ConfigError) as caught:
        server_context(str(certificate), str(key) if key else None)
    line = str(caught.value)
    assert "\n" not in line
    return line


def test_an_absent_file(tmp_path: Path) -> None:
    path = tmp_path / "absent.pem"
    assert complaint(path) == f"{path}: no such file or directory"


def test_a_folder(tmp_path: Path) -> None:
    assert complaint(tmp_path) == f"{tmp_path}: is a directory"


def test_a_file_that_may_not_be_read(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(_: Path) -> bytes:
        raise PermissionError(13, "Permission denied")

    monkeypatch.setattr(Path, "read_bytes", refuse)
    assert complaint(tmp_path / "x.pem") == f"{tmp_path / 'x.pem'}: permission denied"


def test_a_file_without_a_certificate(tmp_path: Path) -> None:
    path = tmp_path / "key.pem"
    path.write_bytes(key_pem(make_key()))
    assert complaint(path).startswith(f"{path}: no PEM certificate in this file")


def test_a_file_without_a_key(tmp_path: Path) -> None:
    path = tmp_path / "cert.pem"
    path.write_bytes(certificate_pem(make_key()))
    assert complaint(path).startswith(f"{path}: no PEM private key in this file")


def test_a_broken_certificate(tmp_path: Path) -> None:
    path = tmp_path / "broken.pem"
    path.write_bytes(b"-----BEGIN CERTIFICATE-----\nMIIB\n-----END CERTIFICATE-----\n")
    assert complaint(path).startswith(f"{path}: a certificate in this file can't be read (")


def test_a_broken_key(tmp_path: Path) -> None:
    path = tmp_path / "broken.pem"
    broken = b"-----BEGIN PRIVATE KEY-----\nMIIB\n-----END PRIVATE KEY-----\n"
    path.write_bytes(certificate_pem(make_key()) + broken)
    assert complaint(path).startswith(f"{path}: the private key can't be read (")


def test_a_key_of_another_certificate(tmp_path: Path) -> None:
    certificate, key = tmp_path / "cert.pem", tmp_path / "key.pem"
    certificate.write_bytes(certificate_pem(make_key()))
    key.write_bytes(key_pem(make_key()))
    line = complaint(certificate, key)
    assert line.startswith(f"{certificate}: the key in {key} does not belong to the first certificate")


def test_a_key_behind_a_pass_phrase_does_not_ask_for_it(tmp_path: Path) -> None:
    key = make_key()
    path = tmp_path / "both.pem"
    path.write_bytes(certificate_pem(key) + key_pem(key, b"secret"))
    assert complaint(path).startswith(f"{path}: the private key is protected by a pass phrase")
