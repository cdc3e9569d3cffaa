"""
A store of certificates: who is shown which in real handshakes, and what becomes of connections and of what is out of
order when everything is read again.
"""

from __future__ import annotations

import contextlib
import datetime
import gc
import os
import ssl
import weakref
from pathlib import Path
from typing import Any

import pytest
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec
from OpenSSL import SSL

from smtpfw.errors import ConfigError
from smtpfw.tls import CertificateStore, ServerTLS, channel_bindings, client_context, tls_state
from tests.certificates import Authority
from tests.tls.handshakes import (
    VERSIONS,
    Transport,
    any_client,
    carry,
    connection_of,
    handshake,
    join,
    octet_by_octet,
    shake,
)
from tests.tls.pairs import RSA_KEY, Pem, make_pair, put, shown_to

VERSION = pytest.mark.parametrize("version", [version for version, _ in VERSIONS])


def folder_of(folder: Path, **pairs: Pem) -> str:
    for name, made in pairs.items():
        put(folder / f"{name}.pem", made.both)
    return str(folder)


def serial(tls: ServerTLS, name: str | None, version: ssl.TLSVersion = ssl.TLSVersion.TLSv1_3) -> int:
    """Of the certificate that a new client is shown."""
    _, peer = handshake(tls, any_client(version), name=name)
    return shown_to(peer).serial_number


def chain_shown(tls: ServerTLS, name: bytes) -> list[int]:
    """The serial numbers of all certificates that a client is sent; the standard library tells of the first only."""
    client, server = SSL.Connection(SSL.Context(SSL.TLS_CLIENT_METHOD), None), connection_of(tls)
    client.set_tlsext_host_name(name)
    client.set_connect_state()
    for _ in range(3):
        for one, other in ((client, server), (server, client)):
            with contextlib.suppress(SSL.WantReadError):
                one.do_handshake()
            with contextlib.suppress(SSL.WantReadError):
                other.bio_write(one.bio_read(65536))
    chain = client.get_peer_cert_chain(as_cryptography=True)
    assert chain is not None
    return [one.serial_number for one in chain]


class TestNames:
    @VERSION
    def test_each_gets_its_own(self, tmp_path: Path, version: ssl.TLSVersion) -> None:
        mx, wild, other = make_pair("mx.a.test", "a.test"), make_pair("*.a.test"), make_pair("b.test")
        store = CertificateStore(folder_of(tmp_path, mx=mx, wild=wild, other=other), hostname="b.test")
        tls = store.listener()
        for name, made in [
            ("mx.a.test", mx),
            ("a.test", mx),
            ("MX.A.TEST", mx),
            ("x.a.test", wild),
            ("b.test", other),
            ("y.x.a.test", other),
            ("elsewhere.test", other),
            (None, other),
        ]:
            assert serial(tls, name, version) == made.serial, name

    @VERSION
    def test_the_name_is_recorded(self, tmp_path: Path, version: ssl.TLSVersion) -> None:
        tls = CertificateStore(folder_of(tmp_path, a=make_pair("a.test"), b=make_pair("b.test"))).listener()
        client, session = any_client(version), None
        for name in ("b.test", "b.test", "strange.test"):
            server, peer = handshake(tls, client, session if name == "b.test" else None, name=name)
            session = peer.session
            state = tls_state(Transport(server))
            assert state is not None
            assert state.server_name == name

    def test_one_file_and_two_files(self, tmp_path: Path) -> None:
        made = make_pair("a.test")
        both = put(tmp_path / "both.pem", made.both)
        cert, key = put(tmp_path / "cert.pem", made.certificate), put(tmp_path / "key.pem", made.key)
        for store in (CertificateStore(str(both)), CertificateStore(str(cert), str(key))):
            assert serial(store.listener(), "elsewhere.test") == made.serial

    def test_the_chain_is_sent(self, tmp_path: Path) -> None:
        made, issuer, other = make_pair("a.test"), make_pair(authority=True), make_pair("b.test")
        put(tmp_path / "a.pem", made.both + issuer.certificate)
        tls = CertificateStore(folder_of(tmp_path, b=other), hostname="b.test").listener()
        assert chain_shown(tls, b"a.test") == [made.serial, issuer.serial]

    def test_a_client_of_ours_verifies_what_it_is_shown(self, tmp_path: Path) -> None:
        store = CertificateStore(folder_of(tmp_path / "certs", a=make_pair("a.test"), b=make_pair("b.test")))
        tls = store.listener()
        for name in ("a.test", "b.test"):
            ours, theirs = join(client_context(name, verify=True, ca=str(tmp_path / "certs")), tls)
            assert (ours.shaken, theirs.shaken) == (True, True), name


