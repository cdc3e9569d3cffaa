"""Mail to several backends, by its recipients. See :mod:`smtpfw.backends.mux.backend`."""

from smtpfw.backends.mux.backend import MuxBackend
from smtpfw.backends.mux.route_list import DISCARD, REJECT, Reject, Route, RouteList

__all__ = ["DISCARD", "REJECT", "MuxBackend", "Reject", "Route", "RouteList"]
