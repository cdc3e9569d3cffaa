"""
Ready-made checks: who may connect, who may send as whom, and how much.

Each is a :class:`~smtpfw.check.Check` in a file of its own; one object serves all connections of its listeners.
"""

from smtpfw.networks import Networks
from smtpfw.policies.concurrency import Concurrency
from smtpfw.policies.dnsbl import DNSBL
from smtpfw.policies.early_talkers import EarlyTalkers
from smtpfw.policies.greylist import Greylist
from smtpfw.policies.loop_limit import LoopLimit
from smtpfw.policies.networks import AllowedNetworks
from smtpfw.policies.rate_limit import Rate, RateLimit
from smtpfw.policies.require_auth import RequireAuth
from smtpfw.policies.require_tls import RequireTLS
from smtpfw.policies.reverse_dns import ReverseDNS
from smtpfw.policies.sender_login import SenderBelongsToLogin

__all__ = [
    "DNSBL",
    "AllowedNetworks",
    "Concurrency",
    "EarlyTalkers",
    "Greylist",
    "LoopLimit",
    "Networks",
    "Rate",
    "RateLimit",
    "RequireAuth",
    "RequireTLS",
    "ReverseDNS",
    "SenderBelongsToLogin",
]
