"""
Server contexts: what they offer in a handshake, whose certificates they take, and the one line for each file that
can't be used.
"""

from __future__ import annotations

import contextlib
import ssl
from pathlib import Path

import pytest
from cryptography.x509.oid import ExtendedKeyUsageOID, NameOID
from OpenSSL import SSL
from twisted.internet.ssl import CertificateOptions
from twisted.logger import LogLevel, capturedLogs

from smtpfw.errors import ConfigError
from smtpfw.tls import server_context, tls_state
from tests.certificates import Authority, certificate_pem, key_pem, make_key, write_pair
from tests.tls.handshakes import VERSIONS, Transport, any_client, handshake


@pytest.mark.parametrize(("version", "name"), VERSIONS)
def test_a_session_is_resumed(tmp_path: Path, version: ssl.TLSVersion, name: str) -> None:
    context = server_context(str(write_pair(tmp_path)))
    client = any_client(version)
    _, first = handshake(context, client)
    _, second = handshake(context, client, first.session)
    assert (first.session_reused, second.session_reused) == (False, True)


def test_tls_before_1_2_is_refused(tmp_path: Path) -> None:
    client = any_client(ssl.TLSVersion.TLSv1_2)
    with pytest.warns(DeprecationWarning, match="TLSv1_1"):
        client.minimum_version = client.maximum_version = ssl.TLSVersion.TLSv1_1
    client.set_ciphers("ALL:@SECLEVEL=0")
    with pytest.raises((ssl.SSLError, SSL.Error)):
        handshake(server_context(str(write_pair(tmp_path))), client)


def test_tls_1_3_may_be_the_minimum(tmp_path: Path) -> None:
    context = server_context(str(write_pair(tmp_path)), minimum_version="1.3")
    handshake(context, any_client(ssl.TLSVersion.TLSv1_3))
    with pytest.raises((ssl.SSLError, SSL.Error)):
        handshake(context, any_client(ssl.TLSVersion.TLSv1_2))


def test_another_minimum_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"^1\.1: the minimum version of TLS is 1\.2 or 1\.3$"):
        server_context(str(write_pair(tmp_path)), minimum_version="1.1")