class TestTwoKindsOfKeys:
    def two(self, folder: Path) -> tuple[Pem, Pem, ServerTLS]:
        rsa, ecdsa = make_pair("a.test", key=RSA_KEY), make_pair("a.test")
        path = folder_of(folder, rsa=rsa, ecdsa=ecdsa, other=make_pair("b.test"))
        return rsa, ecdsa, CertificateStore(path, hostname="b.test").listener()

    def client(self, kind: str) -> ssl.SSLContext:
        client = any_client(ssl.TLSVersion.TLSv1_2)
        client.set_ciphers(f"ECDHE-{kind}-AES256-GCM-SHA384")
        return client

    def test_the_client_chooses(self, tmp_path: Path) -> None:
        rsa, ecdsa, tls = self.two(tmp_path)
        for kind, made in (("RSA", rsa), ("ECDSA", ecdsa)):
            _, peer = handshake(tls, self.client(kind), name="a.test")
            assert shown_to(peer).serial_number == made.serial

    def test_it_may_be_the_default(self, tmp_path: Path) -> None:
        rsa, ecdsa = make_pair("a.test", key=RSA_KEY), make_pair("a.test")
        tls = CertificateStore(folder_of(tmp_path, rsa=rsa, ecdsa=ecdsa)).listener()
        for kind, made in (("RSA", rsa), ("ECDSA", ecdsa)):
            _, peer = handshake(tls, self.client(kind), name=None)
            assert shown_to(peer).serial_number == made.serial

    @pytest.mark.parametrize("kind", ["RSA", "ECDSA"])
    def test_an_authentication_binds_to_the_one_that_the_client_knows(self, tmp_path: Path, kind: str) -> None:
        _, _, tls = self.two(tmp_path)
        client, session = self.client(kind), None
        for _ in range(2):
            server, peer = handshake(tls, client, session, name="a.test")
            session = peer.session
            bindings = channel_bindings(Transport(server))
            assert bindings["tls-server-end-point"] == shown_to(peer).fingerprint(hashes.SHA256())

    def test_both_chains_are_sent(self, tmp_path: Path) -> None:
        first, second = make_pair(authority=True), make_pair(authority=True)
        put(tmp_path / "1.pem", make_pair("a.test").both + first.certificate)
        put(tmp_path / "2.pem", make_pair("a.test", key=RSA_KEY).both + first.certificate + second.certificate)
        tls = CertificateStore(str(tmp_path)).listener()
        assert chain_shown(tls, b"a.test")[1:] == [first.serial, second.serial]


class TestSessions:
    @VERSION
    @pytest.mark.parametrize("name", ["a.test", "b.test", "strange.test"])
    def test_one_is_resumed_whatever_its_name(self, tmp_path: Path, version: ssl.TLSVersion, name: str) -> None:
        store = CertificateStore(folder_of(tmp_path, a=make_pair("a.test"), b=make_pair("b.test")))
        tls = store.listener()
        client = any_client(version)
        _, first = handshake(tls, client, name=name)
        assert not store.reload()
        _, second = handshake(tls, client, first.session, name=name)
        assert (first.session_reused, second.session_reused) == (False, True)

    @VERSION
    def test_none_is_resumed_with_other_certificates(self, tmp_path: Path, version: ssl.TLSVersion) -> None:
        store = CertificateStore(folder_of(tmp_path, a=make_pair("a.test"), b=make_pair("b.test")))
        tls = store.listener()
        client = any_client(version)
        _, first = handshake(tls, client, name="b.test")
        new = make_pair("b.test")
        folder_of(tmp_path, b=new)
        assert store.reload()
        _, second = handshake(tls, client, first.session, name="b.test")
        assert not second.session_reused
        assert shown_to(second).serial_number == new.serial

    @VERSION
    def test_none_passes_from_a_listener_to_a_stricter_one(self, tmp_path: Path, version: ssl.TLSVersion) -> None:
        authority = Authority()
        ca = put(tmp_path / "ca.pem", authority.pem)
        store = CertificateStore(folder_of(tmp_path / "certs", a=make_pair("a.test"), b=make_pair("b.test")))
        lenient = store.listener()
        strict = store.listener(client_ca=str(ca), require_client_certificate=True)
        client = any_client(version)
        _, first = handshake(lenient, client, name="b.test")
        with pytest.raises(SSL.Error, match="peer did not return a certificate"):
            handshake(strict, client, first.session, name="b.test")


