"""
Golden dialogs: what a client says, what the server answers, what is stored.

A file in this folder is one dialog::

    # What it shows; blank lines and lines with a # are for the reader.
    ! profile strict                    a setting of the listener; or: ! whole (see below)
    S: 220 mx.example.org ESMTP smtpfw
    C: EHLO client.example.net          a line of the client; CRLF is added
    C| .\\n                              octets of the client as they are; Python escapes
    S: 250-mx.example.org
    ...
    X                                   the server has closed the connection here
    M| From: me\\r\\n\\r\\nhello\\r\\n         a message that was accepted, in order, its octets with escapes
    E: reset rset                       (optional) every call of reset and logout, in order

Every dialog is run whole in one segment, octet by octet, and answer by
answer; the result must be the same. ``! whole`` leaves out the octets, for
the one case where the difference is the point: octets behind STARTTLS.

The backend refuses some recipients and senders by their local part; see
``ANSWERS``.
"""
