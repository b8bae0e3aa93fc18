"""Webhooks: HTTP requests that report events and presence changes to receivers, signed, in batches, with retries."""
