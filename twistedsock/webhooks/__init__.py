"""Telling others by HTTP what happens on the channels: signed, in batches, again and again until they have taken it
(docs/webhooks.md). It knows no listener and no policy; what it looks on at is in ``pubsub/backplane.py``."""
