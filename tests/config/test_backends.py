"""Backend strings: what they make, and the one line that each mistake gets."""

import textwrap
from pathlib import Path

import pytest

from smtpfw.backends.discard import DiscardBackend
from smtpfw.backends.handler import HandlerBackend
from smtpfw.backends.memory import MemoryBackend
from smtpfw.config.backends import BUILT_IN, backend_from_string
from smtpfw.errors import ConfigError
from smtpfw.interfaces import IBackend
from smtpfw.session import SessionBackend
from tests.config.plans import mistakes

MODULE = """
    from zope.interface import implementer
    from smtpfw.interfaces import IBackend
    from smtpfw.session import Session, SessionBackend

    class Inbox(Session):
        pass

    @implementer(IBackend)
    class Backend:
        honours = frozenset()
        def __init__(self, folder="x", *, colour="red"):
            self.folder, self.colour = folder, colour
        def new_session(self, connection):
            return Inbox(connection)

    ready = Backend("ready")
    number = 7

    def make(): return Backend("made")
    def broken(): raise TypeError("inside")
    def refuses(): raise OSError(2, "No such file or directory", "/x")
    def wrong(): return 7

    def handle(envelope, body): pass
    async def stream(envelope, body): pass
    def one(mail): pass
    def three(envelope, body, more): pass
    class Group:
        @staticmethod
        def handle(envelope, body, extra=None): pass
    nothing = None

    class Undeclared:
        honours = ()
        def new_session(self, connection): return Inbox(connection)

    @implementer(IBackend)
    class Half:
        def new_session(self, connection): return Inbox(connection)
"""


@pytest.fixture(autouse=True)
def _module(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    package = tmp_path / "mailcode"
    package.mkdir()
    (package / "__init__.py").write_text("")
    (package / "own.py").write_text(textwrap.dedent(MODULE))
    (package / "mistake.py").write_text("1 / 0\n")
    (package / "needs.py").write_text("import absent_module\n")
    monkeypatch.syspath_prepend(str(tmp_path))


def complaint(text: str) -> str:
    with pytest.raises(ConfigError) as caught:
        backend_from_string(text)
    line = str(caught.value)
    assert "\n" not in line
    return line


def test_the_built_in_ones() -> None:
    assert isinstance(backend_from_string("discard"), DiscardBackend)
    memory = backend_from_string("memory:max_messages=3:max_bytes=1M")
    assert isinstance(memory, MemoryBackend)
    assert (memory.max_messages, memory.max_bytes) == (3, 1024 * 1024)


@pytest.mark.parametrize("prefix", BUILT_IN)
def test_the_usage_of_a_built_in_one_begins_with_its_prefix(prefix: str) -> None:
    assert BUILT_IN[prefix].usage.startswith(prefix)


@pytest.mark.parametrize(
    ("text", "folder", "colour"),
    [
        ("mailcode.own:Backend", "x", "red"),
        ("mailcode.own:Backend:inbox", "inbox", "red"),
        (r"mailcode.own:Backend:a\:b:colour=blue", "a:b", "blue"),
        ("mailcode.own:make", "made", "red"),
        ("mailcode.own:ready", "ready", "red"),
    ],
)
def test_a_python_name_makes_a_backend(text: str, folder: str, colour: str) -> None:
    backend = backend_from_string(text)
    assert IBackend.providedBy(backend)
    assert (backend.folder, backend.colour) == (folder, colour)  # type: ignore[attr-defined]


def test_a_module_of_one_file_needs_no_dot(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "onefile.py").write_text("from smtpfw import Session\n\n\nclass Inbox(Session):\n    pass\n")
    monkeypatch.syspath_prepend(tmp_path)
    assert isinstance(backend_from_string("onefile:Inbox"), SessionBackend)


def test_a_session_class_is_enough() -> None:
    backend = backend_from_string("mailcode.own:Inbox")
    assert isinstance(backend, SessionBackend)
    connection = object()
    assert backend.new_session(connection).connection is connection  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("text", "called", "whole"),
    [
        ("handler:mailcode.own:handle", "handle", True),
        ("handler:mailcode.own:stream", "stream", False),
        ("handler:mailcode.own:Group.handle", "Group.handle", True),
        ("handler:mailcode.own:handle:whole=no", "handle", False),
        ("handler:mailcode.own:stream:whole=yes", "stream", True),
    ],
)
def test_a_function_that_takes_each_message(text: str, called: str, whole: bool) -> None:
    backend = backend_from_string(text)
    assert isinstance(backend, HandlerBackend)
    assert backend.handler is not None
    assert backend.handler.__qualname__ == called
    assert backend.whole is whole


