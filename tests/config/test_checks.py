"""Check strings: what they make, and the one line that each mistake gets."""

import textwrap
from pathlib import Path

import pytest
from twisted.internet.task import Clock

from smtpfw import policies
from smtpfw.check import FunctionCheck
from smtpfw.config.checks import BUILT_IN, check_from_string, describe_check
from smtpfw.errors import ConfigError
from smtpfw.interfaces import ICheck
from tests.config.plans import mistakes
from tests.policies.fakes import connect, connection, mail

MODULE = """
    from zope.interface import implementer
    from smtpfw.check import Check, FunctionCheck
    from smtpfw.errors import SMTPError
    from smtpfw.interfaces import ICheck

    class NoStrangers(Check):
        def __init__(self, name="x", *, colour="red"):
            self.name, self.colour = name, colour
        def describe(self):
            return f"No strangers but {self.name}"

    class Undeclared:
        def connect(self, connection): pass

    @implementer(ICheck)
    class Half:
        def connect(self, connection): pass

    class Holder:
        check = NoStrangers("held")

    ready = NoStrangers("ready")
    number = 7

    def make(): return FunctionCheck(connect=print)
    def wrong(): return 7
    async def late(): return NoStrangers()
    def broken(): raise TypeError("inside")
    def refuses(): raise ValueError("not on Sundays")
"""


