"""
What one listener serves, or one client does, and within which limits: one frozen object, passed by reference.

Units stand in the names or are these: sizes in octets, times in seconds, 0
for "no limit". Every default carries its precedents.
"""

from __future__ import annotations

import re
from dataclasses import dataclass, fields

from smtpfw.errors import ConfigError
from smtpfw.wire.profiles import DEFAULT, Profile

#: RFC 5321 section 4.1.2: a domain, or an address literal for a host that has none. Underscores are common inside.
HOSTNAME_PATTERN = re.compile(r"[A-Za-z0-9_](?:[A-Za-z0-9_.-]{0,253}[A-Za-z0-9_])?|\[[0-9A-Za-z:.]{2,64}\]")

SMTP = "smtp"
LMTP = "lmtp"


@dataclass(frozen=True, slots=True, kw_only=True)
class ServerConfig:
    """
    The settings of a listener.

    :raises ConfigError: for a host name that is none, or a number below 0.

    :ivar hostname: our own name: first word of the greeting and of the answer to EHLO.
    :ivar protocol: ``smtp``, or ``lmtp`` (RFC 2033).
    :ivar software: what stands behind the name in the greeting.
    :ivar profile: how strictly commands and bodies are read.
    :ivar require_tls: refuse all but NOOP, EHLO, STARTTLS and QUIT on a clear line (RFC 3207 section 4).
    :ivar submission: add Date and Message-ID to messages that lack them (RFC 6409 section 8), those of clients that
        have authenticated; where nobody can, those of all clients. None: no; but a plan of ``twistd smtpfw`` says yes
        where AUTH is required.
    :ivar max_message_bytes: decoded octets of one message (RFC 1870).
    :ivar max_discarded_bytes: octets of a refused message that are read on, to keep the session alive, before 421.
    :ivar max_recipients: accepted RCPTs in one transaction.
    :ivar max_connections: clients at a time; one more is answered 421 4.3.2.
    :ivar max_connections_per_address: the same for one IPv4 address, or one /64 of IPv6: 421 4.7.0. Those of this
        machine are not counted.
    :ivar max_buffered_bytes: octets of one connection that wait for their turn, or for the session to read them, before
        the client is paused.
    :ivar max_memory_bytes: octets of messages that all connections together may keep in memory; above it, who wants to
        send another message is answered 452 4.3.1.
    :ivar max_commands_without_mail: commands that bring no message nearer (NOOP, RSET, VRFY, EHLO ...), before 421;
        each message that is sent allows as many again.
    :ivar max_syntax_errors: unreadable or unknown commands on one connection before 421.
    :ivar max_sequence_errors: commands at the wrong moment before 421.
    :ivar max_recipient_errors: refused recipients before 421.
    :ivar max_authentication_errors: wrong credentials before 421.
    :ivar proxy_timeout: for the PROXY header of a connection that has to have one.
    :ivar tls_handshake_timeout: for the handshake of STARTTLS and of implicit TLS.
    :ivar greeting_timeout: from the greeting until the client has introduced itself.
    :ivar command_timeout: for the next command.
    :ivar data_timeout: for the next octets of a body.
    :ivar message_timeout: for a whole body.
    :ivar min_data_rate: octets a second that a body must come with, on average, after its first minute.
    :ivar session_timeout: for a whole connection; a body under way is not cut by it.
    :ivar write_timeout: for a peer that does not read its replies.
    """

    hostname: str
    protocol: str = SMTP
    software: str = "smtpfw"
    profile: Profile = DEFAULT
    require_tls: bool = False
    submission: bool | None = None  # Postfix, Exim and Sendmail do it for clients that they call local

    max_message_bytes: int = 50 * 1024 * 1024  # Exim 50 MiB; aiosmtpd 32 MiB; Postfix and chrj/smtpd 10,240,000
    max_discarded_bytes: int = 64 * 1024 * 1024  # Exim and Postfix read on without a bound
    max_recipients: int = 1000  # Postfix 1,000; chrj/smtpd 100; RFC 5321 section 4.5.3.1.8: at least 100

    max_connections: int = 10_000  # chrj/smtpd and Postfix (default_process_limit) 100; here one costs 3 KiB
    max_connections_per_address: int = 50  # Postfix smtpd_client_connection_count_limit 50
    max_buffered_bytes: int = 128 * 1024  # twice what Twisted reads at a time
    max_memory_bytes: int = 512 * 1024 * 1024  # ten messages of the largest size, or 4,000 clients that wait
    max_commands_without_mail: int = 100  # Postfix smtpd_junk_command_limit 100; Exim smtp_accept_max_nonmail 10
    max_syntax_errors: int = 20  # Postfix smtpd_hard_error_limit 20, all kinds together
    max_sequence_errors: int = 20
    max_recipient_errors: int = 100  # a mailing list may have many dead addresses
    max_authentication_errors: int = 5  # OpenSSH MaxAuthTries 6; Postfix counts them with all others, up to 20

    proxy_timeout: float = 5.0  # Postfix postscreen_upstream_proxy_timeout and smtpd_upstream_proxy_timeout 5
    tls_handshake_timeout: float = 30.0  # Postfix 300, nginx 60; a handshake has no human in it
    greeting_timeout: float = 120.0  # OpenSSH LoginGraceTime 120; Postfix and Exim give it what they give any command
    command_timeout: float = 300.0  # RFC 5321 section 4.5.3.2.7: at least 5 minutes
    data_timeout: float = 180.0  # RFC 5321 section 4.5.3.2.5: 3 minutes for a block
    message_timeout: float = 3600.0  # Exim limits nothing here; a drip of an octet a minute would last for years
    min_data_rate: float = 0.0  # off: a phone on a train is slow, too
    session_timeout: float = 0.0  # off: a busy relay keeps its connection
    write_timeout: float = 120.0  # Exim 300, chrj/smtpd 60

    def __post_init__(self) -> None:
        if not HOSTNAME_PATTERN.fullmatch(self.hostname):
            # It is sent as it is, and must not end a line or begin another word.
            raise ConfigError(f"hostname: {self.hostname!r} is no host name; write one as mx.example.org")
        if self.protocol not in (SMTP, LMTP):
            raise ConfigError(f"protocol: {self.protocol!r} is neither {SMTP} nor {LMTP}")
        if not isinstance(self.profile, Profile):
            raise ConfigError(f"profile: {self.profile!r} is no Profile; take one of smtpfw.wire.profiles.PROFILES")
        _check_numbers(self)

    @property
    def max_read_bytes(self) -> int:
        """Octets of a message that are read at most, the refused ones with them; 0 for no limit."""
        if not (self.max_message_bytes and self.max_discarded_bytes):
            return 0
        return self.max_message_bytes + self.max_discarded_bytes


