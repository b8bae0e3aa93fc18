"""The servers that are compared, and how each is started: one module for each server."""
