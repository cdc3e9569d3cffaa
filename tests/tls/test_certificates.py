"""Which certificate answers to which name; compared with what verifies a name on the client's side."""

from __future__ import annotations

import datetime
from itertools import count
from pathlib import Path

import pytest
from cryptography.hazmat.primitives.asymmetric import rsa
from cryptography.hazmat.primitives.asymmetric.rsa import RSAPrivateNumbers
from hypothesis import given
from hypothesis import strategies as st
from service_identity import VerificationError
from service_identity.hazmat import DNS_ID, DNSPattern, verify_service_identity

from smtpfw.errors import ConfigError
from smtpfw.tls.certificates import NameTable, ServerCertificate, read_certificate
from tests.certificates import key_pem
from tests.tls.pairs import RSA_KEY, make_pair, put

NOW = datetime.datetime(2030, 1, 1, tzinfo=datetime.UTC)


def certificate(path: str, *names: str, kind: str = "ECDSA", days: int = 30, since: int = -60) -> ServerCertificate:
    def day(number: int) -> datetime.datetime:
        return NOW + datetime.timedelta(days=number)

    return ServerCertificate(path, path, names, kind, day(since), day(days), b"", {})


def found(table: NameTable, name: bytes | None) -> list[str]:
    return [one.path for one in table.find(name)]


@pytest.mark.parametrize(
    ("name", "path"),
    [
        (b"mx.example.org", "mx"),
        (b"MX.Example.ORG", "mx"),
        (b"mx.example.org.", "mx"),
        (b"a.example.org", "wild"),
        (b"a.MX.example.org", "default"),
        (b"a.b.example.org", "default"),
        (b"example.org", "default"),
        (b".example.org", "default"),
        (b"*.example.org", "wild"),
        (b"org", "default"),
        (b".", "default"),
        (b"", "default"),
        (b"m\xff", "default"),
        ("m\u212a".encode(), "default"),
        (None, "default"),
    ],
)
def test_a_name(name: bytes | None, path: str) -> None:
    table = NameTable(
        [
            certificate("mx", "mx.example.org"),
            certificate("wild", "*.example.org"),
            certificate("default", "a.default.test"),
        ],
        moment=NOW,
    )
    assert found(table, name) == [path]


@pytest.mark.parametrize(
    ("hostname", "path", "own"),
    [
        ("mx.example.org", "mx", True),
        ("MX.example.org.", "mx", True),
        ("a.example.net", "wild", True),
        ("elsewhere.test", "aaa", False),
        ("", "aaa", False),
    ],
)
def test_the_default(hostname: str, path: str, own: bool) -> None:
    certificates = [
        certificate("wild", "*.example.net"),
        certificate("mx", "mx.example.org"),
        certificate("aaa", "a.test"),
    ]
    table = NameTable(certificates, hostname, NOW)
    assert found(table, None) == [path]
    assert table.has_own is own


def test_of_several_for_a_name_the_longest_that_is_valid_today() -> None:
    certificates = [
        certificate("old", "a.test", days=-1),
        certificate("this", "a.test", days=30),
        certificate("shorter", "a.test", days=20),
        certificate("future", "a.test", since=1, days=90),
    ]
    for turned in (certificates, certificates[::-1]):
        assert found(NameTable(turned, moment=NOW), b"a.test") == ["this"]
    assert found(NameTable(certificates[:1], moment=NOW), b"a.test") == ["old"]


def test_one_of_each_kind_of_key() -> None:
    both = [certificate("1", "a.test"), certificate("2", "a.test", "b.test", kind="RSA")]
    table = NameTable(both, moment=NOW)
    assert found(table, b"a.test") == ["1", "2"]
    assert found(table, b"b.test") == ["2"]
    assert found(table, None) == ["1", "2"]


def test_a_whole_name_before_a_wildcard_of_another_kind() -> None:
    table = NameTable([certificate("1", "a.b.test"), certificate("2", "*.b.test", kind="RSA")], moment=NOW)
    assert found(table, b"a.b.test") == ["1"]


def test_a_certificate_without_a_name_can_be_the_default_only() -> None:
    table = NameTable([certificate("1"), certificate("2", "a.test")], moment=NOW)
    assert found(table, b"a.test") == ["2"]
    assert found(table, None) == ["1"]


LABELS = st.sampled_from(["a", "b", "mx", "x-1"])
HOSTS = st.lists(LABELS, min_size=3, max_size=5).map(".".join)
PATTERNS = HOSTS | HOSTS.map(lambda name: f"*.{name}")


