"""
Mail clients that people have, each told to log in by one mechanism and to send one small message.

A client is a function of a :class:`Login`; :data:`CLIENTS` is the table of them,
with what each knows. All of them verify the server's certificate.
"""

from __future__ import annotations

import asyncio
import importlib.util
import json
import os
import shlex
import shutil
import smtplib
import ssl
import subprocess
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

SENDER = "sender@example.net"
MESSAGE = b"From: sender@example.net\r\nSubject: x\r\n\r\ntext\r\n"

#: Names the folder of node_modules that holds nodemailer; without it, node's own places are searched.
NODE_MODULES = "SMTPFW_TEST_NODE_MODULES"

STARTTLS, IMPLICIT = "starttls", "implicit"
TIMEOUT = 60.0


@dataclass(frozen=True, slots=True)
class Login:
    """
    What a client is told.

    :ivar way: STARTTLS or IMPLICIT.
    :ivar secret: the password; the token, where the mechanism wants one.
    :ivar authority: a PEM file with the certificate that the server's is verified with.
    :ivar certificate: a PEM file with certificate and key of the client's own, for EXTERNAL.
    :ivar folder: the client's own, for what it reads and leaves.
    """

    mechanism: str
    way: str
    port: int
    user: str
    secret: str
    recipient: str
    authority: Path
    certificate: Path
    folder: Path

    @property
    def has_token(self) -> bool:
        return self.mechanism in ("OAUTHBEARER", "XOAUTH2")

    @property
    def implicit(self) -> bool:
        return self.way == IMPLICIT


@dataclass(frozen=True, slots=True)
class Outcome:
    """
    What came of it.

    :ivar accepted: whether the client says that its message has been taken.
    :ivar output: what it printed.
    """

    accepted: bool
    output: str


@dataclass(frozen=True, slots=True)
class Client:
    """
    One client.

    :ivar send: how it is told.
    :ivar mechanisms: all that it knows and smtpfw serves.
    :ivar missing: why it cannot be run here; empty if it can.
    :ivar ways: the ways to TLS that it knows.
    :ivar leaves_at_json: whether it takes the JSON that explains the failure of a token for the failure itself, and
        goes without waiting for the 535.
    """

    send: Callable[[Login], Outcome]
    mechanisms: tuple[str, ...]
    missing: Callable[[], str]
    ways: tuple[str, ...] = (STARTTLS, IMPLICIT)
    leaves_at_json: bool = False


def run(login: Login, *words: object, octets: bytes = MESSAGE, **environment: str) -> Outcome:
    """Run a command, its home in the login's folder, so that nobody's own settings matter."""
    done = subprocess.run(
        [str(word) for word in words],
        input=octets,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        timeout=TIMEOUT,
        check=False,
        cwd=login.folder,
        env={**os.environ, "HOME": str(login.folder), **environment},
    )
    return Outcome(done.returncode == 0, done.stdout.decode(errors="replace"))


def swaks(login: Login) -> Outcome:
    tls = ("--tlsc" if login.implicit else "--tls", "--tls-verify", "--tls-ca-path", login.authority)
    return run(
        login,
        *("swaks", "--server", f"localhost:{login.port}", *tls),
        *("--auth", login.mechanism, "--auth-user", login.user, "--auth-password", login.secret),
        *("--from", SENDER, "--to", login.recipient),
    )


def curl(login: Login) -> Outcome:
    secret: tuple[object, ...] = ("--user", f"{login.user}:{login.secret}")
    if login.has_token:
        secret = ("--user", f"{login.user}:", "--oauth2-bearer", login.secret)
    if login.mechanism == "EXTERNAL":
        secret = ("--user", f"{login.user}:", "--cert", login.certificate)
    url = f"{'smtps' if login.implicit else 'smtp'}://localhost:{login.port}/client.example.net"
    return run(
        login,
        *("curl", "--disable", "--silent", "--verbose", "--ssl-reqd", "--cacert", login.authority, url),
        *("--login-options", f"AUTH={login.mechanism}", *secret),
        *("--mail-from", SENDER, "--mail-rcpt", login.recipient, "--upload-file", "-"),
    )


def msmtp(login: Login) -> Outcome:
    starttls = "off" if login.implicit else "on"
    tls = ("--tls=on", f"--tls-starttls={starttls}", f"--tls-trust-file={login.authority}")
    secret: tuple[str, ...] = (f"--passwordeval=printf %s {shlex.quote(login.secret)}",)
    if login.mechanism == "EXTERNAL":
        secret = (f"--tls-cert-file={login.certificate}", f"--tls-key-file={login.certificate}")
    return run(
        login,
        *("msmtp", "--debug", "--file=/dev/null", "--host=localhost", f"--port={login.port}", *tls),
        *(f"--auth={login.mechanism.lower()}", f"--user={login.user}", *secret),
        *(f"--from={SENDER}", login.recipient),
        octets=MESSAGE.replace(b"\r\n", b"\n"),
    )


#: What its ``smtp-auth`` calls them. The bearer of its oauthbearer is XOAUTH2's.
S_NAIL_WORDS = {
    "PLAIN": "plain",
    "LOGIN": "login",
    "CRAM-MD5": "cram-md5",
    "XOAUTH2": "oauthbearer",
    "EXTERNAL": "external",
}