@dataclass(frozen=True, slots=True, kw_only=True)
class ClientConfig:
    """
    The settings of a client; one object serves any number of connections.

    The time limits are those of RFC 5321 section 4.5.3.2, which are minima for who does not want to lose mail; a
    program that a person waits for takes shorter ones.

    :raises ConfigError: for a name that is none, or a number below 0.

    :ivar hello_name: what it calls itself; empty for the name of this machine, or its address where it has none.
    :ivar pipelining: send ahead where the peer offers PIPELINING (RFC 2920).
    :ivar chunking: send messages by BDAT where the peer offers CHUNKING (RFC 3030).
    :ivar chunk_bytes: octets of a chunk.
    :ivar max_reply_bytes: octets of one reply, all its lines together, before the peer is given up.
    :ivar connect_timeout: until there is a connection.
    :ivar tls_handshake_timeout: for the handshake of STARTTLS and of implicit TLS.
    :ivar greeting_timeout: for the greeting.
    :ivar command_timeout: for the answer to a command, one of MAIL and RCPT, too.
    :ivar data_timeout: for the answer to DATA.
    :ivar block_timeout: for the peer to take some more of a message, or to answer a chunk.
    :ivar end_timeout: for the answer to a whole message. Who gives up earlier will send many a message twice.
    :ivar quit_timeout: for the answer to QUIT, on which nothing depends.
    """

    hello_name: str = ""
    pipelining: bool = True
    chunking: bool = True
    chunk_bytes: int = 256 * 1024
    max_reply_bytes: int = 128 * 1024  # EHLO answers have 1 KiB; aiosmtplib 64 KiB a line

    connect_timeout: float = 30.0  # Postfix smtp_connect_timeout 30; Exim connect_timeout 300
    tls_handshake_timeout: float = 30.0
    greeting_timeout: float = 300.0  # RFC 5321 section 4.5.3.2.1
    command_timeout: float = 300.0  # RFC 5321 sections 4.5.3.2.2 and 4.5.3.2.3
    data_timeout: float = 120.0  # RFC 5321 section 4.5.3.2.4
    block_timeout: float = 180.0  # RFC 5321 section 4.5.3.2.5
    end_timeout: float = 600.0  # RFC 5321 section 4.5.3.2.6
    quit_timeout: float = 10.0

    def __post_init__(self) -> None:
        if self.hello_name and not HOSTNAME_PATTERN.fullmatch(self.hello_name):
            raise ConfigError(f"hello_name: {self.hello_name!r} is no host name; write one as mail.example.org")
        if self.chunk_bytes < 1:
            raise ConfigError(f"chunk_bytes: {self.chunk_bytes!r} is too small for a chunk")
        _check_numbers(self)


def _check_numbers(config: ServerConfig | ClientConfig) -> None:
    for field in fields(config):
        value = getattr(config, field.name)
        if isinstance(field.default, (int, float)) and not (isinstance(value, (int, float)) and value >= 0):
            raise ConfigError(f"{field.name}: {value!r} is no number from 0; 0 is for no limit")