def is_for(pattern: str, host: str) -> bool:
    try:
        verify_service_identity([DNSPattern.from_bytes(pattern.encode())], [DNS_ID(host)], [])
    except VerificationError:
        return False
    return True


@given(st.lists(st.lists(PATTERNS, min_size=1, max_size=3), min_size=1, max_size=5), HOSTS)
def test_whoever_can_be_shown_a_certificate_that_verifies_is(names: list[list[str]], host: str) -> None:
    numbers = count()
    table = NameTable([certificate(str(next(numbers)), *of_one) for of_one in names], moment=NOW)
    shown = table.find(host.encode())
    good = [any(is_for(name, host) for name in one.names) for one in table.certificates]
    if any(good):
        assert all(any(is_for(name, host) for name in one.names) for one in shown)
    else:
        assert shown == table.default


@given(st.lists(st.lists(PATTERNS, max_size=3), min_size=1, max_size=4), st.none() | st.binary(max_size=20))
def test_any_octets_find_something(names: list[list[str]], name: bytes | None) -> None:
    numbers = count()
    table = NameTable([certificate(str(next(numbers)), *of_one) for of_one in names], moment=NOW)
    assert table.find(name) in table.groups()


def test_what_is_read(tmp_path: Path) -> None:
    made = make_pair("MX.example.org", "*.example.org", "mx.example.org", key=RSA_KEY, days=5)
    path = str(put(tmp_path / "mx.pem", made.both))
    read = read_certificate(path)
    assert (read.path, read.key_path, read.kind) == (path, path, "RSA")
    assert read.names == ("mx.example.org", "*.example.org")
    assert 4 < (read.not_after - datetime.datetime.now(datetime.UTC)).total_seconds() / 86400 < 5.1
    assert str(read) == f"mx.example.org, *.example.org (RSA, until {read.not_after:%Y-%m-%d}, {path})"


def test_what_has_not_changed_is_not_read_again(tmp_path: Path) -> None:
    made = make_pair("a.test")
    cert, key = put(tmp_path / "a.crt", made.certificate), put(tmp_path / "a.key", made.key)
    read = read_certificate(str(cert), str(key))
    assert read_certificate(str(cert), str(key), read) is read
    both = put(tmp_path / "a.crt", made.both)
    assert read_certificate(str(both), None, read) is not read
    put(key, made.key + b"\n")
    assert read_certificate(str(cert), str(key), read) is not read


def test_a_key_is_not_shown(tmp_path: Path) -> None:
    made = make_pair("a.test")
    read = read_certificate(str(put(tmp_path / "a.pem", made.both)))
    for text in (repr(read), str(read)):
        assert "PRIVATE" not in text
        assert "PrivateKey" not in text


def test_a_damaged_rsa_key(tmp_path: Path) -> None:
    made = make_pair("a.test", key=RSA_KEY)
    good = RSA_KEY.private_numbers()
    damaged = RSAPrivateNumbers(
        good.p, good.q, good.d ^ 2, good.dmp1 ^ 2, good.dmq1 ^ 2, good.iqmp, good.public_numbers
    ).private_key(unsafe_skip_rsa_key_validation=True)
    path = put(tmp_path / "a.pem", made.certificate + key_pem(damaged))
    with pytest.raises(ConfigError, match="the private key can't be read"):
        read_certificate(str(path))


def test_a_key_that_is_too_short(tmp_path: Path) -> None:
    made = make_pair("a.test", key=rsa.generate_private_key(65537, 1024))
    path = put(tmp_path / "a.pem", made.both)
    with pytest.raises(ConfigError, match=f"^{path}: OpenSSL takes no such certificate or key .*key too small"):
        read_certificate(str(path))


def test_a_chain_that_ends_in_the_middle(tmp_path: Path) -> None:
    made, issuer = make_pair("a.test"), make_pair()
    path = put(tmp_path / "a.pem", made.both + issuer.certificate[:200])
    with pytest.raises(ConfigError, match=f"^{path}: the last certificate in this file has no end"):
        read_certificate(str(path))


def test_a_certificate_that_no_handshake_could_carry(tmp_path: Path) -> None:
    path = tmp_path / "many.pem"
    path.write_bytes(make_pair(*(f"n{number}.example.org" for number in range(2000))).both)
    with pytest.raises(ConfigError, match=r"many\.pem: certificate and chain have \d+ octets, and no more than 30000"):
        read_certificate(str(path))
