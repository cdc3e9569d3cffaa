"""
Client contexts: which certificates they take, for which names, what they say of those that they refuse, and what is
known afterwards.
"""

from __future__ import annotations

import ipaddress
import ssl
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from cryptography.hazmat.primitives.asymmetric import rsa
from cryptography.x509 import DNSName, GeneralName, IPAddress, UniformResourceIdentifier
from cryptography.x509.oid import ExtendedKeyUsageOID, NameOID
from OpenSSL import SSL
from twisted.internet.error import VerifyError
from twisted.internet.ssl import Certificate, CertificateOptions, optionsForClientTLS, trustRootFromCertificates

from smtpfw.errors import ConfigError
from smtpfw.tls import client, client_context, name_verified, server_context, tls_state
from tests.certificates import Authority, certificate_pem, issued_pem, key_pem, make_key, write_pair
from tests.tls.handshakes import VERSIONS, End, Transport, any_client, handshake, join, octet_by_octet

NAME = "mx.example.org"


def ip(text: str) -> IPAddress:
    return IPAddress(ipaddress.ip_address(text))


class Servers:
    """
    Servers with certificates of one authority.

    :ivar ca: the file with the authority.
    """

    def __init__(self, folder: Path, name: str = "authority") -> None:
        self.authority = Authority(name)
        self.folder = folder
        self.ca = str(folder / "ca.pem")
        Path(self.ca).write_bytes(self.authority.pem)

    def named(self, *names: GeneralName, **settings: Any) -> CertificateOptions:
        """A server with a certificate for these names."""
        return self.showing(self.issue(*names, **settings))

    def showing(self, pem: bytes, **settings: Any) -> CertificateOptions:
        """A server with this certificate and key."""
        path = self.folder / "server.pem"
        path.write_bytes(pem)
        return server_context(str(path), **settings)

    def issue(self, *names: GeneralName, **settings: Any) -> bytes:
        settings = {"usage": ExtendedKeyUsageOID.SERVER_AUTH, **settings}
        return self.authority.issue((NameOID.COMMON_NAME, NAME), names=names, **settings)


@pytest.fixture
def servers(tmp_path: Path) -> Servers:
    return Servers(tmp_path)


@pytest.mark.parametrize(("version", "version_name"), VERSIONS)
@pytest.mark.parametrize(
    ("name", "names", "sent"),
    [
        (NAME, [DNSName(NAME)], NAME),
        ("MX.Example.ORG.", [DNSName("other.example.org"), DNSName(NAME)], NAME),
        (NAME, [DNSName("*.example.org")], NAME),
        ("bücher.example", [DNSName("xn--bcher-kva.example")], "xn--bcher-kva.example"),
        ("192.0.2.1", [ip("192.0.2.1")], ""),
        ("2001:DB8:0::1", [DNSName(NAME), ip("2001:db8::1")], ""),
    ],
)
def test_a_server_of_the_right_name(
    servers: Servers,
    version: ssl.TLSVersion,
    version_name: str,
    name: str,
    names: list[GeneralName],
    sent: str,
) -> None:
    theirs = servers.named(*names)
    theirs.getContext().set_max_proto_version(version)
    ours, peer = join(client_context(name, verify=True, ca=servers.ca), theirs)
    assert ours.shaken and ours.lost is None
    state = tls_state(peer.transport)
    assert state is not None
    assert (state.version, state.server_name) == (version_name, sent)
    assert name_verified(ours.transport, name)
    assert not name_verified(ours.transport, "www.example.com")
    assert not name_verified(ours.transport, "192.0.2.77")


def self_signed() -> bytes:
    key = make_key()
    return certificate_pem(key) + key_pem(key)


def with_authority(servers: Servers) -> bytes:
    return servers.issue(DNSName(NAME)) + servers.authority.pem


