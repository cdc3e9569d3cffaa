"""Certificates from one configuration to the next."""

from __future__ import annotations

from pathlib import Path

import pytest

from smtpfw.config.certificates import Stores
from smtpfw.errors import ConfigError
from tests.certificates import certificate_pem, key_pem, make_key, write_pair

NAME = "localhost"


@pytest.fixture(autouse=True)
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    write_pair(tmp_path).rename("a.pem")
    write_pair(tmp_path).rename("b.pem")
    return tmp_path


def test_one_plan_reads_each_once() -> None:
    stores = Stores().begin()
    assert stores.of("a.pem", NAME) is stores.of("a.pem", NAME)
    assert stores.of("a.pem", NAME) is not stores.of("b.pem", NAME)
    # Who asks for no name gets another certificate, perhaps.
    assert stores.of("a.pem", NAME) is not stores.of("a.pem", "mx.example.org")
    assert len(stores.used) == 3


def test_the_next_one_has_the_same_and_reads_them_again() -> None:
    stores = Stores()
    first = stores.begin()
    store = first.of("a.pem", NAME)
    before = store.certificates[0]
    stores.keep(first)
    key = make_key()
    Path("a.pem").write_bytes(certificate_pem(key) + key_pem(key))
    assert stores.begin().of("a.pem", NAME) is store
    assert store.certificates[0] is not before


def test_a_bad_new_one_keeps_the_old() -> None:
    stores = Stores()
    first = stores.begin()
    store = first.of("a.pem", NAME)
    before = store.certificates
    stores.keep(first)
    Path("a.pem").write_text("nonsense")
    assert stores.begin().of("a.pem", NAME) is store
    assert store.certificates == before
    with pytest.raises(ConfigError, match=r"^a\.pem: "):
        Stores().begin().of("a.pem", NAME)


def test_a_plan_that_is_not_served_changes_nothing() -> None:
    stores = Stores()
    first = stores.begin()
    store = first.of("a.pem", NAME)
    stores.keep(first)
    stores.begin().of("b.pem", NAME)
    assert stores.begin().of("a.pem", NAME) is store


def test_what_no_plan_names_any_more_is_forgotten() -> None:
    stores = Stores()
    first = stores.begin()
    store = first.of("a.pem", NAME)
    stores.keep(first)
    second = stores.begin()
    second.of("b.pem", NAME)
    stores.keep(second)
    assert stores.begin().of("a.pem", NAME) is not store


@pytest.mark.parametrize("text", ["a:b:c", "a.pem:", ":b", "", "a::b"])
def test_what_is_no_setting(text: str) -> None:
    with pytest.raises(ConfigError, match="write CERT, CERT:KEY or a folder"):
        Stores().begin().of(text, NAME)


def test_a_colon_in_a_path() -> None:
    Path("a.pem").rename("a:b.pem")
    assert Stores().begin().of(r"a\:b.pem", NAME)
