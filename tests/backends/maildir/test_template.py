"""Recipient to folder: below the prefix, one folder for one mailbox, refused when unsafe."""

from __future__ import annotations

import fnmatch
import posixpath
import unicodedata

import pytest
from hypothesis import given
from hypothesis import strategies as st

from smtpfw.backends.maildir.template import PathTemplate
from smtpfw.errors import ConfigError, MailboxUnavailable

BOTH = "/var/mail/{domain}/{user}"


@pytest.mark.parametrize(
    ("text", "named"),
    [
        ("/var/mail/{name}", "{name}"),
        ("/var/mail/{User}", "{User}"),
        ("/var/mail/{}", "{}"),
        ("/var/mail/{user", "'{'"),
        ("/var/mail/user}", "'}'"),
        ("/var/mail/{{user}}", "'{'"),
        ("/var/mail/{user!r}", "{user!r}"),
        ("/var/{user}/../x", "'..'"),
        ("/var/mail/{user}{domain}", "'@'"),
        ("/var/mail/{domain}-{user}", "'@'"),
        ("/var/mail\0/{user}", "NUL"),
        ("", "no folder"),
        ("/", "no folder"),
        ("./", "no folder"),
    ],
)
def test_a_bad_template_is_refused_and_what_is_wrong_is_named(text: str, named: str) -> None:
    with pytest.raises(ConfigError) as raised:
        PathTemplate(text)
    assert named in str(raised.value)
    assert repr(text) in str(raised.value)


@pytest.mark.parametrize(
    ("text", "local_part", "domain", "paths"),
    [
        ("./Maildir", "bob", "example.org", ["/cwd/Maildir"]),
        ("Maildir", "../x", "example.org", ["/cwd/Maildir"]),
        ("../Maildir", "bob", "", ["/cwd/../Maildir"]),
        (BOTH, "bob", "example.org", ["/var/mail/example.org/bob"]),
        (BOTH, "Bob", "EXAMPLE.Org", ["/var/mail/example.org/bob"]),
        (BOTH, "bob+tag+x", "example.org", ["/var/mail/example.org/bob+tag+x", "/var/mail/example.org/bob"]),
        (BOTH, "+tag", "example.org", ["/var/mail/example.org/+tag"]),
        (BOTH, "{domain}", "example.org", ["/var/mail/example.org/{domain}"]),
        (BOTH, "bob", "[192.0.2.1]", ["/var/mail/[192.0.2.1]/bob"]),
        (BOTH, "bob", "[IPv6:2001:DB8::1]", ["/var/mail/[ipv6:2001:db8::1]/bob"]),
        (BOTH, "a b", "example.org", ["/var/mail/example.org/a b"]),
        (BOTH, "a@b", "example.org", ["/var/mail/example.org/a@b"]),
        (BOTH, "Ju\u0308rgen", "example.org", ["/var/mail/example.org/j\u00fcrgen"]),
        (BOTH, "\u212a", "example.org", ["/var/mail/example.org/k"]),
        ("/m/{user}@{domain}/Maildir", "bob", "example.org", ["/m/bob@example.org/Maildir"]),
        ("/m//./{domain}/", "../bob", "example.org", ["/m/example.org"]),
        ("/m/{user}", "bob", "a/b", ["/m/bob"]),
        (BOTH, "x" * 255, "example.org", ["/var/mail/example.org/" + "x" * 255]),
    ],
)
def test_where_mail_goes(text: str, local_part: str, domain: str, paths: list[str]) -> None:
    template = PathTemplate(text, "/cwd")
    assert [mailbox.path for mailbox in template.mailboxes(local_part, domain)] == paths