#: A name, how to make the certificate that a server of this name must not have, and what is said of it.
REFUSED: list[tuple[str, Callable[[Servers], bytes], str]] = [
    (
        NAME,
        lambda servers: servers.issue(DNSName("mx.example.com")),
        f"the certificate of {NAME} is not for this name, but for mx.example.com",
    ),
    (
        # It counts one label.
        "a.b.example.org",
        lambda servers: servers.issue(DNSName("*.example.org")),
        "the certificate of a.b.example.org is not for this name, but for *.example.org",
    ),
    (
        NAME,
        lambda servers: servers.issue(*(DNSName(f"{number}.example") for number in range(9)), ip("192.0.2.1")),
        f"the certificate of {NAME} is not for this name, but for 0.example, 1.example, 2.example, others",
    ),
    (
        # RFC 9525 section 2: the common name, which is right here, does not count.
        NAME,
        lambda servers: servers.issue(),
        f"the certificate of {NAME} is not for this name, but for none",
    ),
    (
        NAME,
        lambda servers: servers.issue(UniformResourceIdentifier(f"smtp://{NAME}")),
        f"the certificate of {NAME} is not for this name, but for none",
    ),
    (
        # Not a name that service-identity reads.
        NAME,
        lambda servers: servers.issue(DNSName("*"), DNSName("192.0.2.1")),
        f"the certificate of {NAME} is not for this name, but for names that can't be read",
    ),
    (
        # What a log or a terminal must not get.
        NAME,
        lambda servers: servers.issue(DNSName("a\r\nb\x1b[31m" + "c" * 200)),
        f"the certificate of {NAME} is not for this name, but for a??b?[31m{'c' * 71}",
    ),
    (
        "192.0.2.1",
        lambda servers: servers.issue(DNSName(NAME), ip("192.0.2.2")),
        f"the certificate of 192.0.2.1 is not for this name, but for {NAME}, 192.0.2.2",
    ),
    (
        "2001:db8::1",
        lambda servers: servers.issue(ip("2001:db8::2")),
        "the certificate of 2001:db8::1 is not for this name, but for 2001:db8::2",
    ),
    (NAME, lambda servers: servers.issue(DNSName(NAME), days=-1), f"the certificate of {NAME} has expired"),
    (
        NAME,
        lambda servers: servers.issue(DNSName(NAME), usage=ExtendedKeyUsageOID.CLIENT_AUTH),
        f"the certificate of {NAME} is not meant for servers",
    ),
    ("localhost", lambda _: self_signed(), "the certificate of localhost is self-signed and not trusted"),
    (
        NAME,
        lambda servers: servers.issue(DNSName(NAME), since=1),
        f"the certificate of {NAME} is not valid yet",
    ),
    (
        NAME,
        lambda servers: Servers(servers.folder / "another", "another").issue(DNSName(NAME)),
        f"the certificate of {NAME} comes from an authority that is not known",
    ),
    (
        # The authority's name, and another's key.
        NAME,
        lambda servers: Servers(servers.folder / "another").issue(DNSName(NAME)),
        f"the certificate of {NAME} has a wrong signature",
    ),
    (
        NAME,
        lambda servers: with_authority(Servers(servers.folder / "another", "another")),
        f"a certificate in the chain of {NAME} is an authority that is not trusted",
    ),
]


def test_a_trusted_certificate_expires_like_others(tmp_path: Path) -> None:
    key = make_key()
    path = tmp_path / "old.pem"
    path.write_bytes(certificate_pem(key, days=-1) + key_pem(key))
    ours, _ = join(client_context("localhost", verify=True, ca=str(path)), server_context(str(path)))
    assert str(ours.lost) == "the certificate of localhost has expired"


