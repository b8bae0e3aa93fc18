"""Rewrite assertions of the contract, so that failures show values."""

import pytest

pytest.register_assert_rewrite("tests.backplanes.contract")
