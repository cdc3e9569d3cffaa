"""
A filter between two servers: a message is marked, put aside or refused by what is in it, and goes on by SMTP.

With a server behind it that listens on port 10026 of this machine::

    twistd -n smtpfw --python-path . --backend examples.content_filter:make:127.0.0.1:10026:./Quarantine
"""

from smtpfw.backends.filter import FilterBackend, Verdict
from smtpfw.backends.handler import Envelope
from smtpfw.backends.maildir import MaildirBackend
from smtpfw.backends.relay import RelayBackend
from smtpfw.errors import TransactionFailed

#: The file that every virus scanner finds, and that harms nobody.
EICAR = b"EICAR-STANDARD-ANTIVIRUS-TEST-FILE"


def judge(envelope: Envelope, message: bytes) -> Verdict | bytes:
    if EICAR in message:
        raise TransactionFailed("There is a virus in it")
    if b"lottery" in message.lower():
        return Verdict.QUARANTINE
    return b"X-Checked: yes\r\n" + message


def make(host: str, port: str, quarantine: str) -> FilterBackend:
    # Whoever can connect is a server of ours: it listens on loopback only.
    target = RelayBackend(f"{host}:{port}", trusted=["127.0.0.0/8", "::1"])
    return FilterBackend(judge, target, quarantine=MaildirBackend(quarantine))
