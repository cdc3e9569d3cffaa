"""Who gets a name: built in, plugins of Twisted's, entry points, Python names; quoting; what each mistake says."""

from __future__ import annotations

import re
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from twisted.internet.task import Clock
from twisted.logger import capturedLogs

import twisted.plugins
from smtpfw.backends.memory import MemoryBackend
from smtpfw.config.arguments import read, read_string, read_table
from smtpfw.config.auth import checker_from_string
from smtpfw.config.backends import BACKENDS, backend_from_string, backend_from_table
from smtpfw.config.checks import check_from_string
from smtpfw.config.extensions import extension_from_string, extensions_of
from smtpfw.config.listing import LISTINGS, list_installed
from smtpfw.config.places import Place, Problems
from smtpfw.config.strings import parse_description, quote
from smtpfw.config.tree import Text
from smtpfw.errors import ConfigError
from smtpfw.extensions import STANDARD
from smtpfw.plugins import KINDS, Argument, BackendPlugin
from smtpfw.sasl.checkers import FunctionChecker
from smtpfw.session import SessionBackend
from tests.config.plans import mistakes, parsed, plan_of

CODE = """
from smtpfw import Check, Session
from smtpfw.backends.memory import MemoryBackend
from smtpfw.plugins import *
from smtpfw.sasl import PLAIN, IPasswordChecker, Mechanism
from smtpfw.wire.dialect import Extension


class Inbox(Session):
    \"\"\"Takes mail.

    And more.
    \"\"\"


class Box(MemoryBackend):
    def __init__(self, colour="none", *, via=(), pair=()):
        super().__init__()
        self.colour, self.via, self.pair = colour, via, pair


class Slow(Check):
    def __init__(self, clock, delay=1.0):
        self.clock, self.delay = clock, delay


class Users:
    def __init__(self, secret=""):
        self.secret = secret
    def __call__(self, name, password):
        return password == self.secret


class Word(Extension):
    keyword = "X-WORD"
    needs = ("DSN",)


class Rude(Extension):
    keyword = "X-RUDE"
    needs = ("X-ABSENT",)


word = Word()
number = 7
def check(name, password): return True
def no_checker(): return None

BOX = BackendPlugin("box", Box, parameters={"colour": "text"}, positional=("colour",))
OTHER = BackendPlugin("box", Box)
NAME = {"hello_name": Argument("text", into="colour")}
HOPS = BackendPlugin("hops", "theircode:Box", parameters=NAME, next_hops="via")
SLOW = CheckPlugin("slow", Slow, parameters={"delay": "duration"}, timed=True)
USERS = AuthPlugin("users", Users, parameters={"password": Argument("secret", into="secret")})
RAW = AuthPlugin("rawusers", Users, raw=True)
NOBODY = AuthPlugin("nobody", no_checker)
GREEN = ExtensionPlugin("X-WORD", Word)
"""


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """A folder of ``sys.path`` with ``theircode.py``; modules of its ``twisted/plugins`` are found, and metadata."""
    (tmp_path / "theircode.py").write_text(CODE)
    plugins = tmp_path / "twisted" / "plugins"
    plugins.mkdir(parents=True)
    monkeypatch.syspath_prepend(tmp_path)
    monkeypatch.setattr(twisted.plugins, "__path__", [*twisted.plugins.__path__, str(plugins)])
    before = set(sys.modules)
    yield tmp_path
    for name in set(sys.modules) - before:
        if name == "theircode" or name.startswith("twisted.plugins."):
            del sys.modules[name]


def plug(folder: Path, module: str, code: str) -> None:
    (folder / "twisted" / "plugins" / f"{module}.py").write_text(f"from smtpfw.plugins import *\n{code}\n")


def install(folder: Path, group: str, points: str, distribution: str = "theirs") -> None:
    info = folder / f"{distribution}-1.0.dist-info"
    info.mkdir()
    (info / "METADATA").write_text(f"Metadata-Version: 2.1\nName: {distribution}\nVersion: 1.0\n")
    (info / "entry_points.txt").write_text(f"[smtpfw.{group}]\n{points}\n")


