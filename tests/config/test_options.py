"""The table of settings, and the command line made of it."""

import dataclasses
from pathlib import Path

import pytest
from twisted.python import usage

import smtpfw
import twisted
from smtpfw.client import own_name
from smtpfw.config.options import ServerOptions
from smtpfw.config.settings import BY_NAME, FLAG, HOSTNAME, SERVER_NAMES, Setting, default_hostname
from smtpfw.wire.config import ServerConfig
from smtpfw.wire.profiles import LENIENT, STRICT


def parse(*words: str) -> ServerOptions:
    options = ServerOptions()
    options.parseOptions(list(words))
    return options


def complaint(*words: str) -> str:
    with pytest.raises(usage.UsageError) as caught:
        parse(*words)
    text = str(caught.value)
    assert "\n" not in text
    return text


def test_every_field_of_the_server_can_be_set_but_its_software_name() -> None:
    names = {field.name for field in dataclasses.fields(ServerConfig)}
    assert names - set(SERVER_NAMES) == {"software"}


def test_without_options_all_defaults_are_those_of_the_server() -> None:
    options = parse()
    config = ServerConfig(hostname="mx.example.org")
    for name in SERVER_NAMES:
        if name != "hostname":
            assert options[name] == getattr(config, name)
    assert options["listen"] == ("tcp:2525:interface=127.0.0.1",)
    assert options["backend"] == "maildir:./Maildir"


@pytest.mark.parametrize("setting", [one for one in BY_NAME.values() if one.kind not in (FLAG, HOSTNAME)])
def test_a_default_is_written_as_it_would_be_read(setting: Setting) -> None:
    if setting.default is None or setting.repeatable:
        return
    assert setting.kind.parse(setting.kind.format(setting.default)) == setting.default


@pytest.mark.parametrize(
    ("words", "name", "value"),
    [
        (["--max-message-bytes", "10M"], "max_message_bytes", 10 * 1024 * 1024),
        (["--max-recipients=5"], "max_recipients", 5),
        (["--command-timeout", "5m"], "command_timeout", 300.0),
        (["--min-data-rate", "1K"], "min_data_rate", 1024.0),
        (["--grace", "1m"], "grace", 60.0),
        (["--profile", "strict"], "profile", STRICT),
        (["--profile=lenient"], "profile", LENIENT),
        (["--require-tls"], "require_tls", True),
        (["--hostname", "mx.example.org"], "hostname", "mx.example.org"),
        (["--hostname", "[192.0.2.1]"], "hostname", "[192.0.2.1]"),
        (["--listen", "tcp:25"], "listen", ("tcp:25",)),
        (["--listen", "tcp:25", "--listen", "smtps:465"], "listen", ("tcp:25", "smtps:465")),
        (["--python-path", "a", "--python-path", "b"], "python_path", ("a", "b")),
    ],
)
def test_values_are_parsed(words: list[str], name: str, value: object) -> None:
    assert parse(*words)[name] == value


@pytest.mark.parametrize(
    ("words", "expected"),
    [
        (["--max-message-bytes", "ten"], "--max-message-bytes: 'ten' is no size; write a number of octets"),
        (["--command-timeout", "5 minutes"], "--command-timeout: '5 minutes' is no time"),
        (["--profile", "strikt"], "--profile: 'strikt' is none of strict, default, lenient; did you mean strict?"),
        (["--hostname", "mx example"], "--hostname: 'mx example' is no host name"),
        (["--hostname", "mx\r\n250 x"], "--hostname: "),
        (["--backend", ""], "--backend: it is empty"),
        (["--backend", "memory", "--backend", "discard"], "--backend: it is given twice"),
        (["--max-recipient", "x"], "--max-recipient"),
        (["--max-mesage-bytes", "1"], "did you mean --max-message-bytes?"),
        (["--zzzzzz"], "--help lists all"),
        (["tcp:25"], "'tcp:25' is no option"),
    ],
)
def test_a_mistake_is_one_line_that_names_the_option(words: list[str], expected: str) -> None:
    assert expected in complaint(*words)


def test_the_help_names_every_option_with_its_default(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as caught:
        parse("--help")
    assert caught.value.code == 0
    text = capsys.readouterr().out
    for setting in BY_NAME.values():
        assert f"--{setting.option}" in text
    for part in ("[50M]", "[5m]", "[maildir:./Maildir]", "[0, no limit]", "Limits:", "Examples:"):
        assert part in text
    assert text.count("--version") == 1
    assert max(map(len, text.splitlines())) <= 120


def test_the_version(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as caught:
        parse("--version")
    assert caught.value.code == 0
    assert capsys.readouterr().out == f"smtpfw {smtpfw.__version__}, Twisted {twisted.__version__}\n"


@pytest.mark.parametrize(
    ("full", "short", "expected"),
    [("mx.example.org", "mx", "mx.example.org"), ("localhost", "mx", "mx"), ("a!b.c", "mx", "mx")],
)
def test_the_default_hostname(
    full: str, short: str, expected: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    hosts = tmp_path / "hosts"
    hosts.write_text(f"127.0.1.1 {full} {short}\n")
    monkeypatch.setattr("smtpfw.client.own_name._HOSTS", hosts)
    monkeypatch.setattr("smtpfw.client.own_name.full_name", own_name.full_name.__wrapped__)
    monkeypatch.setattr("socket.gethostname", lambda: short)
    # A name server that is silent holds up nothing.
    monkeypatch.setattr("socket.getfqdn", lambda: pytest.fail("DNS was asked"))
    assert default_hostname() == expected
