"""A message with everything in it that a transport can get wrong."""

from __future__ import annotations

import random
from email.message import EmailMessage
from email.policy import SMTP


def make_message() -> bytes:
    """
    Attachments, UTF-8 in headers, lines that begin with dots, 8-bit text; CRLF at every line's end.

    :return: no line is longer than 998 octets, and the last one ends in CRLF.
    """
    message = EmailMessage(policy=SMTP.clone(utf8=True, cte_type="8bit"))
    message["From"] = "Bérénice <sender@example.net>"
    message["To"] = "Jürgen Größe <reader@example.org>"
    message["Subject"] = "Прывітанне, 世界: dots, umlauts and attachments"
    message["Date"] = "Sat, 21 Nov 2026 10:00:00 +0000"
    message["Message-ID"] = "<1@example.net>"
    message.set_content(
        ".one dot\n..two dots\n.\n...\n. \nFrom the beginning\nÄpfel, naïve, 日本語\n\n", cte="8bit", charset="utf-8"
    )
    message.add_attachment(
        random.Random(1).randbytes(100_000), maintype="application", subtype="octet-stream", filename="übung.bin"
    )
    message.add_attachment("a,b\n1,2\n", subtype="csv", filename="table.csv")
    octets = message.as_bytes()
    assert octets.count(b"\r\n") == octets.count(b"\n") == octets.count(b"\r")
    assert b"\r\n.\r\n" in octets
    return octets