def complaint(make: Callable[[str], Any], text: str) -> str:
    with pytest.raises(ConfigError) as caught:
        make(text)
    line = str(caught.value)
    assert "\n" not in line
    return line


class TestOrder:
    def test_built_in_before_all(self, folder: Path) -> None:
        plug(folder, "taker", 'memory = BackendPlugin("memory", "theircode:Box")')
        install(folder, "backends", "memory = theircode:Box")
        assert type(backend_from_string("memory")) is MemoryBackend
        row = list_installed("backends").partition("  memory[")[2].partition("\n\n")[0]
        taker = folder / "twisted" / "plugins" / "taker.py"
        assert f"from: built in\n      hides: {taker}\n      hides: theirs 1.0, entry point memory = " in row

    def test_plugins_of_twisted_before_entry_points(self, folder: Path) -> None:
        plug(folder, "first", 'x = BackendPlugin("box", "theircode:Box", parameters={"colour": "text"})')
        install(folder, "backends", "box = theircode:Inbox")
        assert backend_from_string("box:colour=red").colour == "red"  # type: ignore[attr-defined]

    def test_entry_points_before_modules(self, folder: Path) -> None:
        (folder / "box.py").write_text("from smtpfw import Session\nclass Inbox(Session): pass\n")
        assert isinstance(backend_from_string("box:Inbox"), SessionBackend)
        install(folder, "backends", "box = theircode:BOX")
        assert backend_from_string("box:Inbox").colour == "Inbox"  # type: ignore[attr-defined]

    def test_with_a_dot_it_is_a_python_name(self, folder: Path) -> None:
        (folder / "their").mkdir()
        (folder / "their" / "code.py").write_text("from theircode import Box\n")
        install(folder, "backends", "their.code = theircode:Inbox")
        assert type(backend_from_string("their.code:Box")).__name__ == "Box"

    def test_two_in_one_place_are_two_too_many(self, folder: Path) -> None:
        install(folder, "backends", "box = theircode:BOX", "one")
        install(folder, "backends", "box = theircode:OTHER", "two")
        line = complaint(backend_from_string, "box")
        assert line == (
            "the backend box is offered by one 1.0, entry point box = theircode:BOX and by two 1.0, entry point "
            "box = theircode:OTHER; remove one of them"
        ) or line.startswith("the backend box is offered by two 1.0")
        assert line in list_installed("backends")
        assert type(backend_from_string("discard")).__name__ == "DiscardBackend"

    def test_the_same_in_two_packages_is_one(self, folder: Path) -> None:
        install(folder, "backends", "box = theircode:BOX", "one")
        install(folder, "backends", "box = theircode:BOX", "two")
        assert backend_from_string("box:red").colour == "red"  # type: ignore[attr-defined]

    def test_a_module_that_imports_a_plugin_offers_it_no_second_time(self, folder: Path) -> None:
        plug(folder, "first", "from theircode import BOX")
        plug(folder, "second", "from theircode import BOX")
        assert backend_from_string("box:red").colour == "red"  # type: ignore[attr-defined]


