"""
Configuration: strings in, checked and frozen values out.

``settings`` is the table of all settings, ``options`` the command line made of
it, ``plan`` what comes out of that: listeners, a backend, limits, TLS.
"""

from smtpfw.config.plan import ServicePlan, make_plan

__all__ = ["ServicePlan", "make_plan"]
