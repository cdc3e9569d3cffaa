"""
The command line: the table of settings as options of ``twistd``.

After ``parseOptions`` the object is a dict from the names of the settings to
parsed values, which is what :func:`smtpfw.config.plan.make_plan` takes. A bad value
is a ``usage.UsageError`` of one line that names the option.
"""

from __future__ import annotations

import getopt
import sys
import textwrap
from typing import Any

from twisted.python import usage

from smtpfw.config import names
from smtpfw.config.listing import LISTINGS, list_installed
from smtpfw.config.settings import BY_NAME, FLAG, SETTINGS, Setting, nearest
from smtpfw.errors import ConfigError
from twisted import copyright

__all__ = ["ServerOptions"]

_INTRODUCTION = """\
Runs a mail server. Without options it listens on port 2525 of this machine alone and puts mail into ./Maildir.
SIZE takes 512K, 10M, 1G; TIME takes 30s, 5m, 1h, or seconds. The first SIGTERM lets messages under way end, a second
does not wait."""

_OTHER = """\
Other:
  --check                         say what this configuration would do, what is wrong and what may not be meant, and
                                  end: with status 0 if it can run, 1 if not
  --help-backends, --help-checks, --help-auth, --help-mechanisms, --help-extensions
                                  list what is built in and what is installed, what it takes and where it comes from
  --version                       show the version
  --help                          show this text

"""

_EXAMPLES = r"""Examples:
  twistd -n smtpfw
  twistd -n smtpfw --listen tcp6:25 --listen smtps:465 --tls cert.pem:key.pem --backend maildir:/var/mail/inbox
  twistd -n smtpfw --listen tcp:2525:interface=10.0.0.5 --listen 'tcp6:2525:interface=\:\:1' --backend memory
  twistd -n smtpfw --listen unix:/run/smtpfw/smtp.sock --python-path . --backend myapp.mail:Inbox
"""


class ServerOptions(usage.Options):
    """Every setting as an option; the values are parsed as they are read."""

    def __init__(self) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        for setting in BY_NAME.values():
            self._offer(setting)
        for topic in LISTINGS:
            self._offer_listing(topic)
        self._listings: list[str] = []
        #: Whether nothing shall run: see :mod:`smtpfw.config.checking`.
        self.check = False
        #: Those that stand on the command line.
        self.given: set[str] = set()

    def parseOptions(self, options: list[str] | None = None) -> None:
        """
        Parse the command line.

        :raises usage.UsageError: one line that names the option and what would be right.
        """
        words = sys.argv[1:] if options is None else list(options)
        try:
            # Asked beforehand, because getopt's own complaint proposes nothing.
            getopt.getopt(words, self.shortOpt, self.longOpt)
        except getopt.GetoptError as error:
            known = [name.rstrip("=") for name in self.longOpt]
            near = nearest(error.opt, known).replace("did you mean ", "did you mean --")
            if error.opt in known:
                near = "; --help tells which"
            raise usage.UsageError(f"{error.msg}{near or '; --help lists all'}") from None
        super().parseOptions(words)  # type: ignore[no-untyped-call]
        if self._listings:
            self._list()

    def parseArgs(self, *words: str) -> None:
        """
        Take what is left over.

        :raises usage.UsageError: always, if there is anything.
        """
        if words:
            raise usage.UsageError(f"{words[0]!r} is no option; --help lists all")

    def opt_check(self) -> None:
        """Say what this configuration would do, and end."""
        self.check = True

    def opt_version(self) -> None:
        """Show the version and exit."""
        from smtpfw import __version__

        sys.stdout.write(f"smtpfw {__version__}, Twisted {copyright.version}\n")
        sys.exit(0)

    def getUsage(self, width: int | None = None) -> str:
        """The options in their groups, with units, defaults and examples."""
        lines = [_INTRODUCTION, ""]
        for title, settings in SETTINGS.items():
            lines.append(f"{title}:")
            for setting in settings:
                lines += _describe(
                    f"--{setting.option}{'=' * bool(setting.kind.metavar)}{setting.kind.metavar}", setting
                )
            lines.append("")
        return "\n".join(lines) + "\n" + _OTHER + _EXAMPLES

    def _offer(self, setting: Setting) -> None:
        """Tell ``usage.Options`` of one setting, as its own collectors would."""
        option = setting.option
        self[setting.name] = setting.default
        self.synonyms[option] = option
        self.docs[option] = setting.help
        self.longOpt.append(option if setting.kind is FLAG else f"{option}=")

        def take(_: str, text: str = "") -> None:
            self._take(setting, text)

        self._dispatch[option] = take

    def _offer_listing(self, topic: str) -> None:
        option = f"help-{topic}"
        self.synonyms[option] = option
        self.docs[option] = f"List {topic}, and exit."
        self.longOpt.append(option)
        # At the end of the command line: --python-path may stand behind it.
        self._dispatch[option] = lambda option, text="": self._listings.append(topic)

    def _list(self) -> None:
        try:
            names.extend_path(self["python_path"])
        except ConfigError as error:
            raise usage.UsageError(f"--python-path: {error}") from None
        sys.stdout.write("\n".join(list_installed(topic) for topic in self._listings))
        sys.exit(0)

    def _take(self, setting: Setting, text: str) -> None:
        try:
            value: Any = True if setting.kind is FLAG else setting.kind.parse(text)
        except ValueError as error:
            raise usage.UsageError(f"--{setting.option}: {error}") from None
        if setting.repeatable:
            # The first one given replaces the default, the next ones are added.
            value = (*self[setting.name], value) if setting.name in self.given else (value,)
        elif setting.name in self.given and setting.kind is not FLAG:
            raise usage.UsageError(f"--{setting.option}: it is given twice")
        self.given.add(setting.name)
        self[setting.name] = value


def _describe(head: str, setting: Setting) -> list[str]:
    default = setting.describe_default()
    text = f"{setting.help} [{default}]" if default else setting.help
    lines = textwrap.wrap(text, 84, break_on_hyphens=False)
    column = " " * 34
    if len(head) > 31:
        return [f"  {head}", *(column + line for line in lines)]
    return [f"  {head:<31} {lines[0]}", *(column + line for line in lines[1:])]
