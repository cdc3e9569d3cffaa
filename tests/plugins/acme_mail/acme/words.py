"""Two extensions: one of the wire alone, and one that promises something."""

from smtpfw.wire.dialect import Extension
from smtpfw.wire.parameters import Parameter
from smtpfw.wire.phases import READY, Verb
from smtpfw.wire.replies import Reply


def parse_mood(text):
    if text is None or not text.isdigit():
        raise ValueError("must be a number")
    return int(text)


MOOD = Parameter("MOOD", parse=parse_mood, format=str, default=5)
GENTLY = Parameter.flag("GENTLY")
RECEIPT = Parameter.flag("RECEIPT")


def serve_sun(connection, argument):
    return Reply(250, "shining", (2, 0, 0))


class Mood(Extension):
    """MAIL and RCPT may say in which mood."""

    keyword = "X-MOOD"
    mail_parameters = (MOOD,)
    rcpt_parameters = (GENTLY,)
    verbs = (Verb("XSUN", frozenset({READY}), serve=serve_sun),)

    def __init__(self, words="SUN RAIN"):
        self.words = words

    def advertise(self, connection):
        return self.words


class Receipt(Extension):
    """The sender gets a receipt, where the backend writes some."""

    keyword = "X-RECEIPT"
    mail_parameters = (RECEIPT,)
    end_to_end = True
