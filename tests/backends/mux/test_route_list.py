"""Where a list of routes sends a recipient, for which clients, and what it says of itself."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from fnmatch import fnmatchcase
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from twisted.internet.address import UNIXAddress

from smtpfw import Session, SessionBackend
from smtpfw.backends.mux import DISCARD, REJECT, MuxBackend, Reject, Route, RouteList
from smtpfw.backends.mux.route_list import MAX_SEARCHED
from smtpfw.errors import ConfigError, MailboxUnavailable, RelayDenied, SMTPError
from smtpfw.networks import UNIX, Networks
from smtpfw.wire.grammar import Address

A, B, C, D = (SessionBackend(Session) for _ in range(4))
HOST = "mx.example.org"


class Relay(SessionBackend):
    """Passes mail on, as far as a list of routes can know."""

    relays = True


RELAY = Relay(Session)


@dataclass
class Client:
    """As much of a connection as a list of routes looks at."""

    identity: str = ""
    mechanism: str = ""
    peer_host: str = "192.0.2.1"
    peer: Any = None


STRANGER = Client()
TIM = Client("Tim", "PLAIN")
ANONYMOUS = Client("tim", "ANONYMOUS")
NEAR = Client(peer_host="10.1.2.3")
LOCAL = Client(peer_host="", peer=UNIXAddress(None))


def outcome(routes: RouteList, recipient: str, client: Client = STRANGER, hostname: str = HOST) -> Any:
    """The backend, or the refusal in words."""
    try:
        return routes.find(Address.parse(recipient), hostname, client)  # type: ignore[arg-type]
    except SMTPError as error:
        return str(error)


NO_MAILBOX = str(MailboxUnavailable())
DENIED = str(RelayDenied())
REJECTED = str(REJECT)

ORDERED = RouteList(
    [
        Route("tim@example.org", A),
        Route(("Example.org", ".example.org", "gone@*.net"), B),
        Route("tom@example.org", C),
        Route(["list-*@example.net", "tim@example.net", "tim@x.test"], C),
        Route("*@example.net", D),
        Route('"tim+tag"@x.test', D),
        Route("tam+*@y.test", A),
        Route("tam@y.test", B),
    ]
)


@pytest.mark.parametrize(
    ("recipient", "expected"),
    [
        ("tim@example.org", A),
        ("TIM@EXAMPLE.ORG", A),
        ("tom@example.org", B),
        ("x@example.org", B),
        ("x@a.b.example.org", B),
        ("gone@x.net", B),
        ("gone@example.net", B),
        ("list-a@example.net", C),
        ("list-a+tag@example.net", C),
        ("tim@example.net", C),
        ("list@example.net", D),
        ("x@x.net", NO_MAILBOX),
        ("x@x.test", NO_MAILBOX),
        ("x@sub.x.test", DENIED),
        ("x@test", DENIED),
        ("x@[192.0.2.1]", DENIED),
        # user+tag, by the route for user at its place in the list
        ("tim+tag@example.org", A),
        ("tim+a+b@example.org", A),
        ("Tim+@example.org", A),
        ("tom+tag@example.org", B),
        ("gone+tag@example.net", B),
        ("tim+tag@example.net", C),
        ("tim+other@x.test", C),
        # an address of its own
        ("tim+tag@x.test", D),
        ("tam+other@y.test", A),
        ("tam@y.test", B),
        # no user, no tag
        ("+tim@x.test", NO_MAILBOX),
        ("tim-tag@x.test", NO_MAILBOX),
    ],
)
def test_the_first_that_fits(recipient: str, expected: object) -> None:
    assert (
        outcome(ORDERED, recipient) is expected
        if isinstance(expected, SessionBackend)
        else outcome(ORDERED, recipient) == expected
    )


@pytest.mark.parametrize(("tag", "dash", "plus"), [("+", NO_MAILBOX, A), ("-", A, NO_MAILBOX), ("", *[NO_MAILBOX] * 2)])
def test_what_divides_a_tag(tag: str, dash: object, plus: object) -> None:
    routes = RouteList([Route(["tim@example.org", "postmaster"], A)], tag=tag)
    assert (outcome(routes, "tim-x@example.org"), outcome(routes, "tim+x@example.org")) == (dash, plus)


def test_an_address_with_its_tag_goes_before_the_user_and_what_else_its_route_is_for() -> None:
    routes = RouteList([Route("tim@example.org", A), Route(["example.org", "tim+x@example.org"], B)])
    assert (outcome(routes, "tim+x@example.org"), outcome(routes, "tim+y@example.org")) == (B, A)


def test_an_address_with_its_tag_that_is_never_reached_changes_nothing() -> None:
    routes = RouteList([Route("tim@example.org", A), Route("example.org", B), Route("tim+x@example.org", C)])
    assert outcome(routes, "tim+x@example.org") is A


@pytest.mark.parametrize(
    ("client", "expected"),
    [(STRANGER, C), (ANONYMOUS, C), (TIM, A), (Client("tom", "PLAIN"), B), (NEAR, D), (LOCAL, C)],
)
def test_by_login_and_network(client: Client, expected: object) -> None:
    routes = RouteList(
        [
            Route("example.org", A, logins="TIM"),
            Route("example.org", B, logins=True),
            Route("example.org", D, networks="10.0.0.0/8"),
            Route("example.org", C),
        ]
    )
    assert outcome(routes, "x@example.org", client) is expected


def test_both_login_and_network() -> None:
    routes = RouteList([Route("example.org", A, logins={"tim"}, networks=UNIX), Route("example.org", B)])
    both = Client("tim", "PLAIN", "", UNIXAddress(None))
    assert [outcome(routes, "x@example.org", client) for client in (TIM, LOCAL, both)] == [B, B, A]


GUARDED = [
    ("*", A),
    ("*", DISCARD),
    ("tim@*", A),
    ("t*@*", A),
    ("*", RELAY),
    ("x.test", RELAY),
    ("tim@x.test", RELAY),
    (".test", RELAY),
    ("x.test", MuxBackend({}, RELAY)),
]


class TestTheGuard:
    @pytest.mark.parametrize(("to", "backend"), GUARDED)
    def test_for_whom_a_route_to_elsewhere_is(self, to: str, backend: Any) -> None:
        routes = RouteList([Route("example.org", B), Route(to, backend)], trusted=["10.0.0.0/8", UNIX])
        for client in (STRANGER, ANONYMOUS):
            assert outcome(routes, "tim@x.test", client) == DENIED
            assert outcome(routes, "tim@example.org", client) is B
        for client in (TIM, NEAR, LOCAL):
            assert outcome(routes, "tim@x.test", client) is backend

    @pytest.mark.parametrize(
        ("to", "backend"),
        [("x.test", A), ("x.test", DISCARD), (".test", A), ("tim@x.test", A), ("x.test", MuxBackend({}, A))],
    )
    def test_a_domain_of_ours_is_for_everybody(self, to: str, backend: Any) -> None:
        assert outcome(RouteList([Route([to, "postmaster"], backend)]), "tim@x.test") is backend

    def test_a_list_is_a_guard_by_itself(self) -> None:
        guarded = MuxBackend(RouteList([Route("example.org", A), Route("*", RELAY)]))
        assert (guarded.relays, MuxBackend({}, A).relays, MuxBackend({}, RELAY).relays) == (False, False, True)

    def test_nobody_is_trusted_by_default(self) -> None:
        assert outcome(RouteList([Route("*", A)]), "x@x.test", LOCAL) == DENIED

    def test_what_stands_behind_it_is_for_strangers(self) -> None:
        routes = RouteList([Route("*", RELAY), Route("example.org", A)])
        assert (outcome(routes, "x@example.org", TIM), outcome(routes, "x@example.org")) == (RELAY, A)

    def test_of_one_route_each_pattern_by_itself(self) -> None:
        routes = RouteList([Route(["*", "example.org"], A)])
        assert (outcome(routes, "x@example.org"), outcome(routes, "x@x.test")) == (A, DENIED)

    def test_a_network_of_a_route_is_not_trusted_by_that(self) -> None:
        assert outcome(RouteList([Route("*", A, networks="10.0.0.0/8")]), "x@x.test", NEAR) == DENIED

    def test_a_domain_that_is_passed_on_is_not_ours(self) -> None:
        routes = RouteList([Route("example.org", A), Route("tim@x.test", RELAY), Route("gone.test", REJECT)])
        assert [outcome(routes, f"x@{name}") for name in ("x.test", "gone.test")] == [DENIED, REJECTED]


class TestReject:
    @pytest.mark.parametrize(
        ("reply", "said"),
        [
            (None, "550 5.7.1 Recipient address denied"),
            ("Tim has left", "550 5.7.1 Tim has left"),
            ("450 4.2.1 Back on Monday", "450 4.2.1 Back on Monday"),
            ("553 Not here", "553 Not here"),
            ("550 5.1.1", "550 5.1.1 " + SMTPError(550).message),
            ("5505 is no code", "550 5.7.1 5505 is no code"),
            (MailboxUnavailable("Never heard of"), "550 5.1.1 Never heard of"),
        ],
    )
    def test_what_is_said(self, reply: Any, said: str) -> None:
        refusal = Reject() if reply is None else Reject(reply)
        routes = RouteList([Route("tim@example.org", refusal), Route("example.org", A)])
        assert outcome(routes, "tim@example.org") == outcome(routes, "tim+x@example.org") == said
        assert outcome(routes, "tom@example.org") is A

    @pytest.mark.parametrize("text", ["250 2.0.0 Fine", "550 4.1.1 Well", "550 5.1.1000 x", "650 x"])
    def test_what_refuses_nothing(self, text: str) -> None:
        with pytest.raises(ConfigError, match=f"reject '{text}'"):
            Reject(text)

    def test_it_needs_no_guard(self) -> None:
        routes = RouteList([Route("example.org", A), Route("*", Reject("Go away"))])
        assert outcome(routes, "x@x.test") == "550 5.7.1 Go away"

    def test_the_exception_is_another_one_each_time(self) -> None:
        assert Reject().error() is not Reject().error()
        assert Reject("x") == Reject("550 5.7.1 x") != REJECT
        assert len({Reject("x"), Reject("550 5.7.1 x"), REJECT}) == 2


class TestPostmaster:
    @pytest.mark.parametrize(
        ("routes", "hostname", "expected"),
        [
            # a route of its own, wherever it stands
            ([Route("mx.example.org", A), Route("postmaster", B)], HOST, B),
            # our own name
            ([Route("example.org", A), Route("mx.example.org", B)], "MX.example.org", B),
            ([Route("example.org", A), Route(".example.org", B)], HOST, B),
            ([Route("example.org", A), Route("postmaster@mx.example.org", B)], HOST, B),
            # no route is for that: the first that strangers may write to
            ([Route("tim@example.org", A), Route("example.org", B), Route("x.test", C)], HOST, B),
            ([Route("x.test", RELAY), Route("y.test", REJECT), Route("z.test", C)], HOST, C),
            ([Route("x.test", A, logins=True), Route(".z.test", C)], HOST, C),
            ([Route("postmaster@x.test", REJECT), Route("x.test", A), Route("y.test", B)], HOST, B),
            # not what is for all domains, if it can be helped
            ([Route("*", REJECT), Route("example.org", A)], HOST, A),
            ([Route("example.org", A), Route("*", REJECT)], HOST, A),
            ([Route("postmaster", REJECT), Route("example.org", A)], HOST, REJECTED),
            ([Route("*", A)], HOST, NO_MAILBOX),
        ],
    )
    def test_where_it_goes(self, routes: list[Route], hostname: str, expected: object) -> None:
        for name in ("postmaster", "PostMaster"):
            assert outcome(RouteList(routes), name, hostname=hostname) == expected

    def test_not_to_a_relay_if_it_can_be_helped(self) -> None:
        routes = RouteList([Route("*", RELAY), Route("example.org", A)])
        assert outcome(routes, "postmaster", TIM) is A
        assert outcome(RouteList([Route("*", RELAY)]), "postmaster", TIM) is RELAY

    @pytest.mark.parametrize(
        "routes",
        [
            [],
            [Route("tim@example.org", A)],
            [Route("example.org", REJECT)],
            [Route(["list-*@*", "x@*"], A), Route("*", REJECT)],
        ],
    )
    def test_nobody(self, routes: list[Route]) -> None:
        with pytest.raises(ConfigError, match="nobody is named for <postmaster>"):
            RouteList(routes)

    @pytest.mark.parametrize("to", ["*", "post*@*", "postmaster@*", "postmaster", "example.org", "*.org", "p*@x.test"])
    def test_somebody(self, to: str) -> None:
        assert RouteList([Route("tim@example.org", A), Route(to, A)]).backends == (A,)


@pytest.mark.parametrize(
    ("make", "said"),
    [
        (lambda: Route((), A), "whom it is for"),
        (lambda: Route(["example.org", "a b"], A), "route 'a b': it is an address"),
        (lambda: Route("example.org", "a text"), "route 'example.org': 'a text' is neither a backend"),  # type: ignore
        (lambda: Route("example.org", A, logins=()), "logins: write names"),
        (lambda: Route("example.org", A, logins=["tim", ""]), "logins: write names"),
        (lambda: Route("example.org", A, logins=False), "logins: write names"),  # type: ignore[arg-type]
        (lambda: Route("example.org", A, networks=()), "route 'example.org': networks: there is none"),
        (lambda: Route("example.org", A, networks=["10.0.0.0/33"]), "networks: '10.0.0.0/33' is no network"),
        (lambda: RouteList([Route("*", A)], trusted="x"), "trusted: 'x' is no network"),
        (lambda: RouteList([Route("*", A)], tag="+-"), "tag '+-': it is one character"),
        (lambda: RouteList([Route("*", A)], tag="x"), "tag 'x'"),
        (lambda: RouteList([Route("*", A)], tag="@"), "tag '@'"),
        (lambda: RouteList([Route("*", A)], tag=" "), "tag ' '"),
        (lambda: MuxBackend(RouteList([Route("*", A)]), B), "a list of routes has no default"),
    ],
)
def test_what_is_no_route_or_list(make: Any, said: str) -> None:
    with pytest.raises(ConfigError) as raised:
        make()
    assert said in str(raised.value)
    assert "\n" not in str(raised.value)


NEVER = "can never match"


@pytest.mark.parametrize(
    ("routes", "settings", "expected"),
    [
        ([Route("example.org", A), Route("*", RELAY)], {}, []),
        (
            [Route("example.org", A), Route(["tim@example.org", "tom@example.org"], B)],
            {},
            [f"route 2 (to tim@example.org, tom@example.org) {NEVER}: all of it is taken by route 1 (to example.org)"],
        ),
        (
            [Route("a.test", A), Route("b.test", A), Route(["x@a.test", "x@b.test"], B)],
            {},
            [
                f"route 3 (to x@a.test, x@b.test) {NEVER}: all of it is taken by route 1 (to a.test) and route 2 (to "
                "b.test)"
            ],
        ),
        ([Route("a.test", A), Route(["x@a.test", "x@b.test"], B)], {}, []),
        ([Route("tim@a.test", A), Route("tim+x@a.test", B), Route("postmaster", A)], {}, []),
        (
            [Route("tim@a.test", A), Route("tim+*@a.test", B), Route("postmaster", A)],
            {},
            [f"route 2 (to tim+*@a.test) {NEVER}: all of it is taken by route 1 (to tim@a.test)"],
        ),
        ([Route("tim@a.test", A), Route("tim+*@a.test", B), Route("postmaster", A)], {"tag": ""}, []),
        # What is for everybody goes on where a guarded route stops, and a refusal is no guard.
        ([Route("*", RELAY), Route("example.org", A)], {}, []),
        (
            [Route("*", REJECT), Route("example.org", A)],
            {},
            [f"route 2 (to example.org) {NEVER}: all of it is taken by route 1 (to *)"],
        ),
        (
            [Route("*", RELAY), Route("x.test", RELAY)],
            {},
            [f"route 2 (to x.test) {NEVER}: all of it is taken by route 1 (to *)"],
        ),
        (
            [Route("*", RELAY), Route("x.test", A, logins={"tim"})],
            {},
            [f"route 2 (to x.test) {NEVER}: all of it is taken by route 1 (to *)"],
        ),
        ([Route("*", RELAY), Route("x.test", A, networks="10.0.0.0/8")], {}, []),
        ([Route("x.test", A, logins={"tim", "tom"}), Route("x.test", A, logins={"tim", "tam"})], {}, []),
        (
            [Route("x.test", A, logins={"tim", "tom"}), Route("x.test", A, logins={"tim"})],
            {},
            [f"route 2 (to x.test) {NEVER}: all of it is taken by route 1 (to x.test)"],
        ),
        ([Route("x.test", A, logins={"tim"}), Route("x.test", A, logins=True)], {}, []),
        (
            [Route("x.test", A, logins=True), Route("x.test", A, logins={"tim"})],
            {},
            [f"route 2 (to x.test) {NEVER}: all of it is taken by route 1 (to x.test)"],
        ),
        ([Route("x.test", A, logins=True), Route("x.test", A)], {}, []),
        ([Route("x.test", A, networks="10.0.0.0/8"), Route("x.test", A)], {}, []),
        (
            [Route("x.test", A, networks="10.0.0.0/8"), Route("X.test", A, networks=["10.0.0.0/8"])],
            {},
            [f"route 2 (to X.test) {NEVER}: all of it is taken by route 1 (to x.test)"],
        ),
        ([Route("*", A), Route("postmaster", A)], {}, []),
        # nobody can be whom they are for
        (
            [Route("example.org", A), Route("*", RELAY)],
            {"auth": False},
            [f"route 2 (to *) {NEVER}: it is for clients that have authenticated or are trusted, and nobody can or is"],
        ),
        (
            [Route(["example.org", "x@*"], A)],
            {"auth": False},
            [
                f"route 1 (to example.org, x@*) {NEVER} mail for x@*: it is for clients that have authenticated or are "
                "trusted, and nobody can or is"
            ],
        ),
        ([Route("example.org", A), Route("*", RELAY)], {"auth": False, "trusted": "10.0.0.0/8"}, []),
        ([Route("example.org", A), Route("*", REJECT)], {"auth": False}, []),
        (
            [Route("x.test", A, logins="tim"), Route("x.test", B)],
            {"auth": False, "trusted": "10.0.0.0/8"},
            [f"route 1 (to x.test) {NEVER}: it is for clients that have authenticated, and nobody can"],
        ),
    ],
)
def test_problems(routes: list[Route], settings: dict[str, Any], expected: list[str]) -> None:
    assert RouteList(routes, **settings).problems() == expected


class TestInWords:
    def words(self, *routes: Route, **settings: Any) -> list[str]:
        return [words for words, _ in RouteList(routes, **settings).describe()[1:-2]]

    def test_who_may(self) -> None:
        assert self.words(
            Route(["example.org", "*"], A),
            Route(".test", A, logins=True, networks="10.0.0.0/8"),
            Route("postmaster", A, logins=["Tom", "tim"]),
            Route("*", REJECT),
        ) == [
            "example.org; * from clients that have authenticated",
            ".test from clients in 10.0.0.0/8 that have authenticated",
            "<postmaster> from clients that have authenticated as tim, tom",
            "* is refused: 550 5.7.1 Recipient address denied",
        ]

    @pytest.mark.parametrize(
        ("settings", "manner"),
        [
            ({"trusted": ["10.0.0.0/8", "unix"]}, "have authenticated or are in 10.0.0.0/8, unix"),
            ({"trusted": "10.0.0.0/8", "auth": False}, "are in 10.0.0.0/8"),
            ({"auth": False}, "are trusted, which none is"),
        ],
    )
    def test_the_guard(self, settings: dict[str, Any], manner: str) -> None:
        assert self.words(Route("*", A), **settings) == [f"* from clients that {manner}"]

    def test_thousands(self) -> None:
        many = [f"u{number}@example.org" for number in range(1000)]
        route = Route([*many, "postmaster"], A)
        assert self.words(route) == ["u0@example.org, u1@example.org, u2@example.org and 998 more"]

    def test_as_a_backend(self) -> None:
        routes = [Route("example.org", DISCARD), Route("tim@x.test", REJECT), Route("x.test", DISCARD)]
        assert MuxBackend(RouteList(routes)).describe() == [
            "Mail for a recipient goes by the first of these routes that fits.",
            "Mail for example.org:",
            "  Mail is accepted and thrown away",
            "Mail for tim@x.test is refused: 550 5.7.1 Recipient address denied.",
            "Mail for x.test:",
            "  As for example.org.",
            "Mail for user+tag goes where that for user goes, if nothing above is for it.",
            "Mail for everybody else is refused: 550 5.1.1 in the domains of ours, 550 5.7.1 in others.",
        ]
        untagged = MuxBackend(RouteList(routes, tag="")).describe()
        assert not [line for line in untagged if "tag" in line]


def test_thousands_of_addresses_are_not_tried_one_after_the_other() -> None:
    tried: list[str] = []

    class Counted(Networks):
        def include(self, connection: Any) -> bool:
            tried.append(connection.peer_host)
            return True

    everywhere = Counted("0.0.0.0/0")
    routes = [Route(f"u{number}@example.org", A, networks=everywhere) for number in range(2000)]
    assert outcome(RouteList([*routes, Route("example.org", B)]), "u1999@example.org") is A
    assert len(tried) == 1


# A reference: every route, one after the other, by other means.

LOCALS = ["tim", "tim+x", "tim+x+y", "tom", "list-a", "postmaster"]
HOSTS = ["a.test", "b.a.test", "c.b.a.test", "z.test"]
PATTERNS = st.one_of(
    st.builds(
        "{}@{}".format,
        st.sampled_from(["tim", "tim+x", "list-*", "t*", "*+x", "*", "postmaster"]),
        st.sampled_from([*HOSTS, "*", ".a.test", "*.b.a.test"]),
    ),
    st.sampled_from(["*", *HOSTS, ".a.test", "*.test", "postmaster"]),
)
CLIENTS = [STRANGER, ANONYMOUS, TIM, Client("tom", "PLAIN"), NEAR]
ROUTES = st.builds(
    Route,
    st.lists(PATTERNS, min_size=1, max_size=2),
    st.builds(SessionBackend, st.just(Session)) | st.builds(Relay, st.just(Session)) | st.just(REJECT),
    logins=st.sampled_from([None, None, None, True, "tim"]),
    networks=st.sampled_from([None, None, None, "10.0.0.0/8"]),
)


def naive(routes: Sequence[Route], local_part: str, domain: str, client: Client) -> object:
    known = client.identity and client.mechanism != "ANONYMOUS"

    def fits(route: Route, pattern: str, name: str) -> bool:
        if route.logins is not None and not known:
            return False
        if isinstance(route.logins, frozenset) and client.identity.lower() not in route.logins:
            return False
        if route.networks is not None and client is not NEAR:
            return False
        user, _, host = pattern.rpartition("@")
        elsewhere = host == "*" or isinstance(route.outcome, Relay)
        if elsewhere and route.outcome is not REJECT and not known:
            return False
        host = f"*{host}" if host.startswith(".") else host
        return pattern != "postmaster" and fnmatchcase(name, user or "*") and fnmatchcase(domain, host)

    def position(name: str) -> int:
        for number, route in enumerate(routes):
            if any(fits(route, pattern.text, name) for pattern in route.patterns):
                return number
        return len(routes)

    found, tagged = position(local_part), position(local_part.partition("+")[0])
    if found < len(routes):
        own = [pattern.text for pattern in routes[found].patterns if fits(routes[found], pattern.text, local_part)]
        if any(text.startswith(f"{local_part}@") for text in own):
            tagged = found
    first = min(found, tagged)
    if first < len(routes):
        return REJECTED if routes[first].outcome is REJECT else routes[first].outcome
    ours = [
        pattern.text.rpartition("@")[2]
        for route in routes
        for pattern in route.patterns
        if isinstance(route.outcome, SessionBackend) and not isinstance(route.outcome, Relay)
    ]
    ours = [f"*{host}" if host.startswith(".") else host for host in ours if host not in ("*", "postmaster")]
    return NO_MAILBOX if any(fnmatchcase(domain, host) for host in ours) else DENIED


@given(st.lists(ROUTES, max_size=6), st.sampled_from(LOCALS), st.sampled_from(HOSTS), st.sampled_from(CLIENTS))
def test_as_a_search_one_after_the_other(routes: list[Route], local_part: str, domain: str, client: Client) -> None:
    routes = [*routes, Route("postmaster", A)]
    assert outcome(RouteList(routes), f"{local_part}@{domain}", client) == naive(routes, local_part, domain, client)


@given(st.lists(ROUTES, max_size=6), st.sampled_from(LOCALS), st.sampled_from(HOSTS), st.sampled_from(CLIENTS))
def test_a_route_that_is_a_problem_is_never_taken(
    routes: list[Route], local_part: str, domain: str, client: Client
) -> None:
    routes = [*routes, Route("postmaster", A)]
    found = outcome(RouteList(routes), f"{local_part}@{domain}", client)
    taken = [f"route {number} " for number, route in enumerate(routes, 1) if route.outcome is found]
    assert not [one for one in RouteList(routes).problems() if taken and one.startswith(taken[0])]


def test_very_many_patterns_are_not_compared_with_each_other() -> None:
    """A service that reads its configuration again would stand still for as long."""
    wild = [Route(f"u{number}*@a.test", REJECT) for number in range(MAX_SEARCHED + 1)]
    routes = [*wild, Route("a.test", DISCARD), Route("x@a.test", DISCARD)]
    assert RouteList(routes).problems() == []
    assert "x@a.test" in RouteList(routes[1:]).problems()[-1]
