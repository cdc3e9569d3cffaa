"""
Golden dialogs: what a client says, what the server answers, what is stored.

A file in this folder is one dialog::

    # What it shows; blank lines and lines with a # are for the reader.
    ! profile strict                    a setting of the listener, see below
    S: 220 mx.example.org ESMTP smtpfw
    C: EHLO client.example.net          a line of the client; CRLF is added
    C| .\\n                              octets of the client as they are; Python escapes
    S: 250-mx.example.org
    ...
    X                                   the server has closed the connection here
    M| From: me\\r\\n\\r\\n                 a message that was accepted, in order, its octets with escapes
    M+ hello\\r\\n                        more of the same message
    R: b@example.org c@example.org      (optional) the recipients of a message
    E: reset rset                       (optional) what the session was told: every reset and logout, in order,
    E: rcpt b@example.org               and every call of each other hook of which one is named

``{x*998}`` in what a client sends, and in a message, stands for 998 times x.

Settings are those of :class:`~smtpfw.ServerConfig` that are numbers, and::

    ! profile lenient                   strict, default or lenient
    ! extensions SIZE CHUNKING          what EHLO offers: these, not the standard ones
    ! require_tls
    ! whole                             not octet by octet: for octets behind STARTTLS, where the cut is the point

Every dialog is run whole in one segment, octet by octet, answer by answer,
and whole with the end of input behind it (a half-close); the result must be
the same.

The backend refuses some by their names: see the tables in ``player.py``.
"""
