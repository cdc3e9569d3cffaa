"""
Configuration: options and a file in, checked and frozen values out.

``settings`` is the table of all settings, ``options`` the command line made of
it, ``schema`` the keys of a file. Both are read into one ``tree``, and ``plan``
is what comes out of that: listeners, deliveries, limits, TLS.
"""

from smtpfw.config.plan import ServicePlan, make_plan
from smtpfw.config.reading import read_tree

__all__ = ["ServicePlan", "make_plan", "read_tree"]
