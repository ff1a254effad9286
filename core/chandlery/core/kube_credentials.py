"""Where the API server is and how to prove who asks: the pod's service account, or a kubeconfig."""

from __future__ import annotations

import base64
import binascii
import os
import ssl
import tempfile
import time
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final

import yaml

from chandlery.core.errors import InputError, MachineError

SERVICE_ACCOUNT: Final = Path("/var/run/secrets/kubernetes.io/serviceaccount")
#: The kubelet renews a service account's token long before it ends; a minute late is in time.
_TOKEN_AGE_S: Final = 60.0


@dataclass
class Credentials:
    """How to reach the API server.

    Attributes:
        server: URL without a slash at its end. tls: None for plain http.
        namespace: of the service account, or of the kubeconfig's context.
    """

    server: str
    tls: ssl.SSLContext | None
    namespace: str = "default"
    _token: str = field(default="", repr=False)
    _token_file: Path | None = None
    _token_read_s: float = field(default=float("-inf"), repr=False)

    def headers(self) -> dict[str, str]:
        """What each request must carry; a service account's token is read again once a minute."""
        if self._token_file is not None and time.monotonic() - self._token_read_s > _TOKEN_AGE_S:
            try:
                self._token = self._token_file.read_text().strip()
            except OSError as error:
                raise MachineError(f"{self._token_file}: can't read the token: {error.strerror}") from error
            self._token_read_s = time.monotonic()
        return {"Authorization": f"Bearer {self._token}"} if self._token else {}


def find_credentials(kubeconfig: str = "", environment: Mapping[str, str] = os.environ) -> Credentials:
    """Credentials of this process.

    Args:
        kubeconfig: a file named explicitly; else ``KUBECONFIG``, else the pod's service account, else ~/.kube/config.

    Raises:
        InputError: none found, or the kubeconfig can't be used.
    """
    named = kubeconfig or environment.get("KUBECONFIG", "").split(os.pathsep)[0]
    if named:
        return from_kubeconfig(Path(named))
    if environment.get("KUBERNETES_SERVICE_HOST") and (SERVICE_ACCOUNT / "token").exists():
        return from_service_account(environment)
    home = Path.home() / ".kube" / "config"
    if home.exists():
        return from_kubeconfig(home)
    raise InputError("no Kubernetes found: set KUBECONFIG, or run in a pod with a service account")


def from_service_account(environment: Mapping[str, str], folder: Path = SERVICE_ACCOUNT) -> Credentials:
    """Credentials of the pod this runs in."""
    host, port = environment["KUBERNETES_SERVICE_HOST"], environment.get("KUBERNETES_SERVICE_PORT", "443")
    host = f"[{host}]" if ":" in host else host
    namespace = (folder / "namespace").read_text().strip()
    tls = ssl.create_default_context(cafile=str(folder / "ca.crt"))
    return Credentials(f"https://{host}:{port}", tls, namespace, _token_file=folder / "token")


def from_kubeconfig(path: Path) -> Credentials:
    """Credentials of a kubeconfig's current context.

    Raises:
        InputError: unreadable, incomplete, or it asks for a plugin (``exec``, ``auth-provider``).
    """
    try:
        config = yaml.safe_load(path.read_text())
        context = _named(config, "contexts", config["current-context"])["context"]
        cluster = _named(config, "clusters", context["cluster"])["cluster"]
        user = _named(config, "users", context["user"])["user"]
    except OSError as error:
        raise InputError(f"{path}: can't read the kubeconfig: {error.strerror}") from error
    except (yaml.YAMLError, KeyError, TypeError, StopIteration) as error:
        raise InputError(f"{path}: no kubeconfig with a current context: {error!r}") from error
    for plugin in ("exec", "auth-provider"):
        if plugin in user:
            raise InputError(f"{path}: users.{plugin} is not supported; use a token or a client certificate")
    server = str(cluster["server"]).rstrip("/")
    tls = _tls(path, cluster, user) if server.startswith("https://") else None
    token_file = path.parent / user["tokenFile"] if "tokenFile" in user else None
    return Credentials(
        server, tls, context.get("namespace") or "default", _token=user.get("token", ""), _token_file=token_file
    )


def _named(config: Mapping[str, Any], kind: str, name: str) -> dict[str, Any]:
    return next(dict(entry) for entry in config[kind] if entry["name"] == name)


def _tls(path: Path, cluster: Mapping[str, Any], user: Mapping[str, Any]) -> ssl.SSLContext:
    try:
        authority = _content(path, cluster, "certificate-authority")
        context = ssl.create_default_context(cadata=authority.decode() if authority else None)
        if cluster.get("insecure-skip-tls-verify"):
            context.check_hostname = False
            context.verify_mode = ssl.CERT_NONE
        certificate, key = _content(path, user, "client-certificate"), _content(path, user, "client-key")
        if certificate and key:
            # The ssl module takes these from files only; the folder is private and goes at once.
            with tempfile.TemporaryDirectory() as folder:
                chain = Path(folder, "chain.pem")
                chain.touch(mode=0o600)
                chain.write_bytes(certificate + b"\n" + key)
                context.load_cert_chain(chain)
    except (OSError, ssl.SSLError, binascii.Error) as error:
        raise InputError(f"{path}: a certificate or key can't be used: {error}") from error
    return context


def _content(path: Path, entry: Mapping[str, Any], name: str) -> bytes:
    if f"{name}-data" in entry:
        return base64.b64decode(entry[f"{name}-data"])
    return (path.parent / entry[name]).read_bytes() if name in entry else b""
