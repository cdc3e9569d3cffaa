"""Whom a client's certificate stands for."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from cryptography import x509
from cryptography.x509.oid import NameOID
from zope.interface import implementer

from smtpfw.errors import AuthFailed, AuthUnavailable
from smtpfw.sasl import EXTERNAL, CertificateChecker, IAuthorizer, SASLContext, certificate_names
from smtpfw.sasl.users import UsersFile, make_secret
from tests.certificates import Authority
from tests.sasl.helpers import refusal_of, step

AUTHORITY = Authority()
CN, EMAIL = NameOID.COMMON_NAME, NameOID.EMAIL_ADDRESS


def certificate(*subject: Any, names: Any = ()) -> x509.Certificate:
    return x509.load_pem_x509_certificate(AUTHORITY.issue(*subject, names=names))


def mail(*addresses: str) -> list[x509.GeneralName]:
    return [x509.RFC822Name(address) for address in addresses]


@pytest.mark.parametrize(
    ("subject", "alternatives", "names"),
    [
        (((CN, "tim"),), (), ("tim",)),
        (((CN, "Tim Test"), (EMAIL, "tim@example.org")), (), ("tim@example.org",)),
        (((CN, "root"), (EMAIL, "root@example.org")), mail("tim@example.org"), ("tim@example.org",)),
        ((), mail("tim@example.org", "t@example.org", "tim@example.org"), ("tim@example.org", "t@example.org")),
        # Names of another kind are no names of ours.
        (((CN, "tim"),), [x509.DNSName("root.example.org"), x509.DNSName("root")], ("tim",)),
        ((), [x509.DNSName("root")], ()),
        ((), (), ()),
        # SASLprep: a name that it can't prepare, or makes another one of, is nobody's. Accents have two spellings.
        (((CN, "b\u0075\u0308cher"),), (), ("b\u00fccher",)),
        (((CN, "\u2168"),), (), ()),
        (((CN, "\uff54im"),), (), ()),
        (((CN, "tim\0"),), (), ()),
        (((CN, "ti\u202em"),), (), ()),
        (((CN, "\u00ad"),), (), ()),
        # One that is spoilt does not bring up the next kind.
        (((CN, "root"), (EMAIL, "tim\u202e")), (), ()),
    ],
)
def test_names(subject: Any, alternatives: Any, names: tuple[str, ...]) -> None:
    assert certificate_names(certificate(*subject, names=alternatives)) == names


def test_a_certificate_that_can_not_be_read() -> None:
    class Broken:
        @property
        def extensions(self) -> Any:
            raise ValueError("error parsing asn1 value")

    assert certificate_names(Broken()) == ()  # type: ignore[arg-type]


def log_in(checker: Any, shown: x509.Certificate, authorization_identity: str = "") -> str:
    context = SASLContext(tls=True, peer_certificate=shown)
    server = EXTERNAL.make_server(checker, context)
    assert step(server, authorization_identity.encode()) == (None, True)
    return server.identity


def refused(checker: Any, shown: x509.Certificate, authorization_identity: str = "") -> Any:
    context = SASLContext(tls=True, peer_certificate=shown)
    return refusal_of(EXTERNAL.make_server(checker, context), authorization_identity.encode())


TIM = certificate(names=mail("tim@example.org", "t@example.org"))


class TestChecker:
    def test_the_first_name_is_the_identity(self) -> None:
        assert log_in(CertificateChecker(), TIM) == "tim@example.org"

    @pytest.mark.parametrize("name", ["tim@example.org", "t@example.org"])
    def test_any_of_the_names_can_be_asked_for(self, name: str) -> None:
        assert log_in(CertificateChecker(), TIM, name) == name

    @pytest.mark.parametrize("name", ["ursel@example.org", "tim", "Tim@example.org", "tim@example.org "])
    def test_others_can_not(self, name: str) -> None:
        assert type(refused(CertificateChecker(), TIM, name)) is AuthFailed

    def test_a_certificate_without_a_name(self) -> None:
        assert type(refused(CertificateChecker(), certificate())) is AuthFailed
        assert type(refused(CertificateChecker(), certificate(), "tim")) is AuthFailed

    def test_users_only(self) -> None:
        checker = CertificateChecker({"t@example.org"}.__contains__)
        assert log_in(checker, TIM) == "t@example.org"
        assert type(refused(checker, TIM, "tim@example.org")) is AuthFailed
        assert type(refused(checker, certificate((CN, "root")))) is AuthFailed

    def test_an_authorizer_decides(self) -> None:
        @implementer(IAuthorizer)
        class Representing(CertificateChecker):
            async def authorize(self, username: str, authorization_identity: str) -> None:
                if (username, authorization_identity) != ("tim@example.org", "ursel@example.org"):
                    raise AuthFailed

        assert log_in(Representing(), TIM, "ursel@example.org") == "ursel@example.org"
        assert log_in(Representing(), TIM, "t@example.org") == "t@example.org"
        assert type(refused(Representing(), TIM, "root@example.org")) is AuthFailed

    def test_an_authorizer_out_of_order(self) -> None:
        @implementer(IAuthorizer)
        class Broken(CertificateChecker):
            def authorize(self, username: str, authorization_identity: str) -> None:
                raise OSError(authorization_identity)

        error = refused(Broken(), TIM, "ursel@example.org")
        assert type(error) is AuthUnavailable
        assert "ursel" not in f"{error} {error.__cause__}"


class TestUsersFile:
    def test_a_name_in_the_file(self, tmp_path: Path) -> None:
        path = tmp_path / "users"
        path.write_text(f"t@example.org:{make_secret('secret', 'scram-sha-256')}\n")
        users = UsersFile(path)
        assert log_in(users, TIM) == "t@example.org"
        assert type(refused(users, TIM, "tim@example.org")) is AuthFailed
        assert type(refused(users, certificate((CN, "root")))) is AuthFailed

    def test_who_is_taken_out_can_not_come_back(self, tmp_path: Path) -> None:
        path = tmp_path / "users"
        path.write_text(f"t@example.org:{make_secret('secret', 'scram-sha-256')}\n")
        users = UsersFile(path)
        path.write_text("")
        assert type(refused(users, TIM)) is AuthFailed
