"""The HTTP API, event streams and the static pages."""
