"""The server in a Python program: publish, subscribe and observe with method calls."""