@pytest.mark.parametrize(
    ("trusted", "authority", "complaint"),
    [
        ("root", True, None),
        # Those who name an authority in the middle.
        ("between", True, "a certificate in the chain of localhost comes from an authority that is not known"),
        # One that has a certificate for its own host may not make others.
        ("root", False, "a certificate in the chain of localhost was refused by OpenSSL (its code 79)"),
    ],
)
def test_a_chain(tmp_path: Path, trusted: str, authority: bool, complaint: str | None) -> None:
    root, between, own = make_key(), make_key(), make_key()
    authorities = {
        "root": issued_pem("root", root, "root", root, authority=True),
        "between": issued_pem("between", between, "root", root, authority=authority),
    }
    server, ca = tmp_path / "server.pem", tmp_path / "ca.pem"
    leaf = issued_pem("localhost", own, "between", between, authority=False)
    server.write_bytes(leaf + authorities["between"] + key_pem(own))
    ca.write_bytes(authorities[trusted])
    ours, _ = join(client_context("localhost", verify=True, ca=str(ca)), server_context(str(server)))
    assert (str(ours.lost) if ours.lost else None) == complaint
    assert name_verified(ours.transport, "localhost") is (complaint is None)


@pytest.fixture
def another(tmp_path: Path) -> None:
    (tmp_path / "another").mkdir()


@pytest.mark.usefixtures("another")
class TestBadCertificates:
    @pytest.mark.parametrize(("version", "version_name"), VERSIONS)
    @pytest.mark.parametrize(("name", "make", "complaint"), REFUSED)
    def test_refused_before_a_single_octet(
        self,
        servers: Servers,
        version: ssl.TLSVersion,
        version_name: str,
        name: str,
        make: Callable[[Servers], bytes],
        complaint: str,
    ) -> None:
        theirs = servers.showing(make(servers))
        theirs.getContext().set_max_proto_version(version)
        ours, peer = join(client_context(name, verify=True, ca=servers.ca), theirs)
        assert isinstance(ours.lost, VerifyError)
        assert str(ours.lost) == complaint
        assert not ours.shaken
        # With TLS 1.3 and without a certificate of the client's, the server waits for the client's Finished.
        assert not peer.shaken
        assert not name_verified(ours.transport, name)

    @pytest.mark.parametrize(("version", "version_name"), VERSIONS)
    @pytest.mark.parametrize(("name", "make", "complaint"), REFUSED)
    def test_good_enough_for_encryption(
        self,
        servers: Servers,
        version: ssl.TLSVersion,
        version_name: str,
        name: str,
        make: Callable[[Servers], bytes],
        complaint: str,
    ) -> None:
        theirs = servers.showing(make(servers))
        theirs.getContext().set_max_proto_version(version)
        # An authority that is named for other connections is no reason to verify.
        ours, peer = join(client_context(name, verify=False, ca=servers.ca), theirs)
        assert ours.shaken and peer.shaken
        state = tls_state(ours.transport)
        assert state is not None
        assert state.peer_certificate is None
        assert not name_verified(ours.transport, name)


@pytest.mark.parametrize(
    ("name", "sent"), [(NAME, NAME), ("192.0.2.1", ""), ("2001:db8::1", ""), ("", ""), ("a b", "")]
)
def test_the_name_is_sent_where_nothing_is_verified(servers: Servers, name: str, sent: str) -> None:
    _, peer = join(client_context(name, verify=False), servers.named(DNSName("other.example")))
    state = tls_state(peer.transport)
    assert state is not None
    assert state.server_name == sent


def test_nothing_is_verified_though_the_certificate_is_right(servers: Servers) -> None:
    ours, _ = join(client_context(NAME, verify=False, ca=servers.ca), servers.named(DNSName(NAME)))
    assert ours.shaken
    assert not name_verified(ours.transport, NAME)


def test_a_weak_key_is_good_enough_for_encryption(servers: Servers) -> None:
    key = rsa.generate_private_key(public_exponent=65537, key_size=1024)
    path = servers.folder / "weak.pem"
    path.write_bytes(certificate_pem(key) + key_pem(key))
    theirs = CertificateOptions()
    context = theirs.getContext()
    context.set_cipher_list(b"DEFAULT:@SECLEVEL=0")
    context.use_certificate_file(str(path))
    context.use_privatekey_file(str(path))
    ours, peer = join(client_context("localhost", verify=False), theirs)
    assert ours.shaken and peer.shaken


