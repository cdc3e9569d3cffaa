"""Mail to several backends, by its recipients. See :mod:`smtpfw.backends.mux.backend`."""

from smtpfw.backends.mux.backend import MuxBackend

__all__ = ["MuxBackend"]
