"""Which processes a cluster has, and what each is told on its command line."""

from __future__ import annotations

from typing import Final

from tests.e2e.cluster.plan import NODE_NAME, Plan

# Controllers and scheduler must not be what a test waits for: their clients' default limits are 20 to 50 a second.
_UNHURRIED: Final = ("--kube-api-qps=2000", "--kube-api-burst=2000")


def commands(plan: Plan) -> dict[str, list[str]]:
    """Name → command line of each process, in the order of starting. All connect again by themselves."""
    own = {
        "etcd": _etcd(plan),
        "kube-apiserver": _apiserver(plan),
        "kube-controller-manager": _controller_manager(plan),
        "kube-scheduler": [_kubeconfig(plan, "scheduler"), "--leader-elect=false", "--secure-port=0", *_UNHURRIED],
    }
    if plan.fake_nodes:
        own["kwok"] = [
            _kubeconfig(plan, "admin"),
            "--manage-nodes-with-annotation-selector=kwok.x-k8s.io/node=fake",
            f"--server-address=127.0.0.1:{plan.kwok_port}",
            "--node-lease-duration-seconds=40",
        ]
    if plan.has_node:
        own["kubelet"] = [
            f"--config={plan.settings}/kubelet.json",
            _kubeconfig(plan, "kubelet"),
            f"--node-ip={plan.address}",
            f"--hostname-override={NODE_NAME}",
        ]
        own["kube-proxy"] = [f"--config={plan.settings}/kube-proxy.json", f"--hostname-override={NODE_NAME}"]
    if plan.dns:
        own["coredns"] = ["-conf", f"{plan.settings}/Corefile"]
    whole = {name: [f"{plan.binaries}/{name}", *arguments] for name, arguments in own.items()}
    if plan.has_node:
        whole["containerd"] = ["containerd", "-c", f"{plan.settings}/containerd.toml"]
    return whole


def _kubeconfig(plan: Plan, user: str) -> str:
    return f"--kubeconfig={plan.certificates}/{user}.kubeconfig"


def _etcd_url(plan: Plan) -> str:
    return f"http://127.0.0.1:{plan.etcd_port}"


def _etcd(plan: Plan) -> list[str]:
    url = _etcd_url(plan)
    return [
        f"--data-dir={plan.etcd_folder}",
        "--unsafe-no-fsync",
        f"--listen-client-urls={url}",
        f"--advertise-client-urls={url}",
        f"--listen-peer-urls=http://127.0.0.1:{plan.etcd_peer_port}",
        "--quota-backend-bytes=2147483648",
    ]


def _apiserver(plan: Plan) -> list[str]:
    keys = plan.certificates
    arguments = [
        f"--etcd-servers={_etcd_url(plan)}",
        f"--bind-address={plan.address}",
        f"--advertise-address={plan.address}",
        f"--secure-port={plan.api_port}",
        f"--tls-cert-file={keys}/apiserver.crt",
        f"--tls-private-key-file={keys}/apiserver.key",
        f"--client-ca-file={keys}/ca.crt",
        f"--service-account-key-file={keys}/service-accounts.key",
        f"--service-account-signing-key-file={keys}/service-accounts.key",
        "--service-account-issuer=https://kubernetes.default.svc",
        "--authorization-mode=Node,RBAC",
        "--enable-admission-plugins=NodeRestriction",
        f"--service-cluster-ip-range={plan.service_range}",
        "--allow-privileged=true",
        "--profiling=false",
        f"--kubelet-client-certificate={keys}/admin.crt",
        f"--kubelet-client-key={keys}/admin.key",
        "--kubelet-preferred-address-types=InternalIP",
    ]
    if not plan.has_node:  # the service `kubernetes` can't lead to a loopback address, and no pod asks for it
        arguments.append("--endpoint-reconciler-type=none")
    return arguments


def _controller_manager(plan: Plan) -> list[str]:
    keys = plan.certificates
    return [
        _kubeconfig(plan, "controller-manager"),
        f"--service-account-private-key-file={keys}/service-accounts.key",
        f"--root-ca-file={keys}/ca.crt",
        f"--cluster-signing-cert-file={keys}/ca.crt",
        f"--cluster-signing-key-file={keys}/ca.key",
        "--secure-port=0",
        "--use-service-account-credentials",
        "--leader-elect=false",
        *_UNHURRIED,
        f"--flex-volume-plugin-dir={plan.run}/flex-volumes",
    ]
