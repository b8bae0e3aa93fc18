"""Prometheus metrics and the channels under $sys/."""
