"""The HTTP side of the web port: what is asked by plain requests, through twisted.web."""
