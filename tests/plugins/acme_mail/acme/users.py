"""Users, and a SASL mechanism."""

from smtpfw.sasl import PLAIN, IPasswordChecker, Mechanism


def check(username, password):
    """Everybody whose password is the name, backwards."""
    return password == username[::-1]


X_ACME = Mechanism("X-ACME", PLAIN.make, needs=(IPasswordChecker,), plain_text=True)
