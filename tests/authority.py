"""A certificate authority for tests."""

import ssl
from datetime import UTC, datetime, timedelta
from ipaddress import ip_address
from pathlib import Path

from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import NameOID

PLAIN = serialization.NoEncryption()


def named(*common_names: str) -> x509.Name:
    return x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, name, _validate=False) for name in common_names])


class Authority:
    """A certificate authority with files in ``folder``: ``<name>.pem`` and ``<name>.key``. ``pem`` is its own."""

    def __init__(self, folder: Path, name: str = "authority") -> None:
        self._folder = folder
        self._name = named(name)
        self._key = ec.generate_private_key(ec.SECP256R1())
        self.pem = folder / f"{name}.pem"
        self._write(self.pem, self._name, self._key, datetime.now(UTC) + timedelta(days=400), True)

    def issue(
        self, name: str, *common_names: str, until: datetime | None = None, password: bytes = b"", host: str = ""
    ) -> int:
        """Write a certificate for ``host`` (if given) and its key, replacing older ones of that name. Returns its
        serial number."""
        key = ec.generate_private_key(ec.SECP256R1())
        encryption = serialization.BestAvailableEncryption(password) if password else PLAIN
        private = key.private_bytes(serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, encryption)
        (self._folder / f"{name}.key").write_bytes(private)
        until = until or datetime.now(UTC) + timedelta(days=90)
        return self._write(self._folder / f"{name}.pem", named(*common_names), key, until, False, host)

    def tls_of(self, name: str) -> ssl.SSLContext:
        """The TLS context of a client that trusts this authority, with this certificate if it is named."""
        context = ssl.create_default_context(cafile=self.pem)
        context.check_hostname = False
        if name:
            context.load_cert_chain(self._folder / f"{name}.pem", self._folder / f"{name}.key")
        return context

    def _write(
        self, file: Path, subject: x509.Name, key: ec.EllipticCurvePrivateKey, until: datetime, ca: bool, host: str = ""
    ) -> int:
        serial = x509.random_serial_number()
        made = (
            x509.CertificateBuilder(self._name, subject, key.public_key(), serial)
            .not_valid_before(datetime(2020, 1, 1))
            .not_valid_after(until)
            .add_extension(x509.BasicConstraints(ca=ca, path_length=None), critical=True)
        )
        if host:
            try:
                name: x509.GeneralName = x509.IPAddress(ip_address(host))
            except ValueError:
                name = x509.DNSName(host)
            made = made.add_extension(x509.SubjectAlternativeName([name]), critical=False)
        signed = made.sign(self._key, hashes.SHA256())
        file.write_bytes(signed.public_bytes(serialization.Encoding.PEM))
        return serial
