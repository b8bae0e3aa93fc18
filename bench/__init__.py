"""The comparison with other servers: `python -m bench`, from a checkout."""