class TestBroken:
    def test_a_module_of_twisted(self, folder: Path) -> None:
        plug(folder, "good", "from theircode import BOX")
        plug(folder, "bad", "1 / 0")
        with capturedLogs() as events:
            assert backend_from_string("box:red")
        assert any("ZeroDivisionError" in event.get("log_text", "") for event in events)

    def test_a_plugin_that_is_no_longer_there(self, folder: Path) -> None:
        plug(folder, "good", "from theircode import BOX")
        assert backend_from_string("box")
        (folder / "theircode.py").write_text("1 / 0")
        del sys.modules["theircode"], sys.modules["twisted.plugins.good"]
        with capturedLogs() as events:
            assert "unknown backend 'box'" in complaint(backend_from_string, "box")
        assert any("ZeroDivisionError" in str(event.get("log_failure")) for event in events)

    def test_a_name_that_can_not_be_written(self, folder: Path) -> None:
        plug(folder, "bad", 'x = BackendPlugin("a:b", "theircode:Box"); y = BackendPlugin("good", "theircode:Box")')
        with capturedLogs() as events:
            assert "good" in BACKENDS.shelf().names
        assert "its name is 'a:b'; a name has letters" in str([event.get("error") for event in events])

    @pytest.mark.parametrize(
        ("point", "expected"),
        [
            ("x = theircode:Absent", "can't be used: AttributeError: module 'theircode' has no attribute 'Absent'"),
            ("x = absent_code:Box", "can't be used: ModuleNotFoundError: No module named 'absent_code'"),
            ("x = theircode:SLOW", "of theirs 1.0, entry point x = theircode:SLOW can't be used: "),
            ("x = theircode:BOX", "can't be used: the plugin that it leads to is called box"),
            ("x = theircode:number", "int is neither a class nor a function nor a backend"),
        ],
    )
    def test_an_entry_point(self, folder: Path, point: str, expected: str) -> None:
        install(folder, "backends", point)
        assert expected in complaint(backend_from_string, "x")
        assert backend_from_string("discard")
        assert list_installed("backends")

    @pytest.mark.parametrize(
        ("settings", "expected"),
        [
            ({"parameters": {"x": "number"}}, "x is of the kind 'number', which is none of text, texts"),
            ({"positional": ("x",)}, "the positional 'x' is none of its parameters"),
        ],
    )
    def test_the_author_hears_of_it(self, settings: dict[str, Any], expected: str) -> None:
        with pytest.raises(ValueError, match=expected):
            BackendPlugin("x", "a.b:C", **settings)


class TestUnknown:
    @pytest.mark.parametrize(
        ("make", "group", "point", "text", "expected"),
        [
            (
                backend_from_string,
                "backends",
                "spool = theircode:Box",
                "spol",
                "unknown backend 'spol'; did you mean spool?",
            ),
            (
                lambda text: check_from_string(text, Clock()),
                "checks",
                "slow = theircode:SLOW",
                "slo",
                "unknown check 'slo'; did you mean slow?",
            ),
            (
                checker_from_string,
                "auth",
                "ldap = theircode:check",
                "ldapp",
                "unknown kind 'ldapp'; did you mean ldap?",
            ),
            (
                extension_from_string,
                "extensions",
                "X-WORD = theircode:Word",
                "x-wordy",
                "unknown extension 'x-wordy'; did you mean X-WORD?",
            ),
        ],
    )
    def test_the_nearest_that_is_installed(
        self, folder: Path, make: Callable[[str], Any], group: str, point: str, text: str, expected: str
    ) -> None:
        install(folder, group, point)
        assert expected in complaint(make, text)
        assert "--python-path DIR adds a folder to look in" in complaint(make, text)


