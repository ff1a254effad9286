"""The Helm chart: what it renders, what values it refuses, and its life in a cluster: install, upgrade, uninstall."""

from __future__ import annotations

import json
import subprocess
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import msgspec
import pytest
import yaml
from tests.core.wrong_resources import TRADER
from tests.e2e.chart_rendering import CHART, only, rendered, setting
from tests.e2e.cluster.commands import ClusterError, run
from tests.e2e.kubectl import Cluster, Namespace

from chandlery.console.settings import ConsoleSettings
from chandlery.core.resources import API_VERSION

ROOT = Path(__file__).parents[2]
# Roles added to edit and admin get there by a controller: within a second, as a rule.
_CONTROLLER_S = 30.0

VALUES = [
    (),
    (r"kafka.bootstrapServers=a:9092\,b:9092",),
    ("kafka.embedded.enabled=true", "example.enabled=true", "kafka.embedded.storage=1Gi"),
    ("operator.namespaces={one,two}", "rbac.aggregate=false", "images.pullSecrets={login}"),
    ("monitoring.enabled=true", "images.registry=registry.example.com/team", "images.operator.tag=sha256:abc"),
    ("monitoring.enabled=true", "monitoring.kind=PodMonitor", "priorityClasses.urgent=high"),
    ("monitoring.enabled=true", "monitoring.dashboards.enabled=true", "operator.namespaces={one}"),
    ("console.enabled=true", "console.writable=true", "monitoring.enabled=true", "operator.namespaces={one}"),
    ("console.enabled=true", "console.ingress.enabled=true", "console.ingress.host=desk.example.com"),
    (
        "console.enabled=true",
        "console.ingress.enabled=true",
        "console.ingress.host=*.example.com",
        "console.ingress.tlsSecret=tls",
    ),
]


@pytest.mark.parametrize("values", VALUES)
def test_it_passes_lint_whatever_is_chosen(helm: str, values: tuple[str, ...]) -> None:
    run(helm, "lint", "--strict", str(CHART), *setting(values))


@pytest.mark.parametrize(
    ("value", "says"),
    [
        ("operator.replica=2", "replica"),
        ("operatr.logLevel=info", "operatr"),
        ("operator.logLevel=loud", "operator.logLevel|/operator/logLevel"),
        ("operator.delays.unready=soon", "unready"),
        ("images.operator.repo=x", "repo"),
        ("kafka.bootstrapServers=kafka", "bootstrapServers"),
        ("kafka.embedded.heapMegabytes=1", "heapMegabytes"),
        ("operator.namespaces={Bad_Name}", "namespaces"),
        ("monitoring.kind=Monitor", "kind"),
        ("monitoring.runbookUrl=docs/alerts.md", "runbookUrl"),
        ("operator.resources.limit.memory=1Gi", "limit"),
        ("operator.tolerations[0].efect=NoSchedule", "efect"),
        ("operator.affinity.nodeAfinity.required=true", "nodeAfinity"),
        ("operator.extraEnv[0].name=A,operator.extraEnv[0].vale=1", "vale"),
        ("console.open=true", "open"),
        ("console.allowedOrigins={*}", "allowedOrigins"),
        ("console.tokenSecret=Bad_Name", "tokenSecret"),
        ("console.traceUrl=jaeger", "traceUrl"),
        ("console.kafkaSecrets={login}", "kafkaSecrets"),
        ("console.kafkaSecrets[0].secret=login", "namespace"),
        ("console.ingress.host=https://desk", "host"),
        ("console.networkPolicy.from[0].namespace=ingress", "namespace"),
        ("console.ingress.tlsSecret=a: b", "tlsSecret"),
    ],
)
def test_a_mistake_in_the_values_is_refused_by_name(helm: str, value: str, says: str) -> None:
    with pytest.raises(ClusterError, match=says):
        rendered(helm, value)


