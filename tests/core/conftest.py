"""How the property tests of the rules run: always the same examples, so that a red run can be run again."""

from hypothesis import settings

settings.register_profile("repeatable", derandomize=True, deadline=None, database=None, print_blob=False)
settings.load_profile("repeatable")
