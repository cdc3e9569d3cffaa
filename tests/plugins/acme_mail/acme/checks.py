"""A check."""

from smtpfw import Check, SMTPError
from smtpfw.plugins import CheckPlugin


class NotFrom(Check):
    def __init__(self, domains):
        self.domains = domains

    def describe(self):
        return f"No mail from {', '.join(self.domains)}"

    def mail(self, connection, sender, options):
        if sender.domain in self.domains:
            raise SMTPError(550, (5, 7, 1), "Not from there")


NOT_FROM = CheckPlugin(
    "not_from",
    NotFrom,
    help="Refuses mail from some domains.",
    usage="not_from:DOMAIN[:DOMAIN...]",
    parameters={"domains": "texts"},
    positional=("domains",),
)