class TestArguments:
    plugin = BackendPlugin(
        "x",
        "a.b:C",
        parameters={kind: kind for kind in KINDS if kind != "texts"} | {"except": Argument("texts", into="but")},
        positional=("text", "except"),
    )

    @given(st.text(), st.lists(st.text(alphabet=st.characters(exclude_characters=","), min_size=1)))
    def test_quoting(self, text: str, words: list[str]) -> None:
        """Whatever a value is, quoted it is one argument, and it arrives as it was."""
        written = ":".join(quote(word) for word in ("x", text, *words))
        description = parse_description(f"{written}:rate=1/s")
        _, values = read_string(self.plugin, description.positional, description.named)
        stripped = tuple(word.strip() for word in words if word.strip())
        assert values == {"text": text, "but": stripped, "rate": (1, 1)}

    @pytest.mark.parametrize(
        ("kind", "written", "plain", "value"),
        [
            ("text", "a b", "a b", "a b"),
            ("texts", "a, b", ["a", "b"], ("a", "b")),
            ("networks", "10.0.0.0/8,::1", ["10.0.0.0/8", "::1"], ("10.0.0.0/8", "::1")),
            ("size", "10K", 10240, 10240),
            ("duration", "1m", 60, 60.0),
            ("count", "7", 7, 7),
            ("rate", "30/m", "30/m", (30, 60)),
            ("yes_no", "yes", True, True),
            ("secret", "env:THEIR_SECRET", "env:THEIR_SECRET", "tim:sesame"),
            ("login", "env:THEIR_SECRET", "env:THEIR_SECRET", ("tim", "sesame")),
        ],
    )
    def test_every_kind(self, kind: str, written: str, plain: Any, value: Any, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setitem(__import__("os").environ, "THEIR_SECRET", "tim:sesame")
        assert read(kind, written) == read(kind, plain) == value

    @pytest.mark.parametrize("kind", KINDS)
    def test_a_table_where_a_value_should_be(self, kind: str) -> None:
        with pytest.raises(ValueError, match="it is a table; it is written as "):
            read(kind, {})

    @pytest.mark.parametrize(
        ("positional", "named", "expected"),
        [
            ((), {"txt": "x"}, "x takes no txt=; did you mean text? (it is written x:TEXT"),
            (("a",), {"text": "b"}, "text is given twice, with its name and without"),
            ((), {"count": "many"}, "count: 'many' is no number"),
        ],
    )
    def test_mistakes(self, positional: tuple[str, ...], named: dict[str, str], expected: str) -> None:
        with pytest.raises(ConfigError) as caught:
            read_string(self.plugin, positional, named)
        assert expected in str(caught.value)

    def test_mistakes_of_a_table(self) -> None:
        with pytest.raises(ConfigError, match=r"it takes no txt; did you mean text\? \(it takes text, networks"):
            read_table(self.plugin, {"txt": 1})
        with pytest.raises(ConfigError, match="count: 'many' is no number"):
            read_table(self.plugin, {"count": "many"})

    def test_the_usage_is_made_of_them(self) -> None:
        assert BackendPlugin("x", "a:B").usage == "x"
        plugin = BackendPlugin("x", "a:B", parameters={"path": "text", "most": "size"}, positional=("path",))
        assert plugin.usage == "x:PATH[:most=SIZE]"


class TestMaking:
    def test_a_table_is_a_string(self, folder: Path) -> None:
        install(folder, "backends", "box = theircode:BOX")
        assert backend_from_table("box", {"colour": "a:b"}).colour == "a:b"  # type: ignore[attr-defined]
        with pytest.raises(ConfigError, match="arguments have keys of their own in a table"):
            backend_from_table("box:red", {})

    def test_next_hops_are_left_as_they_are(self, folder: Path) -> None:
        install(folder, "backends", "hops = theircode:HOPS")
        made: Any = backend_from_string(r"hops:unix:/run/a\:b,tcp:host=c:port=26:hello_name=me.test")
        assert (made.via, made.colour) == ([r"unix:/run/a\:b", "tcp:host=c:port=26"], "me.test")
        with pytest.raises(ConfigError, match="say where mail goes next; it is written hops"):
            backend_from_string("hops")
        assert backend_from_table("hops", {"via": "a.test"}).via == ["a.test"]  # type: ignore[attr-defined]
        with pytest.raises(ConfigError, match=r"it takes no vias; did you mean via\? \(it takes via, hello_name\)"):
            backend_from_table("hops", {"vias": "a.test"})

    def test_what_an_entry_point_leads_to_is_as_good_as_a_python_name(self, folder: Path) -> None:
        install(folder, "backends", "inbox = theircode:Inbox\nbox = theircode:BOX\nraw = theircode:Box")
        assert isinstance(backend_from_string("inbox"), SessionBackend)
        assert backend_from_string("raw:red").colour == "red"  # type: ignore[attr-defined]
        assert "a session class takes no arguments" in complaint(backend_from_string, "inbox:x")
        row = list_installed("backends").partition("  inbox(")[2].partition("\n\n")[0]
        assert "\n      Takes mail.\n      from: theirs 1.0, entry point inbox = theircode:Inbox" in row

    def test_a_check_gets_the_clock(self, folder: Path) -> None:
        install(folder, "checks", "slow = theircode:SLOW")
        clock = Clock()
        check: Any = check_from_string("slow:delay=2s", clock)
        assert check.clock is clock and check.delay == 2.0

    def test_users(self, folder: Path) -> None:
        install(folder, "auth", "users = theircode:USERS\nrawusers = theircode:RAW\nsimple = theircode:check")
        (folder / "secret").write_text("sesame\n")
        assert isinstance(checker_from_string(f"users:password={folder}/secret"), FunctionChecker)
        raw: Any = checker_from_string("rawusers:a:b=c\\")
        assert raw._function.secret == "a:b=c\\"
        made: Any = checker_from_string("theircode:Users:secret=open")
        assert made._function.secret == "open"
        assert isinstance(checker_from_string("simple"), FunctionChecker)
        assert "check takes no arguments; a class" in complaint(checker_from_string, "theircode:check:x")

    def test_users_that_were_forgotten_are_not_the_sessions(self, folder: Path) -> None:
        install(folder, "auth", "nobody = theircode:NOBODY")
        assert "NoneType is neither a function nor a checker" in "".join(
            mistakes("--backend", "discard", "--auth", "nobody", "--allow-insecure-auth")
        )

    def test_a_mechanism_of_two(self, folder: Path) -> None:
        (folder / "ticket.py").write_text(
            "from theircode import *\n"
            'A, B = (Mechanism("TICKET", PLAIN.make, needs=(IPasswordChecker,)) for _ in "ab")\n'
        )
        install(folder, "mechanisms", "a = ticket:A\nb = ticket:B")
        words = ("--backend", "discard", "--auth", "memory:a:b", "--allow-insecure-auth", "--auth-mechanisms")
        assert "the mechanism TICKET is offered by theirs 1.0, entry point" in mistakes(*words, "TICKET")[0]
        auth = plan_of(*words, "PLAIN").listen[0].auth
        assert auth is not None
        assert [mechanism.name for mechanism in auth._mechanisms] == ["PLAIN"]


class TestExtensions:
    def keywords(self, *texts: str) -> list[str]:
        problems = Problems()
        made = extensions_of([Text(text, Place("extensions")) for text in texts], "smtp", problems)
        problems.check()
        return [extension.keyword for extension in made]

    standard = [extension.keyword for extension in STANDARD]  # noqa: RUF012

    def test_nothing_said(self) -> None:
        assert self.keywords() == self.standard

    @pytest.mark.parametrize("text", ["X-WORD", "x-word", "theircode:Word", "theircode:word", "theircode:GREEN"])
    def test_one_more(self, folder: Path, text: str) -> None:
        install(folder, "extensions", "x-word = theircode:Word")
        if text == "theircode:GREEN":
            assert "is neither a class nor a function nor an extension" in complaint(extension_from_string, text)
        else:
            assert self.keywords(text) == [*self.standard, "X-WORD"]

    def test_some_less(self) -> None:
        left = self.keywords("-chunking", "-BINARYMIME")
        assert left == [keyword for keyword in self.standard if keyword not in ("CHUNKING", "BINARYMIME")]

    def test_the_same_with_arguments(self) -> None:
        assert self.keywords("LIMITS:max_transactions=5") == self.standard
        assert extension_from_string("limits:max_transactions=5") is not STANDARD[self.standard.index("LIMITS")]

    @pytest.mark.parametrize(
        ("text", "said"),
        [
            ("DELIVERBY", ""),
            ("deliverby:min_by_time=1m", "60"),
            ("MT-PRIORITY", ""),
            ("mt-priority:profile=STANAG4406", "STANAG4406"),
            ("RRVS", ""),
        ],
    )
    def test_arguments_of_a_standard_one(self, text: str, said: str) -> None:
        made: Any = extension_from_string(text)
        assert made.keyword in self.standard
        assert made.advertise(None) == said

    def test_an_interval(self) -> None:
        made: Any = extension_from_string("futurerelease:max_interval=1h")
        assert made.advertise(None).startswith("3600 ")
        made = extension_from_string("FUTURERELEASE")
        assert made.advertise(None).startswith("2592000 ")

    @pytest.mark.parametrize(
        ("text", "why"),
        [
            ("DELIVERBY:min_by_time=soon", "min_by_time: 'soon' is no time"),
            ("DELIVERBY:min_by_time=500ms", "extension DELIVERBY: min_by_time: 0.5 is no number of whole seconds"),
            ("DELIVERBY:60", "'60' has no name before it"),
            ("MT-PRIORITY:profil=x", "MT-PRIORITY takes no profil=; did you mean profile?"),
            (
                "MT-PRIORITY:profile=a b",
                "extension MT-PRIORITY: profile: 'a b' is no name of up to 20 letters, digits, -, _ and .",
            ),
            ("FUTURERELEASE:max_interval=0", "extension FUTURERELEASE: max_interval: 0 holds nothing"),
            ("RRVS:x=1", "takes nothing behind it"),
        ],
    )
    def test_arguments_that_make_no_sense(self, text: str, why: str) -> None:
        with pytest.raises(ConfigError, match=re.escape(why)):
            extension_from_string(text)

    @pytest.mark.parametrize(
        ("texts", "expected"),
        [
            (["-DNS"], "extensions -DNS: there is no extension DNS; did you mean DSN?"),
            (["X-WRD"], "extensions X-WRD: unknown extension 'X-WRD'; did you mean X-WORD?"),
            (["-CHUNKING"], "extensions -CHUNKING: BINARYMIME needs CHUNKING; leave that out, too"),
            (["X-WORD", "-DSN"], "extensions -DSN: X-WORD needs DSN; leave that out, too"),
            (["X-WORD", "x-word"], "extensions x-word: X-WORD stands there twice"),
            (["X-WORD", "-X-WORD"], "extensions -X-WORD: X-WORD is named with and without -"),
            (["theircode:Rude"], "extensions: extension X-RUDE needs X-ABSENT, which is not in the list"),
            (["DSN:x=1"], "extensions DSN:x=1: it is written DSN, and takes nothing behind it"),
            (["theircode:Box"], "extensions theircode:Box: Box is no extension; subclass"),
            (["theircode:word:x"], "extensions theircode:word:x: word is an extension already"),
        ],
    )
    def test_mistakes(self, folder: Path, texts: list[str], expected: str) -> None:
        install(folder, "extensions", "X-WORD = theircode:Word")
        with pytest.raises(ConfigError) as caught:
            self.keywords(*texts)
        assert expected in str(caught.value)
        assert "\n" not in str(caught.value)

    def test_the_option(self, folder: Path) -> None:
        install(folder, "extensions", "X-WORD = theircode:Word")
        listen = plan_of("--backend", "discard", "--extensions", "x-word", "--extensions", "-SIZE").listen[0]
        keywords = [extension.keyword for extension in listen.extensions]
        assert keywords == [keyword for keyword in self.standard if keyword != "SIZE"] + ["X-WORD"]


@pytest.mark.parametrize("topic", LISTINGS)
def test_the_option_lists_and_ends(topic: str, folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    install(folder, "backends", "box = theircode:BOX")
    with pytest.raises(SystemExit) as caught:
        parsed(f"--help-{topic}", "--python-path", str(folder))
    assert caught.value.code == 0
    said = capsys.readouterr().out
    assert said == list_installed(topic)
    assert said.count("      from: ") >= 4


def test_a_list_needs_no_import_of_what_it_lists(folder: Path) -> None:
    plug(folder, "lazy", 'x = BackendPlugin("lazy", "theircode:Box")')
    assert "  lazy\n" in list_installed("backends")
    assert "theircode" not in sys.modules