class TestPolicies:
    def refused(self, tls: ServerTLS, version: ssl.TLSVersion, name: str) -> bool:
        try:
            serial(tls, name, version)
        except (ssl.SSLError, SSL.Error):
            return True
        return False

    def test_the_minimum_version(self, tmp_path: Path) -> None:
        store = CertificateStore(folder_of(tmp_path, a=make_pair("a.test"), b=make_pair("b.test")))
        usual, new = store.listener(), store.listener(minimum_version="1.3")
        for name in ("a.test", "b.test"):
            assert not self.refused(usual, ssl.TLSVersion.TLSv1_2, name)
            assert not self.refused(new, ssl.TLSVersion.TLSv1_3, name)
            assert self.refused(new, ssl.TLSVersion.TLSv1_2, name)

    def test_tls_before_1_2_is_refused(self, tmp_path: Path) -> None:
        tls = CertificateStore(folder_of(tmp_path, a=make_pair("a.test"), b=make_pair("b.test"))).listener()
        client = any_client(ssl.TLSVersion.TLSv1_2)
        with pytest.warns(DeprecationWarning, match="TLSv1_1"):
            client.minimum_version = client.maximum_version = ssl.TLSVersion.TLSv1_1
        client.set_ciphers("ALL:@SECLEVEL=0")
        for name in ("a.test", "b.test"):
            with pytest.raises((ssl.SSLError, SSL.Error)):
                handshake(tls, client, name=name)

    @pytest.mark.parametrize("version", ["1.1", "TLSv1.3", ""])
    def test_another_version_is_no_setting(self, tmp_path: Path, version: str) -> None:
        store = CertificateStore(folder_of(tmp_path, a=make_pair("a.test")))
        with pytest.raises(ConfigError, match=r"the minimum version of TLS is 1\.2 or 1\.3"):
            store.listener(minimum_version=version)

    @VERSION
    @pytest.mark.parametrize("name", ["a.test", "b.test"])
    def test_clients_certificates(self, tmp_path: Path, version: ssl.TLSVersion, name: str) -> None:
        authority = Authority()
        ca = put(tmp_path / "ca.pem", authority.pem)
        store = CertificateStore(folder_of(tmp_path / "certs", a=make_pair("a.test"), b=make_pair("b.test")))
        asking = store.listener(client_ca=str(ca))
        requiring = store.listener(client_ca=str(ca), require_client_certificate=True)
        anonymous, known, stranger = any_client(version), any_client(version), any_client(version)
        known.load_cert_chain(put(tmp_path / "tim.pem", authority.named("tim")))
        stranger.load_cert_chain(put(tmp_path / "tom.pem", Authority("another").named("tom")))
        for tls in (asking, requiring):
            server, _ = handshake(tls, known, name=name)
            state = tls_state(Transport(server))
            assert state is not None
            assert state.peer_certificate is not None
            with pytest.raises(SSL.Error, match="certificate verify failed"):
                handshake(tls, stranger, name=name)
        handshake(asking, anonymous, name=name)
        with pytest.raises(SSL.Error, match="peer did not return a certificate"):
            handshake(requiring, anonymous, name=name)

    def test_required_and_nobody_to_vouch(self, tmp_path: Path) -> None:
        store = CertificateStore(folder_of(tmp_path, a=make_pair("a.test")))
        with pytest.raises(ConfigError, match="no authority is named"):
            store.listener(require_client_certificate=True)