class TestClientCertificates:
    @pytest.fixture
    def authority(self) -> Authority:
        return Authority()

    @pytest.fixture
    def context(self, tmp_path: Path, authority: Authority) -> CertificateOptions:
        return self.make(tmp_path, authority)

    def make(self, folder: Path, authority: Authority, *, required: bool = False) -> CertificateOptions:
        (folder / "ca.pem").write_bytes(authority.pem)
        return server_context(
            str(write_pair(folder)), client_ca=str(folder / "ca.pem"), require_client_certificate=required
        )

    def client(self, folder: Path, version: ssl.TLSVersion, pem: bytes | None = None) -> ssl.SSLContext:
        context = any_client(version)
        if pem is not None:
            (folder / "client.pem").write_bytes(pem)
            context.load_cert_chain(folder / "client.pem")
        return context

    def common_name(self, server: SSL.Connection) -> str:
        state = tls_state(Transport(server))
        assert state is not None
        assert state.peer_certificate is not None
        (attribute,) = state.peer_certificate.subject.get_attributes_for_oid(NameOID.COMMON_NAME)
        return str(attribute.value)

    @pytest.mark.parametrize(("version", "name"), VERSIONS)
    def test_it_is_known(
        self, tmp_path: Path, authority: Authority, context: CertificateOptions, version: ssl.TLSVersion, name: str
    ) -> None:
        server, _ = handshake(context, self.client(tmp_path, version, authority.named("tim")))
        assert self.common_name(server) == "tim"

    @pytest.mark.parametrize(("version", "name"), VERSIONS)
    def test_it_is_known_after_a_resumption(
        self, tmp_path: Path, authority: Authority, context: CertificateOptions, version: ssl.TLSVersion, name: str
    ) -> None:
        client = self.client(tmp_path, version, authority.named("tim"))
        _, first = handshake(context, client)
        server, second = handshake(context, client, first.session)
        assert second.session_reused
        assert self.common_name(server) == "tim"

    @pytest.mark.parametrize(("version", "name"), VERSIONS)
    def test_a_ticket_of_a_context_that_asks_nobody_is_not_taken(
        self, tmp_path: Path, context: CertificateOptions, version: ssl.TLSVersion, name: str
    ) -> None:
        client = self.client(tmp_path, version)
        _, first = handshake(server_context(str(write_pair(tmp_path))), client)
        _, second = handshake(context, client, first.session)
        assert not second.session_reused

    @pytest.mark.parametrize(("version", "name"), VERSIONS)
    def test_without_one_a_client_is_served(
        self, tmp_path: Path, context: CertificateOptions, version: ssl.TLSVersion, name: str
    ) -> None:
        server, _ = handshake(context, self.client(tmp_path, version))
        state = tls_state(Transport(server))
        assert state is not None
        assert state.peer_certificate is None

    @pytest.mark.parametrize(("version", "name"), VERSIONS)
    def test_where_one_is_required(
        self, tmp_path: Path, authority: Authority, version: ssl.TLSVersion, name: str
    ) -> None:
        context = self.make(tmp_path, authority, required=True)
        with pytest.raises(SSL.Error, match="peer did not return a certificate"):
            handshake(context, self.client(tmp_path, version))
        server, _ = handshake(context, self.client(tmp_path, version, authority.named("tim")))
        assert self.common_name(server) == "tim"

    @pytest.mark.parametrize(("version", "name"), VERSIONS)
    @pytest.mark.parametrize("required", [False, True])
    @pytest.mark.parametrize("fault", ["another authority", "its name", "expired", "a server's", "self-signed"])
    def test_a_bad_one_ends_the_handshake(
        self, tmp_path: Path, authority: Authority, version: ssl.TLSVersion, name: str, required: bool, fault: str
    ) -> None:
        key = make_key()
        pem = {
            "another authority": lambda: Authority("another").named("tim"),
            "its name": lambda: Authority().named("tim"),
            "expired": lambda: authority.issue((NameOID.COMMON_NAME, "tim"), days=-1),
            "a server's": lambda: authority.issue((NameOID.COMMON_NAME, "tim"), usage=ExtendedKeyUsageOID.SERVER_AUTH),
            "self-signed": lambda: certificate_pem(key) + key_pem(key),
        }[fault]()
        context = self.make(tmp_path, authority, required=required)
        with pytest.raises(SSL.Error, match="certificate verify failed"):
            handshake(context, self.client(tmp_path, version, pem))

    def test_the_client_is_told_whose_certificates_count(self, tmp_path: Path, authority: Authority) -> None:
        context = self.make(tmp_path, authority).getContext()
        client = SSL.Connection(SSL.Context(SSL.TLS_CLIENT_METHOD), None)
        server = SSL.Connection(context, None)
        client.set_connect_state()
        server.set_accept_state()
        for _ in range(2):
            for one, other in ((client, server), (server, client)):
                with contextlib.suppress(SSL.WantReadError):
                    one.do_handshake()
                with contextlib.suppress(SSL.WantReadError):
                    other.bio_write(one.bio_read(65536))
        # Those that were given, and none of the system's.
        assert [name.CN for name in client.get_client_ca_list()] == ["clients' authority"]

    def test_a_context_that_verifies_nobody_shows_nobody(self, tmp_path: Path, authority: Authority) -> None:
        # A context of one's own may ask for a certificate and look away.
        context = self.make(tmp_path, authority)
        context.getContext().set_verify(SSL.VERIFY_PEER, lambda *_: True)
        client = self.client(tmp_path, ssl.TLSVersion.TLSv1_3, Authority("another").named("tim"))
        server, _ = handshake(context, client)
        assert self.common_name(server) == "tim"
        server.set_verify(SSL.VERIFY_NONE)
        state = tls_state(Transport(server))
        assert state is not None
        assert state.peer_certificate is None

    def test_a_folder(self, tmp_path: Path) -> None:
        first, second = Authority("first"), Authority("second")
        folder = tmp_path / "authorities"
        (folder / "more").mkdir(parents=True)
        (folder / "first.pem").write_bytes(first.pem)
        # As c_rehash leaves it, and with what people leave.
        (folder / "0a1b2c3d.0").symlink_to(folder / "first.pem")
        (folder / "both.crt").write_bytes(first.pem + second.pem)
        (folder / "README").write_text("These are ours.")
        context = server_context(str(write_pair(tmp_path)), client_ca=str(folder))
        for authority in (first, second):
            client = self.client(tmp_path, ssl.TLSVersion.TLSv1_3, authority.named("tim"))
            server, _ = handshake(context, client)
            assert self.common_name(server) == "tim"

    def test_a_certificate_can_stand_for_itself(self, tmp_path: Path) -> None:
        key = make_key()
        (tmp_path / "own.pem").write_bytes(certificate_pem(key))
        context = server_context(str(write_pair(tmp_path)), client_ca=str(tmp_path / "own.pem"))
        pair = (tmp_path / "own.pem").read_bytes() + key_pem(key)
        server, _ = handshake(context, self.client(tmp_path, ssl.TLSVersion.TLSv1_3, pair))
        assert self.common_name(server) == "localhost"

    @pytest.mark.parametrize(
        ("content", "complaint"),
        [
            (None, "no such file or directory"),
            (b"", "no PEM certificate in this file (it has no line BEGIN CERTIFICATE)"),
            (
                b"-----BEGIN CERTIFICATE-----\nMIIB\n-----END CERTIFICATE-----\n",
                "a certificate in this file can't be read",
            ),
        ],
    )
    def test_a_file_that_cannot_be_used(self, tmp_path: Path, content: bytes | None, complaint: str) -> None:
        path = tmp_path / "ca.pem"
        if content is not None:
            path.write_bytes(content)
        assert self.complaint(tmp_path, path).startswith(f"{path}: {complaint}")

    def test_a_folder_that_cannot_be_used(self, tmp_path: Path) -> None:
        folder = tmp_path / "authorities"
        folder.mkdir()
        assert self.complaint(tmp_path, folder).startswith(f"{folder}: no file in this folder holds a PEM certificate")
        (folder / "broken.pem").write_bytes(b"-----BEGIN CERTIFICATE-----\nMIIB\n-----END CERTIFICATE-----\n")
        assert self.complaint(tmp_path, folder).startswith(f"{folder / 'broken.pem'}: a certificate in this file can't")

    def test_required_and_nothing_to_verify_it_with(self, tmp_path: Path) -> None:
        with pytest.raises(ConfigError, match="no authority is named"):
            server_context(str(write_pair(tmp_path)), require_client_certificate=True)

    def complaint(self, folder: Path, client_ca: Path) -> str:
        with pytest.raises(ConfigError) as caught:
            server_context(str(write_pair(folder)), client_ca=str(client_ca))
        assert "\n" not in str(caught.value)
        return str(caught.value)


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
