"""What MAIL waits for: TLS, AUTH."""

from __future__ import annotations

import pytest

from smtpfw.policies import RequireAuth, RequireTLS
from tests.policies.fakes import connection, mail

AUTH_FIRST = "530 5.7.0 Authentication required"


def test_mail_needs_tls() -> None:
    assert mail(RequireTLS(), connection()) == "530 5.7.0 Must issue a STARTTLS command first"
    assert mail(RequireTLS(), connection(tls="TLSv1.3 TLS_AES_256_GCM_SHA384")) == ""


def test_mail_needs_auth() -> None:
    assert mail(RequireAuth(), connection()) == AUTH_FIRST
    assert mail(RequireAuth(), connection("")) == AUTH_FIRST
    assert mail(RequireAuth(), connection(identity="tim")) == ""


def test_except_from_some_networks() -> None:
    check = RequireAuth(["10.0.0.0/8", "unix"])
    assert mail(check, connection("10.0.0.1")) == mail(check, connection("")) == ""
    assert mail(check, connection("192.0.2.1")) == AUTH_FIRST


def test_what_is_no_network() -> None:
    with pytest.raises(ValueError, match="'localhost' is no network"):
        RequireAuth("localhost")


def test_words() -> None:
    assert RequireTLS().describe() == "MAIL needs TLS"
    assert repr(RequireTLS()) == "RequireTLS()"
    assert RequireAuth().describe() == "MAIL needs AUTH"
    assert RequireAuth("10.0.0.0/8").describe() == "MAIL needs AUTH, except from 10.0.0.0/8"
    assert repr(RequireAuth("10.0.0.0/8")) == "RequireAuth('10.0.0.0/8')"
