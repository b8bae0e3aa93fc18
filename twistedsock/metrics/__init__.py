"""Metrics for Prometheus, and the channels under $sys/."""
