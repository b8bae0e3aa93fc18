"""The comparison with other servers: run `python -m bench` in a checkout."""