def test_values_that_contradict_each_other_are_refused_with_what_to_do(helm: str) -> None:
    with pytest.raises(ClusterError, match="both given: leave one out"):
        rendered(helm, "kafka.embedded.enabled=true", "kafka.bootstrapServers=a:9092")
    with pytest.raises(ClusterError, match=r"example\.enabled needs a Kafka"):
        rendered(helm, "example.enabled=true")
    with pytest.raises(ClusterError, match="--reset-then-reuse-values"):
        rendered(helm, "images.console=null", "console.enabled=true")
    with pytest.raises(ClusterError, match=r"needs console\.ingress\.host"):
        rendered(helm, "console.enabled=true", "console.ingress.enabled=true")


def test_every_value_is_in_the_schema_and_every_default_fits_it() -> None:
    values = yaml.safe_load((CHART / "values.yaml").read_text(encoding="utf-8"))
    schema = json.loads((CHART / "values.schema.json").read_text(encoding="utf-8"))

    def known(value: Any, inner: dict[str, Any], path: str) -> Iterator[str]:
        if "$ref" in inner:
            inner = schema["definitions"][inner["$ref"].rpartition("/")[2]]
        for name, field in value.items() if isinstance(value, dict) and "properties" in inner else ():
            if name not in inner["properties"]:
                yield f"{path}.{name}"
            else:
                yield from known(field, inner["properties"][name], f"{path}.{name}")

    assert list(known(values, schema, "values")) == []


def test_every_value_is_described_where_it_stands() -> None:
    schema = json.loads((CHART / "values.schema.json").read_text(encoding="utf-8"))

    def bare(inner: dict[str, Any], path: str) -> Iterator[str]:
        for name, field in inner.get("properties", {}).items():
            # What it refers to says what form it has, and not what it is for.
            if not field.get("description"):
                yield f"{path}.{name}"
            yield from bare(field, f"{path}.{name}")
        for each in (inner.get("items"), inner.get("additionalProperties")):
            if isinstance(each, dict):
                yield from bare(each, f"{path}[]")

    shared = [(one, name) for name, one in schema["definitions"].items()]
    assert [path for inner, name in ((schema, "values"), *shared) for path in bare(inner, name)] == []


def test_the_operator_is_told_what_the_values_say(helm: str) -> None:
    objects = rendered(
        helm, "kafka.embedded.enabled=true", "operator.namespaces={one,two}", "images.registry=r.example.com/t",
        "operator.watchFor=9s", "images.workers.tag=v7", "images.pullPolicy=Never", "images.pullSecrets={login}", "priorityClasses.urgent=high",
    )  # fmt: skip
    (container,) = only(objects, "Deployment")["spec"]["template"]["spec"]["containers"]
    assert {
        "--worker-image=r.example.com/t/chandlery-workers:v7",
        "--kafka=mine-kafka.here.svc:9092",
        "--namespace=one",
        "--namespace=two",
        "--callers-namespace=here",
        "--watch-for=9s",
        "--image-pull-policy=Never",
        "--image-pull-secret=login",
        "--priority-class=urgent=high",
    } < set(container["args"])


@pytest.mark.parametrize("create", ["true", "false"])
def test_inspectors_are_held_whoever_binds_the_roles(helm: str, create: str) -> None:
    objects = rendered(helm, "rbac.inspectors={quants}", f"rbac.create={create}")
    policy = only(objects, "ValidatingAdmissionPolicy", "-inspectors")
    assert only(objects, "ValidatingAdmissionPolicyBinding", "-inspectors")["spec"]["validationActions"] == ["Deny"]
    held = {
        (operation, resource)
        for rule in policy["spec"]["matchConstraints"]["resourceRules"]
        for operation in rule["operations"]
        for resource in rule["resources"]
    }
    assert held == {
        *(("CONNECT", f"pods/{way}") for way in ("exec", "attach", "portforward", "proxy")),
        ("UPDATE", "pods/ephemeralcontainers"),
    }
    assert policy["spec"]["validations"][0]["expression"].startswith("request.subResource == 'exec' && ")


def test_with_namespaces_named_nothing_is_bound_in_the_whole_cluster(helm: str) -> None:
    kinds = [one["kind"] for one in rendered(helm, "operator.namespaces={one,two}", "rbac.aggregate=false")]
    assert "ClusterRole" not in kinds
    assert "ClusterRoleBinding" not in kinds
    assert "ValidatingAdmissionPolicy" not in kinds


