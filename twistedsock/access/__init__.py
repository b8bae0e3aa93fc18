"""Who may come in, and what for: keys, tokens, and the policy that the table ``[access]`` describes. It knows no
listener and no reactor; the Policy protocol that it fills is in ``core/access.py``."""
