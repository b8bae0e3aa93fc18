"""Tests of the other servers and of their drivers. `make bench` runs them: they need these servers."""
