"""Certificates for tests, made by OpenSSL: authorities, and what they sign."""

from __future__ import annotations

import subprocess
from dataclasses import dataclass
from pathlib import Path


@dataclass(frozen=True)
class Issued:
    """A certificate and its key, PEM files."""

    certificate: Path
    key: Path

    def keystore(self) -> Path:
        """Both in one file, as Kafka's PEM key stores are."""
        store = self.certificate.with_suffix(".store.pem")
        store.write_bytes(self.key.read_bytes() + self.certificate.read_bytes())
        return store


class Authority:
    """A CA in a folder of its own."""

    def __init__(self, folder: Path, name: str) -> None:
        folder.mkdir(parents=True)
        self._folder = folder
        self._serial = 0
        self.certificate = folder / "ca.crt"
        self._key = folder / "ca.key"
        _openssl(
            "req", "-x509", "-newkey", "rsa:2048", "-nodes", "-keyout", str(self._key), "-out", str(self.certificate),
            "-days", "30", "-subj", f"/CN={name}",
        )  # fmt: skip

    def issue(self, name: str, *, hosts: str = "IP:127.0.0.1,DNS:localhost", days: int = 30) -> Issued:
        """A certificate for servers at ``hosts`` and for clients; negative ``days``: it has expired."""
        self._serial += 1
        made = Issued(self._folder / f"{name}-{self._serial}.crt", self._folder / f"{name}-{self._serial}.key")
        request, extensions = self._folder / "request.csr", self._folder / "extensions"
        extensions.write_text(f"subjectAltName={hosts}\n")
        _openssl("req", "-newkey", "rsa:2048", "-nodes", "-keyout", str(made.key), "-out", str(request), "-subj", f"/CN={name}")  # fmt: skip
        _openssl(
            "x509", "-req", "-in", str(request), "-CA", str(self.certificate), "-CAkey", str(self._key),
            "-set_serial", str(self._serial + 1), "-days", str(days), "-extfile", str(extensions), "-out", str(made.certificate),
        )  # fmt: skip
        return made


def _openssl(*words: str) -> None:
    subprocess.run(["openssl", *words], check=True, capture_output=True, timeout=60)