@pytest.fixture(autouse=True)
def _module(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    package = tmp_path / "checkcode"
    package.mkdir()
    (package / "__init__.py").write_text("")
    (package / "own.py").write_text(textwrap.dedent(MODULE))
    (package / "mistake.py").write_text("1 / 0\n")
    monkeypatch.syspath_prepend(str(tmp_path))


def make(text: str) -> ICheck:
    return check_from_string(text, Clock())


def _complaint(text: str) -> str:
    with pytest.raises(ConfigError) as caught:
        make(text)
    line = str(caught.value)
    assert "\n" not in line
    return line


BUILT = [
    ("require_tls", "MAIL needs TLS"),
    ("require_auth", "MAIL needs AUTH"),
    ("require_auth:except=10.0.0.0/8", "MAIL needs AUTH, except from 10.0.0.0/8"),
    (r"require_auth:except=10.0.0.0/8,\:\:1, unix", "MAIL needs AUTH, except from 10.0.0.0/8, ::1/128, unix"),
    ("sender_login", "Authenticated clients send under their own addresses only"),
    (
        "sender_login:domains=example.org,example.net",
        "Authenticated clients send under their own addresses only, "
        "names without a domain have theirs in example.org, example.net",
    ),
    ("networks:10.0.0.0/8:192.0.2.0/24", "Only clients from 10.0.0.0/8, 192.0.2.0/24 are served"),
    ("networks:10.0.0.0/8,192.0.2.0/24:unix", "Only clients from 10.0.0.0/8, 192.0.2.0/24, unix are served"),
    (r"networks:2001\:db8\:\:/32", "Only clients from 2001:db8::/32 are served"),
    (
        "networks:10.0.0.0/8:except_authenticated=yes",
        "Clients from elsewhere than 10.0.0.0/8 have to authenticate",
    ),
    (
        "rate:ip=30/m:net=200/h:user=100/h",
        "Messages: at most 30 a minute of one IPv4 address or IPv6 /64, "
        "200 an hour of one IPv4 /24 or IPv6 /64, 100 an hour of one user",
    ),
    (
        "rate:net=5/10s:count=connections:ipv4_prefix=16:ipv6_prefix=48:max_keys=10",
        "Connections: at most 5 in 10 s of one IPv4 /16 or IPv6 /48",
    ),
    (
        "concurrency:ip=10:net=20:user=5:ipv4_prefix=28:ipv6_prefix=56",
        "Connections at the same time: at most 10 of one IPv4 address or IPv6 /64, "
        "20 of one IPv4 /28 or IPv6 /56, 5 of one user",
    ),
    (
        "dnsbl:zen.example.org",
        "Clients that zen.example.org lists are refused when they connect; when DNS does not say within 5 s, they pass",
    ),
    (
        r"dnsbl:zen.example.org*2:bl.example.net/127.0.0.2-11,wl.example.org*-2:threshold=2:timeout=2500ms:unknown=refuse"
        r":at=rcpt:except=192.0.2.0/24,2001\:db8\:\:/32",
        "Clients with 2 or more of zen.example.org +2, bl.example.net +1, wl.example.org -2 are refused at RCPT; "
        "when DNS does not say within 2.5 s, they are put off; 192.0.2.0/24, 2001:db8::/32 are not asked for",
    ),
    (
        "reverse_dns",
        "Clients whose address has no name in DNS that leads back to it are refused when they connect; "
        "when DNS does not say within 5 s, they pass",
    ),
    (
        "reverse_dns:require=name:at=mail:unknown=refuse:timeout=3s:except=192.0.2.1",
        "Clients whose address has no name in DNS are refused at MAIL; when DNS does not say within 3 s, they are put "
        "off; 192.0.2.1/32 are not asked for",
    ),
    (
        "greylist",
        "Who is seen for the first time is told to come back in 300 s; what is known is kept in memory, until the "
        "process ends, and by each worker alone",
    ),
    (
        "greylist:file=/tmp/grey.db:delay=1m:window=1d:keep=30d:trust_after=0:max_entries=1000:except=192.0.2.0/24"
        ":unknown=refuse:ipv4_prefix=32:ipv6_prefix=48",
        "Who is seen for the first time is told to come back in 60 s; what is known is kept in /tmp/grey.db; "
        "192.0.2.0/24 need not wait",
    ),
    ("early_talkers", "The greeting waits 1 s, and whoever talks before it is refused"),
    ("early_talkers:delay=1500ms", "The greeting waits 1.5 s, and whoever talks before it is refused"),
    ("loop", "A message with more than 100 Received fields is refused as a loop"),
    ("loop:max=50", "A message with more than 50 Received fields is refused as a loop"),
]


@pytest.mark.parametrize(("text", "words"), BUILT)
def test_the_built_in_ones(text: str, words: str) -> None:
    check = make(text)
    assert ICheck.providedBy(check)
    assert describe_check(check) == words


def test_every_built_in_one_is_here_and_every_check_has_a_string() -> None:
    assert {text.partition(":")[0] for text, _ in BUILT} == set(BUILT_IN)
    classes = {getattr(policies, name) for name in policies.__all__} - {policies.Networks, policies.Rate}
    assert {built_in.make for built_in in BUILT_IN.values()} == classes


@pytest.mark.parametrize("prefix", BUILT_IN)
def test_the_usage_names_every_argument(prefix: str) -> None:
    usage = BUILT_IN[prefix].usage
    assert usage.startswith(prefix)
    assert all(
        f":{name}=" in usage for name in set(BUILT_IN[prefix].parameters or ()).difference(BUILT_IN[prefix].positional)
    )


def test_the_clock_is_that_of_the_reactor() -> None:
    clock = Clock()
    check = check_from_string("rate:ip=1/m", clock)
    assert mail(check, connection()) == ""
    assert mail(check, connection()).startswith("450 4.7.1")
    clock.advance(60)
    assert mail(check, connection()) == ""


def test_networks_are_understood() -> None:
    check = make(r"networks:10.0.0.0/8:2001\:db8\:\:/32")
    assert connect(check, connection("10.1.1.1")) == connect(check, connection("2001:db8::1")) == ""
    assert connect(check, connection("192.0.2.1")).startswith("554 5.7.1")


@pytest.mark.parametrize(
    ("text", "name", "colour"),
    [
        ("checkcode.own:NoStrangers", "x", "red"),
        (r"checkcode.own:NoStrangers:a\:b:colour=blue", "a:b", "blue"),
        ("checkcode.own:ready", "ready", "red"),
        ("checkcode.own:Holder.check", "held", "red"),
    ],
)
def test_one_of_your_own(text: str, name: str, colour: str) -> None:
    check = make(text)
    assert (check.name, check.colour) == (name, colour)  # type: ignore[attr-defined]
    assert describe_check(check) == f"No strangers but {name}"


def test_a_function_may_make_it() -> None:
    check = make("checkcode.own:make")
    assert isinstance(check, FunctionCheck)
    assert describe_check(check) == "FunctionCheck"


def test_a_module_of_one_file_needs_no_dot(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "onecheck.py").write_text("from smtpfw.check import Check\n\n\nclass Mine(Check):\n    pass\n")
    monkeypatch.syspath_prepend(tmp_path)
    assert describe_check(make("onecheck:Mine")) == "Mine"


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("", "unknown check '' (known are require_tls, require_auth"),
        ("rates:ip=1/m", "unknown check 'rates'; did you mean rate?"),
        ("require_tsl", "did you mean require_tls?"),
        ("ip=30/m", "unknown check ''"),
        ("loop:max=50:", "'' has no name before it; it is written loop[:max=N]"),
        ("loop:50", "'50' has no name before it; it is written loop[:max=N]"),
        ("loop:mx=50", "loop takes no mx=; did you mean max? (it is written loop[:max=N])"),
        ("loop:max=many", "max: 'many' is no number"),
        ("loop:max=0", "max_received: 0 is below 1"),
        ("loop:max=1:max=2", "max= is given twice"),
        ("loop:max=1\\", "a backslash at the end quotes nothing"),
        ("rate", "no rate is given; give one or more of ip, net, user; it is written rate["),
        ("rate:ip=30", "ip: '30' is no rate; write how many in which time: 5/s, 30/m"),
        ("rate:ip=0/m", "ip: '0/m' is no rate"),
        ("rate:ip=1/m:count=mail", "count: 'mail' is none of connections, messages, recipients"),
        ("rate:user=1/m:count=connections", "who it is is not known when it connects"),
        ("rate:clock=1", "rate takes no clock="),
        ("concurrency", "no limit is given"),
        ("concurrency:ip=0", "no limit is given"),
        ("early_talkers:delay=0", "delay: 0.0 is not above 0"),
        ("early_talkers:delay=soon", "delay: 'soon' is no time"),
        ("networks", "no network is given, so nobody could come in; it is written networks:NETWORK"),
        ("networks:10.0.0.0/40", "'10.0.0.0/40' is no network"),
        ("networks:10.0.0.1/8", "could be the network 10.0.0.0/8 or the address 10.0.0.1"),
        ("networks:10.0.0.0/8:except_authenticated=maybe", "'maybe' is neither yes nor no"),
        ("networks:2001:db8::/32", r"an IPv6 address takes a backslash before each colon: 2001\:db8\:\:/32"),
        ("require_auth:except=2001:db8::/32", "an IPv6 address takes a backslash before each colon"),
        ("require_auth:except=office", "'office' is no network"),
        ("dnsbl", "no list is given; write one as zen.spamhaus.org; it is written dnsbl:ZONE"),
        ("dnsbl:zen", "'zen' is no zone; write one as zen.spamhaus.org"),
        ("dnsbl:bl.test*x", "'bl.test*x': 'x' is no weight"),
        ("dnsbl:bl.test/127.0.0.300", "'127.0.0.300' are no answers"),
        ("dnsbl:bl.test:threshold=2", "all lists together weigh 1, so nobody could reach 2"),
        ("dnsbl:bl.test:at=data", "at: 'data' is none of connect, mail, rcpt"),
        ("dnsbl:bl.test:unknown=maybe", "unknown: 'maybe' is none of pass, refuse"),
        ("dnsbl:bl.test:except=2001:db8::/32", "an IPv6 address takes a backslash before each colon"),
        ("reverse_dns:require=both", "require: 'both' is none of name, confirmed"),
        ("reverse_dns:yes", "'yes' has no name before it"),
        ("greylist:/tmp/grey.db", "'/tmp/grey.db' has no name before it"),
        ("greylist:file=/nowhere/at/all.db", "file: there is no folder /nowhere/at"),
        ("greylist:delay=3d", "delay: 259200 s is not above 0 and below the window of 172800 s"),
        ("greylist:except=office", "'office' is no network"),
        ("absent_package.checks:Mine", "No module named 'absent_package'; --python-path DIR"),
        ("checkcode.mistake:Mine", "importing checkcode.mistake failed: ZeroDivisionError"),
        ("checkcode.own", "say which class or function: checkcode.own:Name"),
        ("checkcode.own:NoStranger", "checkcode.own has no NoStranger; did you mean NoStrangers?"),
        ("checkcode.own:NoStrangers:a:b", "it is written checkcode.own:NoStrangers(name='x', *, colour='red')"),
        ("checkcode.own:NoStrangers:size=1", "unexpected keyword argument 'size'"),
        ("checkcode.own:ready:x", "is a check already, and takes no arguments"),
        ("checkcode.own:number", "int is neither a class nor a function nor a check"),
        ("checkcode.own:wrong", "int is no check; subclass smtpfw.Check"),
        ("checkcode.own:late", "coroutine is no check"),
        ("checkcode.own:Undeclared", "Undeclared is no check"),
        ("checkcode.own:Half", "it can't be asked: Half has no hello(connection, name, extended)"),
        ("checkcode.own:broken", "TypeError: inside"),
        ("checkcode.own:refuses", "not on Sundays"),
    ],
)
def test_a_mistake_is_one_line(text: str, expected: str) -> None:
    line = _complaint(text)
    assert expected in line


def test_all_mistakes_are_told_at_once_and_each_names_its_option() -> None:
    assert mistakes("--backend", "discard", "--checks", "loop:mx=50", "--checks", "loop", "--checks", "rates") == [
        "--checks loop:mx=50: loop takes no mx=; did you mean max? (it is written loop[:max=N])",
        f"--checks rates: {_complaint('rates')}",
    ]


def test_the_hint_about_colons_is_for_ipv6_only() -> None:
    assert "backslash" not in _complaint("networks:office")
