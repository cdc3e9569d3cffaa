"""What Twisted learns of this package. Only names: acme.spool is imported when somebody asks for it."""

from smtpfw.plugins import BackendPlugin

spool = BackendPlugin(
    "spool",
    "acme.spool:Spool",
    help="Keeps each message in a file of a folder.",
    usage="spool:FOLDER[:max_message=SIZE][:greeting=TEXT][:receipts=yes|no]",
    parameters={"folder": "text", "max_message": "size", "greeting": "text", "receipts": "yes_no"},
    positional=("folder",),
)
