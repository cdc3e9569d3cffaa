"""Relays of others, for tests: they say that they pass mail on, and may or may not ask who the client is."""

from __future__ import annotations

from smtpfw.backends.filter import FilterBackend
from smtpfw.backends.mux import MuxBackend
from smtpfw.backends.relay import RelayBackend
from smtpfw.testing import RecordingBackend


class Open(RecordingBackend):
    """Takes what it is given."""

    relays = True


class Guarded(Open):
    """Asks."""

    trusted = ("10.0.0.0/8",)


def open_filter() -> FilterBackend:
    """In front of one that does not ask."""
    return FilterBackend(print, Open())


def guarded_filter() -> FilterBackend:
    """In front of one that does."""
    return FilterBackend(print, RelayBackend("192.0.2.1", trusted=["10.0.0.0/8"]))


def open_table() -> MuxBackend:
    """Some mail goes to one that does not ask."""
    return MuxBackend({"example.org": RecordingBackend()}, default=Open())


def guarded_table() -> MuxBackend:
    """Some mail goes to one that does."""
    return MuxBackend({"example.org": RecordingBackend()}, default=RelayBackend("192.0.2.1", trusted=["10.0.0.0/8"]))


def unguarded() -> RelayBackend:
    """One of ours, made to stand behind routes, and standing alone."""
    return RelayBackend("mail.example.org", guarded=False)