def test_tls_before_1_2_is_refused(servers: Servers) -> None:
    theirs = servers.named(DNSName(NAME))
    context = theirs.getContext()
    context.set_cipher_list(b"ALL:@SECLEVEL=0")
    context.set_max_proto_version(SSL.TLS1_1_VERSION)
    for verify in (True, False):
        ours, _ = join(client_context(NAME, verify=verify, ca=servers.ca), theirs)
        assert not ours.shaken
        assert isinstance(ours.lost, SSL.Error)


class TestAuthorities:
    def test_a_folder(self, servers: Servers) -> None:
        folder = servers.folder / "authorities"
        folder.mkdir()
        (folder / "another.pem").write_bytes(Authority("another").pem)
        (folder / "ours.pem").write_bytes(servers.authority.pem)
        ours, _ = join(client_context(NAME, verify=True, ca=str(folder)), servers.named(DNSName(NAME)))
        assert name_verified(ours.transport, NAME)

    def test_a_certificate_can_stand_for_itself(self, tmp_path: Path) -> None:
        path = str(write_pair(tmp_path))
        ours, _ = join(client_context("localhost", verify=True, ca=path), server_context(path))
        assert name_verified(ours.transport, "localhost")

    @pytest.fixture
    def system(self, servers: Servers, monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
        """A system that trusts the authority of the servers."""
        monkeypatch.setenv("SSL_CERT_FILE", servers.ca)
        client._shared_options.cache_clear()
        yield
        client._shared_options.cache_clear()

    @pytest.mark.usefixtures("system")
    def test_those_of_the_system(self, servers: Servers) -> None:
        theirs = servers.named(DNSName(NAME), DNSName("mx2.example.org"))
        for name in (NAME, "mx2.example.org", "mx3.example.org"):
            ours, _ = join(client_context(name, verify=True), theirs)
            assert name_verified(ours.transport, name) is (name != "mx3.example.org")

    @pytest.mark.usefixtures("system")
    def test_those_of_the_system_do_not_count_where_others_are_named(self, servers: Servers, tmp_path: Path) -> None:
        path = tmp_path / "another.pem"
        path.write_bytes(Authority("another").pem)
        ours, _ = join(client_context(NAME, verify=True, ca=str(path)), servers.named(DNSName(NAME)))
        assert isinstance(ours.lost, VerifyError)


class TestOwnCertificate:
    @pytest.mark.parametrize("verify", [True, False])
    @pytest.mark.parametrize(("version", "version_name"), VERSIONS)
    def test_it_is_shown(self, servers: Servers, version: ssl.TLSVersion, version_name: str, verify: bool) -> None:
        theirs = servers.showing(servers.issue(DNSName(NAME)), client_ca=servers.ca, require_client_certificate=True)
        theirs.getContext().set_max_proto_version(version)
        path = servers.folder / "client.pem"
        path.write_bytes(servers.authority.named("tim"))
        context = client_context(NAME, verify=verify, ca=servers.ca, certificate=str(path))
        ours, peer = join(context, theirs)
        assert ours.shaken
        assert name_verified(ours.transport, NAME) is verify
        state = tls_state(peer.transport)
        assert state is not None
        assert state.peer_certificate is not None
        (attribute,) = state.peer_certificate.subject.get_attributes_for_oid(NameOID.COMMON_NAME)
        assert attribute.value == "tim"

    def test_its_key_in_a_second_file(self, servers: Servers) -> None:
        key = make_key()
        certificate, second = servers.folder / "own.pem", servers.folder / "key.pem"
        certificate.write_bytes(certificate_pem(key))
        second.write_bytes(key_pem(key))
        theirs = servers.showing(
            servers.issue(DNSName(NAME)), client_ca=str(certificate), require_client_certificate=True
        )
        context = client_context(NAME, verify=True, ca=servers.ca, certificate=str(certificate), key=str(second))
        ours, peer = join(context, theirs)
        assert ours.shaken and peer.shaken

    def test_a_key_of_another(self, servers: Servers) -> None:
        certificate, key = servers.folder / "own.pem", servers.folder / "key.pem"
        certificate.write_bytes(certificate_pem(make_key()))
        key.write_bytes(key_pem(make_key()))
        line = complaint(NAME, verify=False, certificate=str(certificate), key=str(key))
        assert line.startswith(f"{certificate}: the key in {key} does not belong to the first certificate")

    def test_a_key_alone(self) -> None:
        assert complaint(NAME, verify=False, key="key.pem") == "key.pem: a private key without a certificate"

    def test_a_file_without_a_key(self, servers: Servers) -> None:
        line = complaint(NAME, verify=False, certificate=servers.ca)
        assert line.startswith(f"{servers.ca}: no PEM private key in this file")


def complaint(*arguments: Any, **settings: Any) -> str:
    with pytest.raises(ConfigError) as caught:
        client_context(*arguments, **settings)
    line = str(caught.value)
    assert "\n" not in line
    return line


@pytest.mark.parametrize("name", ["", ".", "a b", "12", "[192.0.2.1]", "mx\r\n.example", "\udce9", "ü" * 300, "mx:25"])
def test_no_certificate_can_be_verified_for_it(name: str) -> None:
    line = complaint(name, verify=True)
    assert line.isascii()
    assert line.endswith("not a host name or IP address, so no certificate can be verified for it")
    assert not name_verified(Transport(None), name)


def test_authorities_that_cannot_be_used(tmp_path: Path) -> None:
    path = tmp_path / "ca.pem"
    assert complaint(NAME, verify=True, ca=str(path)) == f"{path}: no such file or directory"
    assert complaint(NAME, verify=True, ca=str(tmp_path)).startswith(f"{tmp_path}: no file in this folder holds")
    path.write_bytes(b"")
    assert complaint(NAME, verify=True, ca=str(path)).startswith(f"{path}: no PEM certificate in this file")


class TestNameVerified:
    @pytest.mark.parametrize("transport", [object(), Transport(None), Transport(object()), End().transport])
    def test_other_transports(self, transport: object) -> None:
        assert not name_verified(transport, NAME)

    @pytest.mark.parametrize(("version", "version_name"), VERSIONS)
    def test_not_before_the_server_has_proved_its_key(
        self, servers: Servers, version: ssl.TLSVersion, version_name: str
    ) -> None:
        theirs = servers.named(DNSName(NAME))
        theirs.getContext().set_max_proto_version(version)
        for ours, _ in octet_by_octet(client_context(NAME, verify=True, ca=servers.ca), theirs):
            assert name_verified(ours.transport, NAME) is ours.shaken
        assert ours.shaken

    def test_a_context_of_twisted(self, servers: Servers) -> None:
        trusted = trustRootFromCertificates([Certificate.loadPEM(servers.authority.pem)])
        ours, _ = join(optionsForClientTLS(NAME, trusted), servers.named(DNSName(NAME)))
        assert name_verified(ours.transport, NAME)
        assert not name_verified(ours.transport, "www.example.com")

    def test_a_context_that_verifies_nobody(self, servers: Servers) -> None:
        ours, _ = join(CertificateOptions(), servers.named(DNSName(NAME)))
        assert ours.shaken
        assert not name_verified(ours.transport, NAME)

    def test_a_client_without_a_certificate(self, servers: Servers) -> None:
        server, _ = handshake(
            servers.showing(servers.issue(DNSName(NAME)), client_ca=servers.ca), any_client(ssl.TLSVersion.TLSv1_3)
        )
        assert not name_verified(Transport(server), NAME)
