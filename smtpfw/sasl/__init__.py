"""
SASL mechanisms (RFC 4422), one module each, with the server's and the client's side in it.

A server offers those that are in its list, that its checker can verify and
that the connection allows. To add one of your own, write a module like these
and put its :class:`Mechanism` into the list. A client is an object with the
credentials in it: ``SCRAM("joe", "secret")``. Those that others have installed
are found by :func:`smtpfw.sasl.plugins.available_mechanisms`.
"""

from smtpfw.sasl.anonymous import ANONYMOUS, Anonymous
from smtpfw.sasl.certificates import CertificateChecker, certificate_names
from smtpfw.sasl.cram_md5 import CRAM_MD5, CramMD5
from smtpfw.sasl.exchange import Mechanism
from smtpfw.sasl.external import EXTERNAL, External
from smtpfw.sasl.interfaces import (
    IAnonymousChecker,
    IAuthorizer,
    ICertificateChecker,
    IPasswordChecker,
    ISASLClient,
    ISASLServer,
    ISASLServerFactory,
    ISCRAMKeyStore,
    ISecretStore,
    ITokenChecker,
)
from smtpfw.sasl.login import LOGIN, Login
from smtpfw.sasl.oauthbearer import OAUTHBEARER, OAuthBearer, oauthbearer_mechanism
from smtpfw.sasl.plain import PLAIN, Plain
from smtpfw.sasl.saslprep import PreparationError, saslprep
from smtpfw.sasl.scram import (
    SCRAM,
    SCRAM_SHA_1,
    SCRAM_SHA_1_PLUS,
    SCRAM_SHA_256,
    SCRAM_SHA_256_PLUS,
    make_scram_keys,
    scram_mechanism,
)
from smtpfw.sasl.values import SASLContext, SCRAMKeys, ServerInfo
from smtpfw.sasl.xoauth2 import XOAUTH2, XOAuth2, xoauth2_mechanism

__all__ = [
    "ANONYMOUS",
    "CRAM_MD5",
    "EXTERNAL",
    "LOGIN",
    "OAUTHBEARER",
    "PLAIN",
    "SCRAM",
    "SCRAM_SHA_1",
    "SCRAM_SHA_1_PLUS",
    "SCRAM_SHA_256",
    "SCRAM_SHA_256_PLUS",
    "STANDARD",
    "XOAUTH2",
    "Anonymous",
    "CertificateChecker",
    "CramMD5",
    "External",
    "IAnonymousChecker",
    "IAuthorizer",
    "ICertificateChecker",
    "IPasswordChecker",
    "ISASLClient",
    "ISASLServer",
    "ISASLServerFactory",
    "ISCRAMKeyStore",
    "ISecretStore",
    "ITokenChecker",
    "Login",
    "Mechanism",
    "OAuthBearer",
    "Plain",
    "PreparationError",
    "SASLContext",
    "SCRAMKeys",
    "ServerInfo",
    "XOAuth2",
    "certificate_names",
    "make_scram_keys",
    "oauthbearer_mechanism",
    "saslprep",
    "scram_mechanism",
    "xoauth2_mechanism",
]

#: What a listener offers unless told otherwise, the best first: many clients take the first that they know.
STANDARD = (
    SCRAM_SHA_256_PLUS,
    SCRAM_SHA_1_PLUS,
    SCRAM_SHA_256,
    SCRAM_SHA_1,
    EXTERNAL,
    OAUTHBEARER,
    XOAUTH2,
    CRAM_MD5,
    PLAIN,
    LOGIN,
    ANONYMOUS,
)