def test_only_what_looks_like_a_handler_is_taken_for_one() -> None:
    assert "handler:" not in complaint("mailcode.own:one")
    assert "handler:" not in complaint("mailcode.own:handle:x")


def test_a_function_in_a_module_of_one_file(tmp_path: Path) -> None:
    (tmp_path / "handlers_alone.py").write_text("def handle(envelope, body):\n    pass\n")
    assert isinstance(backend_from_string("handler:handlers_alone:handle"), HandlerBackend)


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("maildri:/x", "unknown backend 'maildri'; did you mean maildir?"),
        ("", "unknown backend '' (known are discard, handler, lmtp, maildir, memory, relay;"),
        ("memory:max_message=3", "max_message"),
        ("memory:max_messages=three", "max_messages: 'three' is no number"),
        ("discard:x", "it is written discard"),
        ("absent_package.mail:Inbox", "--python-path"),
        ("mailcode.needs:Inbox", "No module named 'absent_module'; --python-path"),
        ("mailcode.mistake:Inbox", "importing mailcode.mistake failed: ZeroDivisionError"),
        ("mailcode.own", "say which class or function: mailcode.own:Name"),
        ("mailcode.own:Inbos", "mailcode.own has no Inbos; did you mean Inbox?"),
        ("mailcode.own:Backend:a:b", "too many positional arguments; it is written mailcode.own:Backend(folder"),
        ("mailcode.own:Backend:size=3", "unexpected keyword argument 'size'"),
        ("mailcode.own:Inbox:x", "a session class takes no arguments"),
        ("mailcode.own:number", "int is neither a class nor a function nor a backend"),
        ("mailcode.own:wrong", "it has no new_session(connection)"),
        ("mailcode.own:Undeclared", "Does not declaratively implement the interface"),
        ("mailcode.own:Half", "IBackend.honours attribute was not provided"),
        ("mailcode.own:broken", "TypeError: inside"),
        ("mailcode.own:handle", "a function that takes each message is handler:mailcode.own:handle"),
        ("handler", "say which function: handler:package.module:function"),
        ("handler:", "say which function: handler:package.module:function"),
        ("handler::handle", "say which function: handler:package.module:function"),
        ("handler:mailcode.own", "say which function: handler:package.module:function"),
        ("handler:mailcode.own:", "say which function: handler:package.module:function"),
        ("handlr:mailcode.own:handle", "unknown backend 'handlr'; did you mean handler?"),
        ("handler:mailcode.own:handel", "mailcode.own has no handel; did you mean handle?"),
        ("handler:mailcode.own:Group.handel", "mailcode.own has no Group.handel; did you mean handle?"),
        ("handler:absent_package.mail:handle", "No module named 'absent_package'; --python-path"),
        ("handler:mailcode.mistake:handle", "importing mailcode.mistake failed: ZeroDivisionError"),
        ("handler:mailcode.own:one", "mailcode.own.one(mail) can't be called with two arguments, (envelope, body)"),
        ("handler:mailcode.own:three", "mailcode.own.three(envelope, body, more) can't be called with two"),
        ("handler:mailcode.own:number", "int is not callable; a handler is a function of envelope and body"),
        ("handler:mailcode.own:nothing", "nothing is None, and a handler a function"),
        (
            "handler:mailcode.own:Inbox",
            "Inbox is a class, and a handler a function; a class is written mailcode.own:Inbox",
        ),
        ("handler:mailcode.own:ready", "a backend is written mailcode.own:ready"),
        ("handler:mailcode.own:handle:x", "it is written handler:MODULE:FUNCTION[:whole=yes|no]"),
        ("handler:mailcode.own:handle:all=yes", "it is written handler:MODULE:FUNCTION[:whole=yes|no]"),
        ("handler:mailcode.own:handle:whole=maybe", "whole: 'maybe' is neither yes nor no"),
        ("mailcode.own:refuses", "No such file or directory"),
        ("memory:x=1:x=2", "x= is given twice"),
    ],
)
def test_a_mistake_is_one_line(text: str, expected: str) -> None:
    assert expected in complaint(text)


def test_the_line_names_the_option() -> None:
    # And no argument, which may be a password.
    shown = {"maildri:/x": "maildri", "mailcode.own:Inbos:x": "mailcode.own:Inbos", "discard:x": "discard"}
    for text, name in shown.items():
        assert mistakes("--backend", text) == [f"--backend {name}: {complaint(text)}"]
