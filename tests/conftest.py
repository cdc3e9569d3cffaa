"""For all tests: no property of the code is how fast a busy machine runs it."""

from hypothesis import settings

settings.register_profile("untimed", deadline=None)
settings.load_profile("untimed")