def test_nothing_runs_as_root_or_may_write_to_its_image(helm: str) -> None:
    for one in rendered(helm, "kafka.embedded.enabled=true", "console.enabled=true"):
        pod = one if one["kind"] == "Pod" else one.get("spec", {}).get("template", {})
        for container in pod.get("spec", {}).get("containers", []) if isinstance(pod, dict) else []:
            assert pod["spec"]["securityContext"]["runAsNonRoot"]
            assert container["securityContext"]["readOnlyRootFilesystem"]
            assert container["securityContext"]["capabilities"] == {"drop": ["ALL"]}
            assert "limits" in container["resources"]


def console_settings(objects: list[dict[str, Any]]) -> ConsoleSettings:
    return msgspec.json.decode(only(objects, "ConfigMap", "mine-console")["data"]["console.json"], type=ConsoleSettings)


def test_a_console_is_never_open_and_none_is_there_unasked(helm: str) -> None:
    for values in ((), ("console=null",)):
        assert not [one for one in rendered(helm, *values) if "console" in one["metadata"]["name"]]
    objects = rendered(helm, "console.enabled=true")
    assert only(objects, "Service", "mine-console")["spec"]["type"] == "ClusterIP"
    assert "Ingress" not in [one["kind"] for one in objects]
    settings = console_settings(objects)
    assert (settings.token_file, settings.read_only, settings.allowed_origins) == (
        "/etc/chandlery/token/token",
        True,
        [],
    )
    (token,) = [
        volume["secret"] for volume in only(objects, "Deployment", "mine-console")["spec"]["template"]["spec"]["volumes"]
        if volume["name"] == "token"
    ]  # fmt: skip
    assert token["secretName"] == "mine-console-token"
    assert "optional" not in token, "without a token it doesn't start"
    rules = only(objects, "ClusterRole", "mine-console")["rules"]
    assert [rule["verbs"] for rule in rules] == [["list", "watch"]]


def test_rendering_the_console_again_changes_nothing_and_holds_no_token(helm: str) -> None:
    values = ("console.enabled=true", "console.writable=true")
    objects = rendered(helm, *values)
    assert objects == rendered(helm, *values)
    assert "Secret" not in [one["kind"] for one in objects]
    (operator,) = only(objects, "Deployment", "operator")["spec"]["template"]["spec"]["containers"]
    assert {"--console-token-secret=mine-console-token", "--console-namespace=here"} < set(operator["args"])
    own = rendered(helm, "console.enabled=true", "console.tokenSecret=own")
    (operator,) = only(own, "Deployment", "operator")["spec"]["template"]["spec"]["containers"]
    assert not [one for one in operator["args"] if one.startswith("--console-token-secret")]


def test_the_console_is_told_what_the_values_say(helm: str) -> None:
    objects = rendered(
        helm, "console.enabled=true", "console.writable=true", "operator.namespaces={one,two}",
        "console.allowedOrigins={https://desk.example.com}", r"console.traceUrl=https://t/{trace_id}",
        "console.kafka.one/market.bootstrap=k:9093", "console.kafka.one/market.feed=one.market",
        "console.kafka.one/market.security.tls=true",
        "console.kafkaSecrets[0].namespace=one", "console.kafkaSecrets[0].secret=login",
        r"kafka.bootstrapServers=a:9094\,b:19092", "monitoring.namespace=prometheus",
    )  # fmt: skip
    settings = console_settings(objects)
    assert settings.cluster is not None
    assert (settings.read_only, settings.cluster.namespaces) == (False, ["one", "two"])
    assert (settings.allowed_origins, settings.trace_url) == (["https://desk.example.com"], "https://t/{trace_id}")
    kafka = settings.cluster.kafka["one/market"]
    assert (kafka.bootstrap, kafka.feed, kafka.security.tls) == ("k:9093", "one.market", True)
    pod = only(objects, "Deployment", "mine-console")["spec"]["template"]["spec"]
    assert "/etc/chandlery/kafka/one/login" in [one["mountPath"] for one in pod["containers"][0]["volumeMounts"]]
    assert [one["secret"]["secretName"] for one in pod["volumes"] if one["name"] == "kafka-0"] == ["login"]
    policy = only(objects, "NetworkPolicy", "mine-console")["spec"]
    assert [one["port"] for one in policy["egress"][-1]["ports"]] == [443, 6443, 9092, 9093, 9094, 19092]
    assert policy["ingress"][1]["ports"] == [{"protocol": "TCP", "port": "metrics"}]
    roles = [one for one in objects if one["kind"] == "Role" and one["metadata"]["name"] == "mine-console"]
    assert [role["metadata"]["namespace"] for role in roles] == ["one", "two"]
    assert not [one for one in objects if one["kind"] == "ClusterRoleBinding" and "console" in one["metadata"]["name"]]