def s_nail(login: Login) -> Outcome:
    settings = {
        "mta": f"{'smtps' if login.implicit else 'smtp'}://localhost:{login.port}",
        "smtp-auth": S_NAIL_WORDS[login.mechanism],
        "user": login.user,
        "password": login.secret,
        "tls-ca-file": login.authority,
        "tls-verify": "strict",
    }
    if login.mechanism == "EXTERNAL":
        settings["tls-config-pairs"] = f"Certificate={login.certificate},PrivateKey={login.certificate}"
    switches = ["v15-compat", "tls-ca-no-defaults", "nosave", "sendwait", *["smtp-use-starttls"] * (not login.implicit)]
    return run(
        login,
        *("s-nail", "-:/", "-vv", *(f"-S{name}={value}" for name, value in settings.items())),
        *(f"-S{name}" for name in switches),
        *("-r", SENDER, "-s", "x", login.recipient),
        octets=b"text\n",
    )


def nodemailer(login: Login) -> Outcome:
    auth = {"user": login.user, "pass": login.secret}
    if login.has_token:
        auth = {"type": "OAuth2", "user": login.user, "accessToken": login.secret}
    transport = {
        "host": "localhost",
        "port": login.port,
        "secure": login.implicit,
        "requireTLS": not login.implicit,
        "authMethod": login.mechanism,
        "auth": auth,
        "tls": {"ca": str(login.authority)},
    }
    script = Path(__file__).with_name("nodemailer.cjs")
    order = json.dumps({"transport": transport, "from": SENDER, "to": login.recipient})
    return run(login, "node", script, order, NODE_PATH=os.environ.get(NODE_MODULES, ""))


def smtp_lib(login: Login) -> Outcome:
    context = ssl.create_default_context(cafile=login.authority)
    client: smtplib.SMTP
    if login.implicit:
        client = smtplib.SMTP_SSL("localhost", login.port, context=context, timeout=TIMEOUT)
    else:
        client = smtplib.SMTP("localhost", login.port, timeout=TIMEOUT)
    with client:
        if not login.implicit:
            client.starttls(context=context)
        client.ehlo()
        client.user, client.password = login.user, login.secret
        try:
            client.auth(login.mechanism, getattr(client, f"auth_{login.mechanism.lower().replace('-', '_')}"))
            client.sendmail(SENDER, [login.recipient], MESSAGE)
        except smtplib.SMTPException as error:
            return Outcome(False, str(error))
    return Outcome(True, "")


def aio_smtp_lib(login: Login) -> Outcome:
    import aiosmtplib

    async def send() -> None:
        client = aiosmtplib.SMTP(
            hostname="localhost",
            port=login.port,
            use_tls=login.implicit,
            start_tls=not login.implicit,
            cert_bundle=str(login.authority),
            timeout=TIMEOUT,
        )
        async with client:
            await client.ehlo()
            log_in = getattr(client, f"auth_{login.mechanism.lower().replace('-', '')}")
            await log_in(login.user, login.secret)
            await client.sendmail(SENDER, [login.recipient], MESSAGE)

    try:
        asyncio.run(send())
    except aiosmtplib.SMTPException as error:
        return Outcome(False, str(error))
    return Outcome(True, "")


def _command(name: str) -> Callable[[], str]:
    return lambda: "" if shutil.which(name) else f"{name} is not installed"


def _nodemailer() -> str:
    if not shutil.which("node"):
        return "node is not installed"
    environment = {**os.environ, "NODE_PATH": os.environ.get(NODE_MODULES, "")}
    found = subprocess.run(["node", "-e", "require('nodemailer')"], env=environment, capture_output=True, check=False)
    return "" if found.returncode == 0 else f"node does not find nodemailer; {NODE_MODULES} may name its node_modules"


def _aio_smtp_lib() -> str:
    return "" if importlib.util.find_spec("aiosmtplib") else "aiosmtplib is not installed"


_SCRAM = ("SCRAM-SHA-1", "SCRAM-SHA-256")
_OLD = ("PLAIN", "LOGIN", "CRAM-MD5")

# curl knows XOAUTH2 as well, but takes OAUTHBEARER wherever that is offered, whatever it is told.
CLIENTS = {
    "swaks": Client(swaks, _OLD, _command("swaks")),
    "curl": Client(curl, (*_OLD, "OAUTHBEARER", "EXTERNAL"), _command("curl")),
    "msmtp": Client(msmtp, (*_OLD, *_SCRAM, "OAUTHBEARER", "XOAUTH2", "EXTERNAL"), _command("msmtp")),
    "s-nail": Client(s_nail, tuple(S_NAIL_WORDS), _command("s-nail"), leaves_at_json=True),
    "nodemailer": Client(nodemailer, (*_OLD, "XOAUTH2"), _nodemailer),
    "smtplib": Client(smtp_lib, _OLD, lambda: ""),
    "aiosmtplib": Client(aio_smtp_lib, (*_OLD, "XOAUTH2"), _aio_smtp_lib),
}