@pytest.mark.parametrize(
    ("local_part", "domain"),
    [
        ("", "example.org"),
        (".", "example.org"),
        ("..", "example.org"),
        (".hidden", "example.org"),
        ("../x", "example.org"),
        ("a/b", "example.org"),
        ("a\\b", "example.org"),
        ("a\0b", "example.org"),
        ("a\nb", "example.org"),
        ("a\x7fb", "example.org"),
        ("a\u0085b", "example.org"),
        ("a\u200bb", "example.org"),
        ("a\u202eb", "example.org"),
        ("a\u2028b", "example.org"),
        ("a\ud800b", "example.org"),
        ("bob+a/b", "example.org"),
        ("x" * 256, "example.org"),
        ("\u00fc" * 128, "example.org"),
        ("bob", ""),
        ("bob", ".."),
        ("bob", ".example.org"),
        ("bob", "a/b"),
        ("bob", "a@b"),
        ("bob", "[../x]"),
        ("bob", "[x"),
        ("bob", "x" * 256),
    ],
)
def test_an_unsafe_recipient_is_refused(local_part: str, domain: str) -> None:
    with pytest.raises(MailboxUnavailable):
        PathTemplate(BOTH).mailboxes(local_part, domain)


def test_what_it_says_of_itself() -> None:
    both, domains, one = PathTemplate(BOTH), PathTemplate("/m/x/{domain}/y"), PathTemplate("./Maildir", "/cwd")
    assert [template.per_user for template in (both, domains, one)] == [True, False, False]
    assert [template.per_domain for template in (both, domains, one)] == [True, True, False]
    assert [template.fixed for template in (both, domains, one)] == [False, False, True]
    assert [template.prefix for template in (both, domains, one)] == ["/var/mail", "/m/x", "/cwd/Maildir"]
    assert [str(template) for template in (both, domains, one)] == [BOTH, "/m/x/{domain}/y", "/cwd/Maildir"]


def test_the_glob_pattern_escapes_what_the_operator_wrote() -> None:
    assert PathTemplate("/m[1]/x?{user}@{domain}/y*").glob_pattern() == "/m[[]1]/x[?]*@*/y[*]"


# Parts that come near to what the rules are about, more often than text at large does.
_NAMES = st.one_of(
    st.text(),
    st.text(alphabet="ab.-+@/\\_[]:{}", min_size=1, max_size=6),
    st.lists(st.sampled_from(["..", ".", "/", "a", "B", "{user}", "{domain}", "\0", "@", "K", "\u212a", "+"])).map(
        "".join
    ),
)
_TEMPLATES = st.sampled_from(
    [BOTH, "/var/mail/{user}/{domain}", "/var/mail/{user}@{domain}", "/var/mail/x{domain}@{user}.d/Maildir"]
)


def _paths(template: PathTemplate, recipient: tuple[str, str]) -> list[str]:
    try:
        return [mailbox.path for mailbox in template.mailboxes(*recipient)]
    except MailboxUnavailable:
        return []


@given(_TEMPLATES, _NAMES, _NAMES)
def test_no_recipient_leaves_the_prefix_or_the_depth(text: str, local_part: str, domain: str) -> None:
    template = PathTemplate(text)
    for path in _paths(template, (local_part, domain)):
        assert posixpath.normpath(path) == path
        assert path.startswith(template.prefix + "/")
        assert path.count("/") == text.count("/")
        assert "\0" not in path
        assert all(0 < len(part.encode()) <= 255 for part in path.split("/")[1:])
        assert fnmatch.fnmatchcase(path, template.glob_pattern())


def _same(name: str) -> str:
    return unicodedata.normalize("NFC", unicodedata.normalize("NFC", name).lower())


@given(_TEMPLATES, st.tuples(_NAMES, _NAMES), st.tuples(_NAMES, _NAMES))
def test_two_recipients_share_a_folder_only_if_they_are_one(
    text: str, one: tuple[str, str], other: tuple[str, str]
) -> None:
    template = PathTemplate(text)
    ours, theirs = _paths(template, one)[:1], _paths(template, other)[:1]
    if ours and theirs:
        assert (ours == theirs) == (tuple(map(_same, one)) == tuple(map(_same, other)))


@given(_TEMPLATES, st.text(alphabet="ab.-@", max_size=9))
def test_no_name_can_be_cut_in_two_ways(text: str, name: str) -> None:
    template = PathTemplate(text)
    cuts = [(name[:index], name[index:]) for index in range(len(name) + 1)]
    found = [path for cut in cuts for path in _paths(template, cut)]
    assert len(found) == len(set(found))