def test_no_value_of_the_console_becomes_a_field_of_its_pod(helm: str) -> None:
    with pytest.raises(ClusterError, match="kafkaSecrets"):
        rendered(helm, "console.enabled=true", "console.kafkaSecrets[0].namespace=one", 'console.kafkaSecrets[0].secret=a\\, items: []')  # fmt: skip
    wildcard = rendered(helm, "console.enabled=true", "console.ingress.enabled=true", "console.ingress.host=*.desk.example.com")  # fmt: skip
    (rule,) = only(wildcard, "Ingress")["spec"]["rules"]
    assert rule["host"] == "*.desk.example.com"
    numbers = rendered(helm, "console.enabled=true", "console.priorityClassName=1e3", "console.tokenSecret=0x1")
    pod = only(numbers, "Deployment", "mine-console")["spec"]["template"]["spec"]
    assert pod["priorityClassName"] == "1e3"
    assert [one["secret"]["secretName"] for one in pod["volumes"] if one["name"] == "token"] == ["0x1"]


def test_the_console_lets_in_the_pod_of_helm_test_and_no_worker(helm: str) -> None:
    objects = rendered(helm, "console.enabled=true")
    (allowed, *others) = only(objects, "NetworkPolicy", "mine-console")["spec"]["ingress"]
    assert others == []
    (peer,) = allowed["from"]
    wanted = peer["podSelector"]["matchLabels"]
    assert wanted == {
        "app.kubernetes.io/name": "chandlery",
        "app.kubernetes.io/instance": "mine",
        "app.kubernetes.io/component": "test",
    }
    assert wanted.items() <= only(objects, "Pod", "console-test")["metadata"]["labels"].items()


@pytest.fixture
def restricted(on_control_plane: Namespace) -> Namespace:
    """A namespace in which Pod Security refuses what isn't "restricted"."""
    label = "pod-security.kubernetes.io/enforce=restricted"
    on_control_plane.cluster.kubectl("label", "namespace", on_control_plane.name, label)
    return on_control_plane


def in_namespace(namespace: Namespace, *arguments: str) -> str:
    return namespace.cluster.run("helm", *arguments, "--namespace", namespace.name, timeout_s=120)


def may(namespace: Namespace, who: str, verb: str, what: str, where: str = "") -> bool:
    """Whether ``who`` may do that to ``what``: a resource, ``resource:subresource`` or ``resource/name``."""
    resource, _, subresource = what.partition(":")
    asked = ("auth", "can-i", verb, resource, f"--subresource={subresource}", f"--as={who}")
    try:
        answer = namespace.cluster.kubectl(*asked, "--namespace", where or namespace.name)
    except ClusterError:
        return False
    return answer.strip() == "yes"


def may_soon(namespace: Namespace, who: str, verb: str, what: str) -> bool:
    deadline = time.monotonic() + _CONTROLLER_S
    while not (answer := may(namespace, who, verb, what)) and time.monotonic() < deadline:
        time.sleep(0.2)
    return answer


