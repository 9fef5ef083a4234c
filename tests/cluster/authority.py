"""The certificate authority of a cluster of one's own, and the kubeconfig of whoever it knows."""

import datetime
import ipaddress
import json
from collections.abc import Iterable
from pathlib import Path

from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import ExtendedKeyUsageOID, NameOID

LIFE = datetime.timedelta(days=7)


class Authority:
    """Keys and certificates as files NAME.key and NAME.crt of one folder; its own are ca.key and ca.crt."""

    def __init__(self, folder: Path) -> None:
        self.folder, self._key = folder, ec.generate_private_key(ec.SECP256R1())
        self._name = _named("crops-cluster")
        usage = x509.KeyUsage(True, False, False, False, False, True, True, False, False)
        made = _certificate(self._name, self._name, self._key.public_key()).add_extension(
            usage, critical=True
        )
        made = made.add_extension(x509.BasicConstraints(ca=True, path_length=0), critical=True)
        self._write("ca", self._key, made.sign(self._key, hashes.SHA256()))

    def issue(self, name: str, user: str, group: str = "", addresses: Iterable[str] = ()) -> None:
        """A certificate for `user`, a member of `group`, who also serves under `addresses`."""
        key = ec.generate_private_key(ec.SECP256R1())
        both = [ExtendedKeyUsageOID.CLIENT_AUTH, ExtendedKeyUsageOID.SERVER_AUTH]
        made = _certificate(_named(user, group), self._name, key.public_key())
        made = made.add_extension(x509.ExtendedKeyUsage(both), critical=False)
        if served := [_served(address) for address in addresses]:
            made = made.add_extension(x509.SubjectAlternativeName(served), critical=False)
        self._write(name, key, made.sign(self._key, hashes.SHA256()))

    def kubeconfig(self, name: str, server: str) -> Path:
        """NAME.conf: how the holder of NAME.crt reaches the API server. JSON is YAML."""
        cluster = {"server": server, "certificate-authority": str(self.folder / "ca.crt")}
        files = {
            f"client-{k}": str(self.folder / f"{name}.{e}")
            for k, e in (("certificate", "crt"), ("key", "key"))
        }
        config = {
            "apiVersion": "v1",
            "kind": "Config",
            "clusters": [{"name": "crops", "cluster": cluster}],
            "users": [{"name": name, "user": files}],
            "contexts": [{"name": "crops", "context": {"cluster": "crops", "user": name}}],
            "current-context": "crops",
        }
        path = self.folder / f"{name}.conf"
        path.write_text(json.dumps(config))
        return path

    def _write(self, name: str, key: ec.EllipticCurvePrivateKey, certificate: x509.Certificate) -> None:
        form = serialization.PrivateFormat.TraditionalOpenSSL
        text = key.private_bytes(serialization.Encoding.PEM, form, serialization.NoEncryption())
        (self.folder / f"{name}.key").touch(mode=0o600)
        (self.folder / f"{name}.key").write_bytes(text)
        (self.folder / f"{name}.crt").write_bytes(certificate.public_bytes(serialization.Encoding.PEM))


def _named(user: str, group: str = "") -> x509.Name:
    parts = [x509.NameAttribute(NameOID.ORGANIZATION_NAME, group)] if group else []
    return x509.Name([*parts, x509.NameAttribute(NameOID.COMMON_NAME, user)])


def _certificate(
    subject: x509.Name, issuer: x509.Name, key: ec.EllipticCurvePublicKey
) -> x509.CertificateBuilder:
    now = datetime.datetime.now(datetime.UTC)
    begun = x509.CertificateBuilder().subject_name(subject).issuer_name(issuer).public_key(key)
    begun = begun.serial_number(x509.random_serial_number())
    return begun.not_valid_before(now - datetime.timedelta(minutes=5)).not_valid_after(now + LIFE)


def _served(address: str) -> x509.GeneralName:
    try:
        return x509.IPAddress(ipaddress.ip_address(address))
    except ValueError:
        return x509.DNSName(address)
