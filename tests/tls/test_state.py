"""
What a live connection says of its TLS, on either side: what was agreed on, and its channel bindings.
"""

from __future__ import annotations

import contextlib
import hashlib
import ssl
from pathlib import Path

import pytest
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ed25519
from cryptography.x509 import load_pem_x509_certificate
from OpenSSL import SSL

from smtpfw.state import TLSState
from smtpfw.tls import channel_bindings, client_context, server_context, tls_state
from tests.certificates import Authority, certificate_pem, key_pem, make_key, write_pair
from tests.tls.handshakes import VERSIONS, Transport, any_client, handshake, join, octet_by_octet


@pytest.mark.parametrize(("version", "name"), VERSIONS)
def test_what_was_agreed_on_is_told(tmp_path: Path, version: ssl.TLSVersion, name: str) -> None:
    server, peer = handshake(server_context(str(write_pair(tmp_path))), any_client(version))
    cipher = peer.cipher()
    assert cipher is not None
    state = tls_state(Transport(server))
    assert state == TLSState(name, cipher[0], server_name="localhost")
    assert str(state) == f"{name} {cipher[0]}"


def test_a_name_that_is_no_name_is_told_in_ascii(tmp_path: Path) -> None:
    server = SSL.Connection(server_context(str(write_pair(tmp_path))).getContext(), None)
    client = SSL.Connection(SSL.Context(SSL.TLS_CLIENT_METHOD), None)
    client.set_tlsext_host_name(b"m\xff\n")
    server.set_accept_state()
    client.set_connect_state()
    for _ in range(3):
        for one, other in ((client, server), (server, client)):
            with contextlib.suppress(SSL.WantReadError):
                one.do_handshake()
            with contextlib.suppress(SSL.WantReadError):
                other.bio_write(one.bio_read(65536))
    state = tls_state(Transport(server))
    assert state is not None
    assert state.server_name == "m\\xff\n"


@pytest.mark.parametrize("transport", [object(), Transport(None), Transport(object())])
def test_other_transports_have_nothing_to_tell(transport: object) -> None:
    assert tls_state(transport) is None
    assert channel_bindings(transport) == {}


def test_before_the_handshake_there_is_nothing_to_tell(tmp_path: Path) -> None:
    connection = SSL.Connection(server_context(str(write_pair(tmp_path))).getContext(), None)
    assert tls_state(Transport(connection)) is None
    assert channel_bindings(Transport(connection)) == {}


@pytest.mark.parametrize(("version", "name"), VERSIONS)
def test_channel_bindings(tmp_path: Path, version: ssl.TLSVersion, name: str) -> None:
    server, peer = handshake(server_context(str(write_pair(tmp_path))), any_client(version))
    bindings = channel_bindings(Transport(server))
    # RFC 9266 section 3: below TLS 1.3 it takes an extension that cannot be asked for.
    assert set(bindings) == {"tls-server-end-point"} | ({"tls-exporter"} if name == "TLSv1.3" else set())
    certificate = peer.getpeercert(binary_form=True)
    assert certificate is not None
    assert bindings["tls-server-end-point"] == hashlib.sha256(certificate).digest()


@pytest.mark.parametrize(("algorithm", "digest"), [(hashes.SHA384(), "sha384"), (hashes.SHA512(), "sha512")])
def test_the_end_point_is_hashed_as_the_signature_is(
    tmp_path: Path, algorithm: hashes.HashAlgorithm, digest: str
) -> None:
    key = make_key()
    path = tmp_path / "server.pem"
    path.write_bytes(certificate_pem(key, algorithm=algorithm) + key_pem(key))
    server, peer = handshake(server_context(str(path)), any_client(ssl.TLSVersion.TLSv1_3))
    certificate = peer.getpeercert(binary_form=True)
    assert certificate is not None
    expected = hashlib.new(digest, certificate).digest()
    assert channel_bindings(Transport(server))["tls-server-end-point"] == expected


def test_a_signature_without_a_hash_has_no_end_point(tmp_path: Path) -> None:
    # RFC 5929 section 4.1: undefined. A client that knows could not bind, and would find the offer of -PLUS a lie.
    key = ed25519.Ed25519PrivateKey.generate()
    path = tmp_path / "server.pem"
    path.write_bytes(certificate_pem(key) + key_pem(key))
    server, _ = handshake(server_context(str(path)), any_client(ssl.TLSVersion.TLSv1_2))
    assert channel_bindings(Transport(server)) == {}
    server, _ = handshake(server_context(str(path)), any_client(ssl.TLSVersion.TLSv1_3))
    assert set(channel_bindings(Transport(server))) == {"tls-exporter"}


@pytest.mark.parametrize("pair", [None, "kept", "asked for"])
@pytest.mark.parametrize(("version", "name"), VERSIONS)
def test_both_sides_bind_to_the_same(tmp_path: Path, version: ssl.TLSVersion, name: str, pair: str | None) -> None:
    """Whether the client has a certificate of its own or not, and whether it is asked for it."""
    authority = Authority()
    (tmp_path / "ca.pem").write_bytes(authority.pem)
    (tmp_path / "client.pem").write_bytes(authority.named("tim"))
    path = write_pair(tmp_path)
    asked = pair == "asked for"
    theirs = server_context(str(path), client_ca=str(tmp_path / "ca.pem") if asked else None)
    theirs.getContext().set_max_proto_version(version)
    ours = client_context("localhost", verify=False, certificate=str(tmp_path / "client.pem") if pair else None)
    client, server = join(ours, theirs)
    state = tls_state(server.transport)
    assert state is not None
    assert (state.version, state.peer_certificate is not None) == (name, asked)
    bindings = channel_bindings(client.transport, client=True)
    assert bindings == channel_bindings(server.transport)
    certificate = load_pem_x509_certificate(path.read_bytes())
    assert bindings["tls-server-end-point"] == certificate.fingerprint(hashes.SHA256())
    assert ("tls-exporter" in bindings) is (name == "TLSv1.3")


def test_a_client_knows_the_same_of_the_connection(tmp_path: Path) -> None:
    path = write_pair(tmp_path)
    client, server = join(client_context("localhost", verify=True, ca=str(path)), server_context(str(path)))
    ours, theirs = tls_state(client.transport), tls_state(server.transport)
    assert ours is not None and theirs is not None
    assert (ours.version, ours.cipher, ours.server_name) == (theirs.version, theirs.cipher, "localhost")
    assert ours.peer_certificate == load_pem_x509_certificate(path.read_bytes())
    assert theirs.peer_certificate is None


@pytest.mark.parametrize(("version", "name"), VERSIONS)
def test_nothing_is_told_in_the_middle_of_a_handshake(tmp_path: Path, version: ssl.TLSVersion, name: str) -> None:
    path = write_pair(tmp_path)
    theirs = server_context(str(path))
    theirs.getContext().set_max_proto_version(version)
    steps = 0
    for ends in octet_by_octet(client_context("localhost", verify=True, ca=str(path)), theirs):
        for end in ends:
            assert (tls_state(end.transport) is not None) is end.shaken
            assert end.shaken or channel_bindings(end.transport, client=end is ends[0]) == {}
        steps += 1
    assert steps > 500
    assert all(end.shaken for end in ends)
