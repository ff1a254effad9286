"""The operator's command line."""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from dataclasses import dataclass

from chandlery.core.durations import parse_duration
from chandlery.core.errors import InputError
from chandlery.core.settings import parse_listen
from chandlery.operator.children.naming import Defaults
from chandlery.operator.kubernetes.follow import WATCH_S
from chandlery.operator.planner import Delays


@dataclass(frozen=True)
class Options:
    """What the operator was started with.

    Attributes:
        namespaces: those it looks after; none: all. own_namespace: where its Secret is; empty: its credentials'.
        listen: address of health and metrics. token_secret: Secret that holds the key of the workers' tokens.
        console_token_secret: Secret to be made with a token for the console; empty: none.
        grace_s: how long a symbol stays that no Trader asks for. watch_s: how long one watch of children lasts.
    """

    namespaces: tuple[str, ...]
    own_namespace: str
    kubeconfig: str
    listen: tuple[str, int]
    token_secret: str
    console_token_secret: str
    defaults: Defaults
    delays: Delays
    grace_s: float
    watch_s: float
    log_level: str


def read_options(arguments: Sequence[str] | None = None) -> Options:
    """Read the command line; ends the process on a wrong one, as argparse does."""
    parser = _parser()
    given = parser.parse_args(arguments)
    try:
        listen = parse_listen(given.listen)
        if isinstance(listen, str):
            raise InputError("--listen: write host:port")
        defaults = Defaults(
            worker_image=given.worker_image,
            stream_image=given.stream_image or given.worker_image,
            pull_policy=given.image_pull_policy,
            pull_secrets=tuple(given.image_pull_secret),
            kafka=given.kafka,
            priority_classes=dict(_pair(one) for one in given.priority_class),
            callers=given.callers_namespace,
            scrapers=given.metrics_from,
            console=given.console_namespace,
            log_level=given.log_level,
            user=given.user,
            worker_port=given.worker_port,
        )
        delays = Delays(
            unready_ms=parse_duration(given.unready_after),
            starting_ms=parse_duration(given.starting_after),
            shrink_ms=parse_duration(given.shrink_after),
        )
        grace_s = parse_duration(given.symbol_grace) / 1000
        watch_s = parse_duration(given.watch_for) / 1000
        if watch_s < 1:
            raise InputError("--watch-for: at least 1s")
    except InputError as error:
        parser.error(str(error))
    return Options(
        namespaces=tuple(given.namespace),
        own_namespace=given.own_namespace,
        kubeconfig=given.kubeconfig,
        listen=listen,
        token_secret=given.token_secret,
        console_token_secret=given.console_token_secret,
        defaults=defaults,
        delays=delays,
        grace_s=grace_s,
        watch_s=watch_s,
        log_level=given.log_level,
    )


def _pair(text: str) -> tuple[str, str]:
    tier, equals, name = text.partition("=")
    if not (tier and equals and name):
        raise InputError(f"--priority-class {text}: write TIER=PRIORITYCLASS")
    return tier, name


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="python -m chandlery.operator", description="Chandlery's Kubernetes operator")
    add = parser.add_argument
    add(
        "--namespace",
        action="append",
        default=[],
        metavar="NAME",
        help="look after this namespace; may be repeated; none: all",
    )
    add(
        "--own-namespace",
        default="",
        metavar="NAME",
        help="where the operator's own Secret is; default: its credentials'",
    )
    add(
        "--kubeconfig",
        default="",
        metavar="FILE",
        help="default: KUBECONFIG, the pod's service account, ~/.kube/config",
    )
    add("--listen", default="0.0.0.0:8090", metavar="HOST:PORT", help="health and metrics (default %(default)s)")
    add(
        "--token-secret",
        default="chandlery-operator-token-key",
        metavar="NAME",
        help="Secret with the key of the workers' tokens; made if it isn't there (default %(default)s)",
    )
    add(
        "--console-token-secret",
        default="",
        metavar="NAME",
        help="make this Secret with a token for the console, if it isn't there; default: make none",
    )
    add("--worker-image", required=True, metavar="IMAGE", help="feed sidecars, and traders of pools that name no image")
    add("--stream-image", default="", metavar="IMAGE", help="ingest and aggregators; default: the worker image")
    add("--image-pull-policy", default="", choices=["", "Always", "IfNotPresent", "Never"])
    add("--image-pull-secret", action="append", default=[], metavar="NAME", help="beside the pods; may be repeated")
    add("--kafka", default="", metavar="HOST:PORT", help="Kafka of feeds that name none")
    add(
        "--priority-class",
        action="append",
        default=[],
        metavar="TIER=CLASS",
        help="PriorityClass of workers whose pool's first tier this is; may be repeated",
    )
    add(
        "--callers-namespace",
        default="",
        metavar="NAME",
        help="only pods of this namespace with app.kubernetes.io/part-of=chandlery may call workers; default: all may",
    )
    add(
        "--metrics-from",
        default="",
        metavar="NAMESPACE",
        help="pods of this namespace may read workers' figures (a NetworkPolicy); *: of every one; default: no pod may",
    )
    add(
        "--console-namespace",
        default="",
        metavar="NAME",
        help="the console's pods in this namespace may read workers' figures (a NetworkPolicy); default: none",
    )
    add("--worker-port", type=int, default=8080, metavar="PORT", help="of the workers' API (default %(default)s)")
    add("--user", type=int, default=10001, metavar="ID", help="user and group of every container (default %(default)s)")
    add("--unready-after", default="30s", metavar="TIME", help="a worker not Ready for so long gives its traders away")
    add("--starting-after", default="5m", metavar="TIME", help="the same for one that has never been Ready")
    add("--shrink-after", default="5m", metavar="TIME", help="a worker that isn't needed goes after so long")
    add("--symbol-grace", default="5m", metavar="TIME", help="a symbol no trader asks for is ingested for so long")
    add(
        "--watch-for",
        default=f"{WATCH_S:g}s",
        metavar="TIME",
        help="a watch of children lasts so long; less where something between cuts connections sooner (default %(default)s)",
    )
    add("--log-level", default="info", choices=["debug", "info", "warning", "error"])
    return parser  # fmt: skip
