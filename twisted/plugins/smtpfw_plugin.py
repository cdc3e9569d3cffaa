"""What ``twistd`` learns of smtpfw. Only names: the modules are loaded when the subcommand is used."""

from twisted.application.service import ServiceMaker

smtpfw = ServiceMaker(
    "smtpfw", "smtpfw.service", "An SMTP and LMTP server: mail into Maildirs or your own code", "smtpfw"
)
