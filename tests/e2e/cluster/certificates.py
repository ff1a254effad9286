"""The cluster's certificates, made by the openssl program, and its kubeconfigs.

One authority signs a server certificate for the API server and one client certificate for each component; the
subject's organisation and name are what Kubernetes' authorisation goes by. Keys are on P-256: made in milliseconds.
"""

from __future__ import annotations

import base64
import json
import os
from collections.abc import Sequence
from pathlib import Path
from typing import Final

from tests.e2e.cluster.commands import run

_NEW_KEY: Final = ("-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:prime256v1", "-nodes", "-days", "3650")

# User of a kubeconfig → subject of its certificate, as Kubernetes' built-in roles expect it.
_CLIENTS: Final = {
    "admin": "/O=system:masters/CN=admin",
    "controller-manager": "/CN=system:kube-controller-manager",
    "scheduler": "/CN=system:kube-scheduler",
    "proxy": "/CN=system:kube-proxy",
    "kubelet": "/O=system:nodes/CN=system:node:{node}",
}


def make_certificates(folder: Path, *, server_names: Sequence[str], node: str, server: str) -> None:
    """Write ``NAME.crt``, ``NAME.key`` and ``NAME.kubeconfig`` for all who talk to the API server into ``folder``.

    Args:
        folder: is made; for the owner only.
        server_names: names and addresses under which the API server is called.
        node: name of the node that the kubelet speaks for.
        server: the API server's URL, for the kubeconfigs.
    """
    folder.mkdir(mode=0o700)
    _certify(folder, "ca", "/CN=chandlery-e2e", "keyUsage=critical,keyCertSign,cRLSign,digitalSignature")
    leaf = "basicConstraints=critical,CA:FALSE"
    names = ",".join(f"{'IP' if name.replace('.', '').isdigit() else 'DNS'}:{name}" for name in server_names)
    _certify(folder, "apiserver", "/CN=kube-apiserver", leaf, "extendedKeyUsage=serverAuth", f"subjectAltName={names}")
    for user, subject in _CLIENTS.items():
        _certify(folder, user, subject.format(node=node), leaf, "extendedKeyUsage=clientAuth")
        _write_kubeconfig(folder, user, server)
    signing_key = folder / "service-accounts.key"
    run("openssl", "ecparam", "-name", "prime256v1", "-genkey", "-noout", "-out", signing_key)


def _certify(folder: Path, name: str, subject: str, *extensions: str) -> None:
    signer = () if name == "ca" else ("-CA", folder / "ca.crt", "-CAkey", folder / "ca.key")
    files = ("-keyout", folder / f"{name}.key", "-out", folder / f"{name}.crt")
    added = [word for extension in extensions for word in ("-addext", extension)]
    run("openssl", "req", "-x509", *_NEW_KEY, *files, "-subj", subject, *signer, *added)


def _write_kubeconfig(folder: Path, user: str, server: str) -> None:
    def encoded(name: str) -> str:
        return base64.b64encode((folder / name).read_bytes()).decode()

    name = "chandlery-e2e"
    config = {
        "apiVersion": "v1",
        "kind": "Config",
        "current-context": name,
        "contexts": [{"name": name, "context": {"cluster": name, "user": user}}],
        "clusters": [
            {"name": name, "cluster": {"server": server, "certificate-authority-data": encoded("ca.crt")}},
        ],
        "users": [
            {
                "name": user,
                "user": {
                    "client-certificate-data": encoded(f"{user}.crt"),
                    "client-key-data": encoded(f"{user}.key"),
                },
            },
        ],
    }
    target = os.open(folder / f"{user}.kubeconfig", os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600)
    with os.fdopen(target, "w", encoding="utf-8") as file:
        json.dump(config, file)