class TestAReload:
    def test_what_is_new_is_shown_and_told(self, tmp_path: Path) -> None:
        a, b = make_pair("a.test"), make_pair("b.test")
        store = CertificateStore(folder_of(tmp_path, a=a, b=b))
        first, second = store.listener(), store.listener(minimum_version="1.3")
        a2, c = make_pair("a.test"), make_pair("c.test", days=50)
        folder_of(tmp_path, a=a2, c=c)
        (tmp_path / "b.pem").unlink()
        assert store.changed()
        reloaded = store.reload()
        assert reloaded
        assert [line.partition(" (")[0] for line in reloaded.changes] == [
            "Certificate added: c.test",
            "Certificate replaced: a.test",
            "Certificate removed: b.test",
        ]
        assert reloaded.problems == ()
        assert not store.changed()
        for tls in (first, second):
            assert [serial(tls, name) for name in ("a.test", "b.test", "c.test")] == [a2.serial, a2.serial, c.serial]

    def test_nothing_new(self, tmp_path: Path) -> None:
        store = CertificateStore(folder_of(tmp_path, a=make_pair("a.test")))
        assert not store.changed()
        assert not store.reload()
        assert store.reload().problems == ()

    @VERSION
    def test_a_connection_keeps_what_it_has_at_every_moment(self, tmp_path: Path, version: ssl.TLSVersion) -> None:
        for steps in range(6):
            old, new = make_pair("b.test"), make_pair("b.test")
            folder = tmp_path / str(steps)
            store = CertificateStore(folder_of(folder, a=make_pair("a.test"), b=old))
            tls = store.listener()
            server, to_client, to_server = connection_of(tls), ssl.MemoryBIO(), ssl.MemoryBIO()
            peer = any_client(version).wrap_bio(to_client, to_server, server_hostname="b.test")
            for side in (peer, server, peer, server, peer)[:steps]:
                with contextlib.suppress(ssl.SSLWantReadError, SSL.WantReadError):
                    side.do_handshake()
                carry(server, to_client, to_server)
            folder_of(folder, b=new)
            assert store.reload()
            gc.collect()
            # The certificate of the time when the connection began, though the name came later.
            shake(server, peer, to_client, to_server)
            assert shown_to(peer).serial_number == old.serial
            assert serial(tls, "b.test", version) == new.serial

    def test_an_old_connection_goes_on(self, tmp_path: Path) -> None:
        store = CertificateStore(folder_of(tmp_path, a=make_pair("a.test"), b=make_pair("b.test")))
        tls = store.listener()
        server, to_client, to_server = connection_of(tls), ssl.MemoryBIO(), ssl.MemoryBIO()
        peer = any_client(ssl.TLSVersion.TLSv1_3).wrap_bio(to_client, to_server, server_hostname="b.test")
        for _ in range(3):
            shake(server, peer, to_client, to_server)
            peer.write(b"hello")
            carry(server, to_client, to_server)
            assert server.recv(100) == b"hello"
            folder_of(tmp_path, a=make_pair("a.test"), b=make_pair("b.test"))
            assert store.reload()
            gc.collect()

    def test_a_client_that_repeats_its_hello_meets_what_it_met_before(self, tmp_path: Path) -> None:
        old = make_pair("b.test")
        store = CertificateStore(folder_of(tmp_path, a=make_pair("a.test"), b=old))
        tls = store.listener()
        # Our clients send a share for another group, so that they have to repeat their hello.
        tls._served.front.set_tmp_ecdh(ec.SECP384R1())
        server, to_client, to_server = connection_of(tls), ssl.MemoryBIO(), ssl.MemoryBIO()
        peer = any_client(ssl.TLSVersion.TLSv1_3).wrap_bio(to_client, to_server, server_hostname="b.test")
        for step in (peer.do_handshake, server.do_handshake):
            with contextlib.suppress(ssl.SSLWantReadError, SSL.WantReadError):
                step()
            carry(server, to_client, to_server)
        # A whole flight would be longer.
        assert to_client.pending < 200
        folder_of(tmp_path, a=make_pair("a.test"), b=make_pair("b.test"))
        assert store.reload()
        gc.collect()
        shake(server, peer, to_client, to_server)
        assert shown_to(peer).serial_number == old.serial

    def test_between_any_two_octets(self, tmp_path: Path) -> None:
        made = [make_pair("b.test"), make_pair("b.test")]
        store = CertificateStore(folder_of(tmp_path, a=make_pair("a.test"), b=made[0]))
        tls = store.listener()
        octets = octet_by_octet(client_context("b.test", verify=False), tls)
        ours, theirs = next(octets)
        for number, _ in enumerate(octets):
            if number % 50 == 0:
                folder_of(tmp_path, b=made[1 - number // 50 % 2])
                assert store.reload()
        assert ours.shaken
        assert theirs.shaken

    def test_a_listener_that_is_gone_is_not_kept(self, tmp_path: Path) -> None:
        store = CertificateStore(folder_of(tmp_path, a=make_pair("a.test")))
        tls = weakref.ref(store.listener())
        gc.collect()
        assert tls() is None

    def test_authorities_are_read_again(self, tmp_path: Path) -> None:
        old, new = Authority("old"), Authority("new")
        ca = put(tmp_path / "ca.pem", old.pem)
        store = CertificateStore(folder_of(tmp_path / "certs", a=make_pair("a.test"), b=make_pair("b.test")))
        tls = store.listener(client_ca=str(ca))
        clients = [any_client(ssl.TLSVersion.TLSv1_3) for _ in range(2)]
        for client, authority in zip(clients, (old, new), strict=True):
            client.load_cert_chain(put(tmp_path / "client.pem", authority.named("tim")))
        assert not store.changed()
        put(ca, new.pem)
        assert store.changed()
        assert store.reload().changes == (f"Clients' certificates are verified with what {ca} holds now",)
        for name in ("a.test", "b.test"):
            handshake(tls, clients[1], name=name)
            with pytest.raises(SSL.Error, match="certificate verify failed"):
                handshake(tls, clients[0], name=name)
        put(ca, b"")
        reloaded = store.reload()
        assert not reloaded
        (problem,) = reloaded.problems
        assert problem.startswith(f"{ca}: no PEM certificate in this file")
        assert problem.endswith("; the authorities from before stay in use")
        handshake(tls, clients[1], name="b.test")

    def test_authorities_are_looked_at_from_when_they_were_read(self, tmp_path: Path) -> None:
        ca = put(tmp_path / "ca.pem", Authority().pem)
        folder = folder_of(tmp_path / "certs", a=make_pair("a.test"))
        store = CertificateStore(folder)
        folder_of(tmp_path / "certs", a=make_pair("a.test"))
        tls = store.listener(client_ca=str(ca))
        # What had changed before is not forgotten.
        assert store.changed()
        assert store.reload()
        assert tls.authorities


def mismatched(folder: Path) -> None:
    put(folder / "b.crt", make_pair("b.test").certificate)


def empty(folder: Path) -> None:
    put(folder / "b.crt", b"")


def half(folder: Path) -> None:
    content = (folder / "b.crt").read_bytes()
    put(folder / "b.crt", content + content[: len(content) // 2])


def broken(folder: Path) -> None:
    put(folder / "b.crt", b"-----BEGIN CERTIFICATE-----\nMIIB\n-----END CERTIFICATE-----\n")


def a_folder(folder: Path) -> None:
    (folder / "b.key").unlink()
    (folder / "b.key").mkdir()


def leads_nowhere(folder: Path) -> None:
    (folder / "b.key").unlink()
    (folder / "b.key").symlink_to(folder / "absent")


def no_key(folder: Path) -> None:
    (folder / "b.key").unlink()


def no_certificate(folder: Path) -> None:
    (folder / "b.crt").unlink()


def two_candidates(folder: Path) -> None:
    put(folder / "b.pem", make_pair("b.test").certificate)


def expired(folder: Path) -> None:
    made = make_pair("b.test", days=-1)
    put(folder / "b.crt", made.certificate)
    put(folder / "b.key", made.key)


BAD = [
    (mismatched, "/b.crt: the key in {}/b.key does not belong to the first certificate"),
    (empty, "/b.crt: no PEM certificate in this file"),
    (half, "/b.crt: the last certificate in this file has no end"),
    (broken, "/b.crt: a certificate in this file can't be read"),
    (a_folder, "/b.crt: there is no key for it any more"),
    (leads_nowhere, "/b.key: no such file or directory"),
    (no_key, "/b.key: this file is gone"),
    (no_certificate, "/b.key: a key without a certificate"),
    (two_candidates, "/b.key: b.crt and b.pem could go with this key"),
    (expired, "/b.crt: the new certificate has expired already"),
]


class TestOutOfOrder:
    @pytest.mark.parametrize(("spoil", "complaint"), BAD)
    def test_the_old_one_stays_and_the_others_are_renewed(self, tmp_path: Path, spoil: Any, complaint: str) -> None:
        old, new = make_pair("b.test"), make_pair("a.test")
        put(tmp_path / "b.crt", old.certificate)
        put(tmp_path / "b.key", old.key)
        store = CertificateStore(folder_of(tmp_path, a=make_pair("a.test")))
        tls = store.listener()
        folder_of(tmp_path, a=new)
        spoil(tmp_path)
        for _ in range(2):
            reloaded = store.reload()
            (problem,) = reloaded.problems
            assert problem.startswith(str(tmp_path) + complaint.format(tmp_path))
            assert "\n" not in problem
            until = store.table.find(b"b.test")[0].not_after
            assert problem.endswith(f"; the certificate from before stays in use, until {until:%Y-%m-%d}")
            assert serial(tls, "a.test") == new.serial
            assert serial(tls, "b.test") == old.serial
        renewed = make_pair("b.test")
        for path in (tmp_path / "b.pem", tmp_path / "b.key"):
            if path.is_dir():
                path.rmdir()
            path.unlink(missing_ok=True)
        put(tmp_path / "b.crt", renewed.certificate)
        put(tmp_path / "b.key", renewed.key)
        assert store.reload().problems == ()
        assert serial(tls, "b.test") == renewed.serial

    def test_a_bad_file_that_is_new_is_told_and_left_out(self, tmp_path: Path) -> None:
        made = make_pair("a.test")
        store = CertificateStore(folder_of(tmp_path, a=made))
        put(tmp_path / "b.pem", b"junk")
        reloaded = store.reload()
        assert reloaded.problems == (f"{tmp_path}/b.pem: neither a certificate nor a key in PEM is in this file",)
        assert serial(store.listener(), "a.test") == made.serial

    def test_the_last_one_is_never_given_up(self, tmp_path: Path) -> None:
        made = make_pair("a.test")
        store = CertificateStore(folder_of(tmp_path, a=made))
        (tmp_path / "a.pem").unlink()
        reloaded = store.reload()
        assert not reloaded
        (problem,) = reloaded.problems
        assert problem.startswith(f"{tmp_path}/a.pem: this file is gone; the certificate from before stays in use")
        assert serial(store.listener(), "a.test") == made.serial

    @pytest.mark.parametrize("inner", ["", "live"])
    def test_a_folder_that_cannot_be_looked_into(
        self, tmp_path: Path, inner: str, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        closed = tmp_path / inner
        folder_of(closed, b=make_pair("b.test"), c=make_pair("c.test"))
        folder_of(tmp_path, a=make_pair("a.test"))
        store = CertificateStore(str(tmp_path))
        iterdir = Path.iterdir

        def refuse(path: Path) -> Any:
            if path == closed:
                raise PermissionError(13, "Permission denied")
            return iterdir(path)

        monkeypatch.setattr(Path, "iterdir", refuse)
        monkeypatch.setattr(os.path, "lexists", lambda path: not str(path).startswith(f"{closed}/"))
        reloaded = store.reload()
        assert reloaded.changes == ()
        (problem,) = reloaded.problems
        assert problem.startswith(
            f"{closed}: permission denied for user id {os.geteuid()}; the certificates from before stay in use, until"
        )
        assert len(store.certificates) == 3

    def test_a_key_that_may_not_be_read_any_more(self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        # Root may read it whatever its mode is, so the mode would prove nothing.
        made = make_pair("a.test")
        put(tmp_path / "a.crt", made.certificate)
        key = put(tmp_path / "a.key", made.key)
        store = CertificateStore(str(tmp_path))
        read_bytes = Path.read_bytes

        def refuse(path: Path) -> bytes:
            if path == key:
                raise PermissionError(13, "Permission denied")
            return read_bytes(path)

        monkeypatch.setattr(Path, "read_bytes", refuse)
        (problem,) = store.reload().problems
        assert problem.startswith(f"{key}: permission denied for user id {os.geteuid()}; the certificate from before")
        assert serial(store.listener(), "a.test") == made.serial

    def test_a_single_file(self, tmp_path: Path) -> None:
        made = make_pair("a.test")
        path = put(tmp_path / "a.pem", made.both)
        store = CertificateStore(str(path))
        tls = store.listener()
        path.unlink()
        (problem,) = store.reload().problems
        assert problem.startswith(f"{path}: no such file or directory; the certificate from before stays in use")
        assert serial(tls, "a.test") == made.serial
        new = make_pair("a.test")
        put(path, new.both)
        assert store.reload().problems == ()
        assert serial(tls, "a.test") == new.serial

    def test_another_name_for_the_file_is_no_problem(self, tmp_path: Path) -> None:
        made = make_pair("a.test")
        put(tmp_path / "a.crt", made.certificate)
        put(tmp_path / "a.key", made.key)
        store = CertificateStore(str(tmp_path))
        (tmp_path / "a.crt").rename(tmp_path / "a.pem")
        reloaded = store.reload()
        assert reloaded.problems == ()
        assert [one.path for one in store.certificates] == [str(tmp_path / "a.pem")]


class TestTheStart:
    def complaint(self, path: Path, key: Path | None = None) -> str:
        with pytest.raises(ConfigError) as caught:
            CertificateStore(str(path), str(key) if key else None)
        assert "\n" not in str(caught.value)
        return str(caught.value)

    @pytest.mark.parametrize(("spoil", "complaint"), [row for row in BAD if row[0] not in (no_key, a_folder, expired)])
    def test_nothing_starts_with_what_is_out_of_order(self, tmp_path: Path, spoil: Any, complaint: str) -> None:
        made = make_pair("b.test")
        put(tmp_path / "b.crt", made.certificate)
        put(tmp_path / "b.key", made.key)
        folder_of(tmp_path, a=make_pair("a.test"))
        spoil(tmp_path)
        assert self.complaint(tmp_path).startswith(str(tmp_path) + complaint.format(tmp_path))

    def test_all_of_it_is_told_at_once(self, tmp_path: Path) -> None:
        put(tmp_path / "a.pem", b"")
        put(tmp_path / "b.key", make_pair().key)
        line = self.complaint(tmp_path)
        assert f"{tmp_path}/a.pem: " in line
        assert f"; {tmp_path}/b.key: " in line or f"; {tmp_path}/a.pem: " in line

    def test_an_empty_folder(self, tmp_path: Path) -> None:
        assert self.complaint(tmp_path).startswith(f"{tmp_path}: no certificate with a key in this folder")

    def test_a_folder_and_a_key(self, tmp_path: Path) -> None:
        key = put(tmp_path / "a.key", make_pair().key)
        assert self.complaint(tmp_path, key).startswith(f"{tmp_path}: a folder has its keys in it")

    def test_no_such_file(self, tmp_path: Path) -> None:
        assert self.complaint(tmp_path / "absent.pem") == f"{tmp_path}/absent.pem: no such file or directory"

    def test_a_folder_for_a_key(self, tmp_path: Path) -> None:
        cert = put(tmp_path / "a.crt", make_pair().certificate)
        assert self.complaint(cert, tmp_path) == f"{tmp_path}: is a directory"


class TestLayouts:
    def test_certbot(self, tmp_path: Path) -> None:
        def issue(number: int) -> Pem:
            made, issuer = make_pair("a.test"), make_pair(authority=True)
            archive = tmp_path / "archive" / "a.test"
            put(archive / f"cert{number}.pem", made.certificate)
            put(archive / f"chain{number}.pem", issuer.certificate)
            put(archive / f"fullchain{number}.pem", made.certificate + issuer.certificate)
            put(archive / f"privkey{number}.pem", made.key)
            return made

        def link(kind: str, number: int) -> None:
            path = live / f"{kind}.pem"
            path.unlink(missing_ok=True)
            path.symlink_to(f"../../archive/a.test/{kind}{number}.pem")

        live = tmp_path / "live" / "a.test"
        put(live / "README", b"This directory contains your keys and certificates.\n")
        put(tmp_path / "live" / "README", b"This directory contains your keys and certificates.\n")
        first = issue(1)
        for kind in ("cert", "chain", "fullchain", "privkey"):
            link(kind, 1)
        store = CertificateStore(str(tmp_path / "live"), hostname="a.test")
        tls = store.listener()
        assert store.warnings() == []
        assert serial(tls, "a.test") == first.serial
        second = issue(2)
        assert not store.changed()
        for kind in ("cert", "privkey", "chain"):
            link(kind, 2)
        assert store.changed()
        (problem,) = store.reload().problems
        assert problem.startswith(f"{live}/fullchain.pem: the key in {live}/privkey.pem does not belong")
        assert serial(tls, "a.test") == first.serial
        link("fullchain", 2)
        assert store.changed()
        assert store.reload().problems == ()
        assert serial(tls, "a.test") == second.serial

    def test_a_volume_of_kubernetes(self, tmp_path: Path) -> None:
        def write(version: str) -> Pem:
            made = make_pair("a.test")
            put(tmp_path / version / "tls.crt", made.certificate)
            put(tmp_path / version / "tls.key", made.key)
            (tmp_path / "..data_tmp").symlink_to(version)
            (tmp_path / "..data_tmp").replace(tmp_path / "..data")
            return made

        first = write("..2026_11_01")
        for name in ("tls.crt", "tls.key"):
            (tmp_path / name).symlink_to(f"..data/{name}")
        store = CertificateStore(str(tmp_path))
        tls = store.listener()
        assert serial(tls, "a.test") == first.serial
        second = write("..2026_11_02")
        assert store.changed()
        assert store.reload()
        assert serial(tls, "a.test") == second.serial


class TestForTheOperator:
    def test_what_expires(self, tmp_path: Path) -> None:
        made = {"a": make_pair("a.test", days=40), "b": make_pair("b.test", days=20), "c": make_pair("c.test", days=-1)}
        store = CertificateStore(folder_of(tmp_path, **made))
        within = datetime.timedelta(days=21)
        assert [one.names for one in store.expiring(within)] == [("c.test",), ("b.test",)]
        past, soon = store.warnings(within)
        assert past.startswith(f"{tmp_path}/c.pem: the certificate has expired, on 20")
        assert soon.startswith(f"{tmp_path}/b.pem: the certificate expires in 19 days, on 20")

    def test_the_time_is_given(self, tmp_path: Path) -> None:
        moment = datetime.datetime.now(datetime.UTC)
        store = CertificateStore(folder_of(tmp_path, a=make_pair("a.test")), now=lambda: moment)
        assert store.warnings() == []
        moment += datetime.timedelta(days=28, hours=12)
        assert store.warnings()[0].startswith(f"{tmp_path}/a.pem: the certificate expires in 1 day, on ")
        moment += datetime.timedelta(days=28)
        assert store.warnings()[0].startswith(f"{tmp_path}/a.pem: the certificate has expired, on ")

    def test_what_else_is_worth_a_word(self, tmp_path: Path) -> None:
        folder = folder_of(tmp_path, a=make_pair("a.test", since=1), b=make_pair())
        put(tmp_path / "c.crt", make_pair("c.test").certificate)
        lines = CertificateStore(folder, hostname="mx.test").warnings()
        assert len(lines) == 4
        assert lines[0].startswith(f"{tmp_path}/a.pem: the certificate is not valid before 20")
        assert lines[1].startswith(f"{tmp_path}/b.pem: the certificate has no host name in its subjectAltName")
        assert lines[2] == f"{tmp_path}: no certificate is for mx.test; {tmp_path}/a.pem is shown"
        assert lines[3] == f"{tmp_path}/c.crt: a certificate without a key, which is not used"

    def test_a_copy_of_one_that_is_used_is_not_worth_a_word(self, tmp_path: Path) -> None:
        made = make_pair("a.test")
        put(tmp_path / "copy.crt", made.certificate)
        assert CertificateStore(folder_of(tmp_path, a=made)).warnings() == []

    def test_a_description(self, tmp_path: Path) -> None:
        store = CertificateStore(folder_of(tmp_path, a=make_pair("a.test"), b=make_pair("b.test", "*.b.test")))
        lines = store.describe()
        until = {one.path: f"{one.not_after:%Y-%m-%d}" for one in store.certificates}
        assert lines == [
            f"2 certificates from {tmp_path}, read again when they change",
            f"Certificate of a.test (ECDSA, until {until[f'{tmp_path}/a.pem']}, {tmp_path}/a.pem)",
            f"Certificate of b.test, *.b.test (ECDSA, until {until[f'{tmp_path}/b.pem']}, {tmp_path}/b.pem)",
            f"Who asks for no name, or for another one, gets {tmp_path}/a.pem",
        ]

    def test_the_description_of_one(self, tmp_path: Path) -> None:
        path = put(tmp_path / "a.pem", make_pair("a.test").both)
        first, second = CertificateStore(str(path)).describe()
        assert first == f"1 certificate from {path}, read again when they change"
        assert second.startswith("Certificate of a.test (ECDSA, until ")

    def test_the_description_of_a_listener(self, tmp_path: Path) -> None:
        ca = put(tmp_path / "ca" / "ca.pem", Authority().pem)
        store = CertificateStore(folder_of(tmp_path, a=make_pair("a.test")))
        assert store.listener().policy.describe() == ["TLS 1.2 is the oldest that is spoken"]
        strict = store.listener(minimum_version="1.3", client_ca=str(ca), require_client_certificate=True)
        assert strict.policy.describe() == [
            "TLS 1.3 is the oldest that is spoken",
            f"Clients must show a certificate by an authority of {ca}",
        ]
        assert store.listener(client_ca=str(ca)).policy.describe()[1].startswith("Clients may show a certificate")
