"""
How strictly a listener reads: one table of three profiles.

``default`` is safe and takes what real senders do. ``strict`` is the letter of
the RFCs. ``lenient`` takes what old devices and scripts send. No profile takes
anything but CRLF.CRLF as the end of DATA: that is where one user's message
could become another's command.
"""

from __future__ import annotations

from dataclasses import dataclass

#: Every bare CR and every bare LF in a text body becomes CRLF (as in Postfix 3.9; curl sends Unix files so).
NORMALIZE = "normalize"
#: A text body with a bare CR or LF is refused after its true end.
REJECT = "reject"


@dataclass(frozen=True, slots=True)
class Profile:
    """
    :ivar name: what the operator calls it.
    :ivar bare_lf_commands: take a bare LF as the end of a command line.
    :ivar hello_first_word: take the first of several words in EHLO and HELO.
    :ivar space_after_colon: take ``MAIL FROM: <a@b>``.
    :ivar bare_paths: take ``MAIL FROM:a@b`` without brackets.
    :ivar stray_dots: take ``a..b`` and ``a.`` as local parts.
    :ivar underscores: take underscores in domains.
    :ivar max_local_part: octets of a local part (RFC 5321 section 4.5.3.1.1 says 64; VERP, SRS and BATV make longer
        ones); 0 for no limit but that of the line.
    :ivar max_command_line: octets of a command line, CRLF included, before what extensions add.
    :ivar bare_newlines: what becomes of a bare CR or LF in a text body, ``normalize`` or ``reject``.
    :ivar max_text_line: octets of a line in a text body, CRLF not included; 0 for no limit.
    :ivar greeting_delay: seconds that the greeting waits, to refuse a client that does not wait for it (RFC 5321
        section 4.3.1); 0 to greet at once and let everybody talk.
    """

    name: str
    bare_lf_commands: bool = False
    hello_first_word: bool = False
    space_after_colon: bool = True
    bare_paths: bool = False
    stray_dots: bool = False
    underscores: bool = True
    max_local_part: int = 0
    max_command_line: int = 2048  # Postfix line_length_limit
    bare_newlines: str = NORMALIZE
    max_text_line: int = 65536  # pymta 65,536; Postfix folds at 2,048, others refuse at 998 and lose real mail
    greeting_delay: float = 0.0


STRICT = Profile(
    "strict",
    space_after_colon=False,
    underscores=False,
    max_local_part=64,
    max_command_line=512,  # RFC 5321 section 4.5.3.1.4
    bare_newlines=REJECT,
    max_text_line=998,  # RFC 5321 section 4.5.3.1.6
    greeting_delay=1.0,  # Postfix postscreen_greet_wait 2 to 6 s, sendmail greet_pause 5 s; bots do not wait at all
)
DEFAULT = Profile("default")
LENIENT = Profile(
    "lenient",
    bare_lf_commands=True,
    hello_first_word=True,
    bare_paths=True,
    stray_dots=True,
    max_text_line=0,
)

PROFILES = {profile.name: profile for profile in (STRICT, DEFAULT, LENIENT)}