def test_it_installs_upgrades_and_goes_and_leaves_what_is_the_users(restricted: Namespace) -> None:
    values = setting(("kafka.embedded.enabled=true", "example.enabled=true"))
    in_namespace(restricted, "install", "mine", str(CHART), *values)
    # Pods are admitted by Pod Security, and (simulated) nodes take them.
    restricted.wait("deployment/mine-operator", "condition=Available")
    restricted.wait("pod/mine-kafka-0", "condition=Ready")
    assert restricted.get("trader", "sma-btc")["spec"]["pool"] == {"name": "quants"}
    restricted.apply(json.dumps({"apiVersion": API_VERSION, "kind": "Trader", **TRADER}))

    in_namespace(restricted, "upgrade", "mine", str(CHART), *values)
    # The first write after it was made stores the status's default, which an operator's status would have done before.
    upgraded = restricted.get("trader", "sma-btc")["metadata"]
    assert upgraded["generation"] == 1
    in_namespace(restricted, "upgrade", "mine", str(CHART), *values)
    assert restricted.get("trader", "sma-btc")["metadata"]["resourceVersion"] == upgraded["resourceVersion"]

    in_namespace(restricted, "uninstall", "mine", "--wait")
    left = restricted.kubectl(
        "get", "all,configmaps,serviceaccounts,roles,rolebindings,chandlery", "-o", "name"
    ).split()
    assert sorted(left) == ["configmap/kube-root-ca.crt", "serviceaccount/default", "trader.chandlery.dev/a"]
    cluster_wide = restricted.cluster.kubectl("get", "clusterroles,clusterrolebindings", "-o", "name")
    assert f"{restricted.name}:mine" not in cluster_wide


def test_an_upgrade_over_older_crds_is_refused_with_the_command_that_mends_it(restricted: Namespace) -> None:
    in_namespace(restricted, "install", "mine", str(CHART))
    crd = ("crd", "traders.chandlery.dev")
    restricted.cluster.kubectl("annotate", *crd, "chandlery.dev/schema=older", "--overwrite")
    try:
        with pytest.raises(
            ClusterError, match=r"traders.chandlery.dev is of another version \(older\) .* kubectl apply"
        ):
            in_namespace(restricted, "upgrade", "mine", str(CHART))
        in_namespace(restricted, "upgrade", "mine", str(CHART), "--set", "crds.check=false")
    finally:
        crds = in_namespace(restricted, "show", "crds", str(CHART))
        restricted.cluster.apply(crds, "--server-side", "--force-conflicts")
    in_namespace(restricted, "upgrade", "mine", str(CHART))


def test_the_operator_may_do_what_it_needs_and_no_more(restricted: Namespace) -> None:
    in_namespace(restricted, "install", "mine", str(CHART))
    operator = f"system:serviceaccount:{restricted.name}:mine-operator"
    for verb, what in [
        ("watch", "traders.chandlery.dev"),
        ("patch", "traders.chandlery.dev:status"),
        ("create", "statefulsets.apps"),
        ("create", "secrets"),
        ("patch", "pods:status"),
        ("watch", "networkpolicies.networking.k8s.io"),
        ("list", "namespaces"),
        ("create", "events.events.k8s.io"),
    ]:
        assert may(restricted, operator, verb, what, "default"), (verb, what)
    for verb, what in [
        ("patch", "traders.chandlery.dev"),
        ("delete", "traders.chandlery.dev"),
        ("get", "secrets"),
        ("list", "secrets"),
        ("create", "pods"),
        ("create", "pods:exec"),
        ("patch", "pods"),
        ("watch", "secrets"),
        ("get", "traders.chandlery.dev"),
        ("watch", "events.events.k8s.io"),
        ("create", "deployments.apps"),
        ("create", "roles.rbac.authorization.k8s.io"),
        ("patch", "customresourcedefinitions.apiextensions.k8s.io"),
    ]:
        assert not may(restricted, operator, verb, what, "default"), (verb, what)
    assert may(restricted, operator, "get", "secrets/mine-operator-token-key")
    assert not may(restricted, operator, "get", "secrets/another")


