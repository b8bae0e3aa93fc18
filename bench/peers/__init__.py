"""The servers that are compared, each as it is started for that: one module a server."""
