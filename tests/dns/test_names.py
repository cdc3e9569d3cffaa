"""Names: of hosts, and of all that DNS can be asked for."""

from __future__ import annotations

import pytest

from smtpfw.dns.names import can_be_asked, is_name


@pytest.mark.parametrize("text", ["a", "a.b", "_x.b-c.d", "1.b", "a" * 63 + ".b", ".".join(["x" * 62] * 4)])
def test_names(text: str) -> None:
    assert is_name(text) and can_be_asked(text)


@pytest.mark.parametrize("text", ["-a", "a b", "a\n", "a/b", "A", "192.0.2.1", "0x7f.1", "1", "a.0x"])
def test_no_names_of_hosts(text: str) -> None:
    assert not is_name(text)
    assert can_be_asked(text)


@pytest.mark.parametrize("text", ["", ".", "a.", ".a", "a..b", "é.b", "a" * 64, "a." * 127])
def test_no_names(text: str) -> None:
    assert not is_name(text) and not can_be_asked(text)
