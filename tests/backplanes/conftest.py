"""Failures inside the contract are to be shown as those of a test are."""

import pytest

pytest.register_assert_rewrite("tests.backplanes.contract")
