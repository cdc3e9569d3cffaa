"""
Asking DNS: who is asked, what counts in an answer, and what a name is.

Servers, checks, the client's way to MX hosts and the relay ask through here, so that one bound holds for all of them.
Importing the package loads nothing of it.
"""
