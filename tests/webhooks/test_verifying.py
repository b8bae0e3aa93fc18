"""A certificate is taken for the host that it names, and for no other; and not at all if it names none."""

from datetime import UTC, datetime, timedelta
from ipaddress import ip_address

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec
from OpenSSL.crypto import X509

from tests.authority import named
from twistedsock.webhooks.http_client import HostnameVerifier


@pytest.fixture
def judge():
    """Whether a certificate with these names is taken: ``judge(host, *names)``."""

    def judge(host, *names, trusted=1, depth=0):
        key = ec.generate_private_key(ec.SECP256R1())
        now = datetime.now(UTC)
        made = x509.CertificateBuilder(named(host), named(host), key.public_key(), 1, now, now + timedelta(days=1))
        if names:
            made = made.add_extension(x509.SubjectAlternativeName(names), critical=False)
        certificate = X509.from_cryptography(made.sign(key, hashes.SHA256()))
        return HostnameVerifier(host)._verify(None, certificate, 0, depth, trusted)

    return judge


DNS = x509.DNSName


def address(text):
    return x509.IPAddress(ip_address(text))


@pytest.mark.parametrize(
    ("host", "names", "is_taken"),
    [
        ("example.org", [DNS("example.org")], True),
        ("example.org", [DNS("example.com"), DNS("example.org")], True),
        ("hooks.example.org", [DNS("*.example.org")], True),
        ("example.org", [DNS("example.com")], False),
        ("example.org", [DNS("*.example.org")], False),
        ("example.org", [], False),
        ("example.org", [x509.RFC822Name("ann@example.org")], False),
        ("127.0.0.1", [address("127.0.0.1")], True),
        ("127.0.0.1", [address("127.0.0.2")], False),
        ("127.0.0.1", [DNS("example.org")], False),
        ("127.0.0.1", [], False),
        ("::1", [address("::1")], True),
        ("::1", [], False),
    ],
)
def test_hosts(judge, host, names, is_taken):
    assert judge(host, *names) is is_taken


def test_who_is_not_trusted_is_not_taken(judge):
    assert judge("example.org", DNS("example.org"), trusted=0) is False


def test_authorities_need_not_name_the_host(judge):
    assert judge("example.org", depth=1) is True
    assert judge("example.org", depth=1, trusted=0) is False
