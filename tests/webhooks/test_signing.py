"""Signatures are those of GitHub's webhooks."""

from twistedsock.webhooks.payload import sign


def test_the_example_of_github():
    """docs.github.com, "Validating webhook deliveries", has this one to test with."""
    expected = "sha256=757107ea0eb2509fc211221cce984b8a37570b6d7586c22c46f4379c8b043e17"
    assert sign(b"It's a Secret to Everybody", b"Hello, World!") == expected
