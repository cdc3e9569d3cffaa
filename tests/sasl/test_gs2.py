"""The header in front of SCRAM's and OAUTHBEARER's messages."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from smtpfw.errors import AuthMalformed
from smtpfw.sasl.gs2 import decode_saslname, encode_saslname, format_gs2_header, parse_gs2_header

#: message, flag, binding, identity; what is read is what is written again, up to the rest.
HEADERS = [
    (b"n,,", "n", "", ""),
    (b"y,,", "y", "", ""),
    (b"p=tls-exporter,,", "p", "tls-exporter", ""),
    (b"n,a=bob,", "n", "", "bob"),
    (b"y,a=b=2Co=3Db,", "y", "", "b,o=b"),
    (b"p=tls-server-end-point,a==3D2C,", "p", "tls-server-end-point", "=2C"),
    ("n,a=bücher,".encode(), "n", "", "bücher"),
]


@pytest.mark.parametrize(("octets", "flag", "binding", "identity"), HEADERS)
@pytest.mark.parametrize("rest", [b"", b"n=user,r=x", b"\x01auth=\x01\x01"])
def test_headers(octets: bytes, flag: str, binding: str, identity: str, rest: bytes) -> None:
    header = parse_gs2_header(octets + rest)
    assert (header.flag, header.binding, header.octets) == (flag, binding, octets)
    assert header.authorization_identity.decode() == identity
    assert format_gs2_header(binding, identity, flag=flag) == octets


@pytest.mark.parametrize(
    "octets",
    [
        b"", b"n", b"n,", b",,", b"x,,", b"N,,", b"F,n,,", b"p,,", b"p=,,", b"p=tls_x,,", b"n=1,,", b"n,a=,", b"n,a,",
        b"n,b=x,", b"n,a=x", b"n,a=\0,", b"n,a==,", b"n,a==2c,", b"n,a==3d,", b"n,a==2,", b" n,,",
    ],
)  # fmt: skip
def test_no_headers(octets: bytes) -> None:
    with pytest.raises(AuthMalformed):
        parse_gs2_header(octets)


@given(st.text(st.characters(exclude_categories=["Cs"], exclude_characters="\0"), min_size=1))
def test_any_name(name: str) -> None:
    assert decode_saslname(encode_saslname(name)).decode() == name
    header = parse_gs2_header(format_gs2_header("", name))
    assert header.authorization_identity.decode() == name