def test_the_api_server_refuses_the_operator_every_secret_but_workers_tokens(restricted: Namespace) -> None:
    in_namespace(restricted, "install", "mine", str(CHART), "--set", "console.enabled=true")
    who = f"--as=system:serviceaccount:{restricted.name}:mine-operator"
    restricted.kubectl("create", "secret", "generic", "private", "--from-literal=password=unseen")
    private = {"apiVersion": "v1", "kind": "Secret", "metadata": {"name": "private", "labels": {"a": "b"}}}
    path = f"/api/v1/namespaces/{restricted.name}/secrets"

    def answer(*arguments: str, stdin: str | None = None) -> str:
        try:
            return restricted.kubectl(who, *arguments, stdin=stdin)
        except ClusterError as error:
            return str(error)

    def patched() -> str:
        return answer("apply", "--server-side", "--force-conflicts", "-f", "-", "-o", "json", stdin=json.dumps(private))

    deadline = time.monotonic() + 30.0  # a policy is in force a second after it was made
    while "workers' tokens" not in (said := patched()):
        assert time.monotonic() < deadline, said
        time.sleep(0.2)
    assert "dW5zZWVu" not in said, "what is in it isn't told either"
    assert "workers' tokens" in answer("delete", "--raw", f"{path}/private")
    generic = ("create", "secret", "generic")
    assert "workers' tokens" in answer(*generic, "another", "--from-literal=a=b")
    restricted.kubectl(who, *generic, "token", "--type=chandlery.dev/worker-token", "--from-literal=a=b")
    restricted.kubectl(who, *generic, "mine-operator-token-key", "--from-literal=key=b")
    restricted.kubectl(who, *generic, "mine-console-token", "--from-literal=token=c")
    restricted.kubectl(who, "delete", "--raw", f"{path}/token")
    assert "workers' tokens" in answer("delete", "--raw", f"{path}/mine-console-token")
    assert "workers' tokens" in answer("delete", "--raw", f"{path}/mine-operator-token-key")
    restricted.kubectl("delete", "secret", "private")


def test_an_operator_of_named_namespaces_may_do_nothing_elsewhere(restricted: Namespace) -> None:
    in_namespace(restricted, "install", "mine", str(CHART), "--set", f"operator.namespaces={{{restricted.name}}}")
    operator = f"system:serviceaccount:{restricted.name}:mine-operator"
    assert may(restricted, operator, "create", "statefulsets.apps")
    for what in ("traders.chandlery.dev", "configmaps", "namespaces"):
        assert not may(restricted, operator, "list", what, "default"), what


def test_who_may_edit_a_namespace_may_write_traders_and_its_admins_pools_too(restricted: Namespace) -> None:
    in_namespace(restricted, "install", "mine", str(CHART))
    for role in ("view", "edit", "admin"):
        restricted.kubectl("create", "rolebinding", role, f"--clusterrole={role}", f"--user={role}")
    assert may_soon(restricted, "view", "get", "traders.chandlery.dev")
    assert may_soon(restricted, "edit", "create", "traders.chandlery.dev")
    assert may_soon(restricted, "admin", "create", "traderpools.chandlery.dev")
    assert not may(restricted, "view", "create", "traders.chandlery.dev")
    assert not may(restricted, "edit", "create", "traderpools.chandlery.dev")


def test_the_plain_manifests_are_the_chart_with_its_crds(helm: str, control_plane: Cluster) -> None:
    make = subprocess.run(
        ["make", "-s", "manifests"], cwd=ROOT, capture_output=True, text=True, timeout=120, check=False
    )
    assert make.returncode == 0, make.stderr
    text = (ROOT / "build" / "manifests" / "chandlery.yaml").read_text(encoding="utf-8")
    kinds = [one["kind"] for one in yaml.safe_load_all(text) if one]
    assert kinds[0] == "Namespace"
    assert kinds.count("CustomResourceDefinition") == 3
    assert {"Deployment", "ClusterRole", "ServiceAccount"} < set(kinds)
    assert "Pod" not in kinds
    control_plane.apply(text, "--server-side", "--force-conflicts")
    control_plane.kubectl("delete", "namespace", "chandlery", "--wait=false")
    control_plane.kubectl("delete", "clusterrole,clusterrolebinding", "-l", "app.kubernetes.io/instance=chandlery")
