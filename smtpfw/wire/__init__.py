"""
The rules of SMTP and LMTP without input or output: bytes in, values and bytes out.

Nothing in here knows Twisted, zope.interface, or any single extension. A test
reads the import statements of this package to keep it so.
"""
