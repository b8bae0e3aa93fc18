"""Identities, tokens, policies: who a client is and what it is allowed to do."""
