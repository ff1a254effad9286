"""Reconciling a feed: ingest and aggregator for what it lists and Traders ask for, and what has become of it."""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Final

import aiohttp
import msgspec

from chandlery.core.behind import Lag
from chandlery.core.errors import ChandleryError, InputError
from chandlery.core.feed_kafka import feed_topic, kafka_settings
from chandlery.core.http_errors import in_words
from chandlery.core.kafka_login import KafkaProblem
from chandlery.core.manifests import Key
from chandlery.core.resources import MarketFeed
from chandlery.core.settings import AggregatorSettings, IngestSettings
from chandlery.operator.applied import is_owned_by
from chandlery.operator.cache import Held
from chandlery.operator.children.feeds import (
    aggregator_of,
    child_name,
    feed_service,
    feed_set,
    ingest_of,
    settings_map,
)
from chandlery.operator.children.naming import (
    AGGREGATOR_PORT,
    CONTENT,
    INGEST_PORT,
    SETTINGS,
    Component,
    Object,
)
from chandlery.operator.conditions import PodRefusal, feed_state, feed_status
from chandlery.operator.kubernetes.api import GoneError, KubeApi
from chandlery.operator.kubernetes.kinds import CONFIG_MAP, MARKET_FEED, POD, SERVICE, STATEFUL_SET
from chandlery.operator.planner import FeedPlan
from chandlery.operator.planning import Grace, by_length
from chandlery.operator.podstate import address_of, is_ready, trouble_of
from chandlery.operator.pools import UNTOLD_S, Tools, timestamp
from chandlery.operator.refusals import is_of_quota, refusal_of
from chandlery.operator.settings_of import is_paced
from chandlery.operator.unknown_symbols import UnknownSymbols

log = logging.getLogger("chandlery.operator.feeds")

#: A symbol that no Trader asks for any more is ingested for this long: longer than an edit, a move or a rollout.
GRACE_S: Final = 300.0
#: How often ingest is asked which symbols its exchange doesn't have, which session it is in, and whether Kafka takes
#: what it appends; and the aggregator, how far it is behind.
_ASK_S: Final = 5.0
#: Both answer out of their memory, in milliseconds, and are asked at once. A first packet that is lost is sent again after
#: 1 s, and as much is left for a pod that is busy; a feed whose pods are silent is still looked at every 5 + 2 = 7 s.
_ANSWER_S: Final = 2.0
_COMPONENTS: Final[tuple[Component, ...]] = ("ingest", "aggregator")


class IngestStatus(msgspec.Struct):
    """What of ingest's status matters here."""

    session: int | None = None
    kafka_problem: KafkaProblem | None = None
    connected: bool = False
    unknown_symbols: list[str] = []


class AggregatorStatus(msgspec.Struct):
    """What of the aggregator's status matters here."""

    behind_ms: int = 0


@dataclass(slots=True)
class _Known:
    """What is known of a feed beside its resource.

    Attributes:
        making: what was made last, or is being made. problem: what the API server refused of it; empty: nothing.
        unmade: that, where a quota keeps it from having its objects. refused: why one of its pods can't be made.
    """

    ingest: IngestStatus = field(default_factory=IngestStatus)
    unknown: UnknownSymbols = field(default_factory=UnknownSymbols)
    lag: Lag = field(default_factory=Lag)
    asked_s: dict[Component, float] = field(default_factory=dict)
    making: Component = "aggregator"
    problem: str = ""
    unmade: PodRefusal | None = None
    refused: PodRefusal | None = None

    def forget_pods(self) -> None:
        """What its pods told, and why they weren't there, is of no pod that shall be."""
        self.ingest, self.unknown, self.refused = IngestStatus(), UnknownSymbols(), None
        self.asked_s.clear()
        self.lag.forget()


class Feeds:
    """Reconciles feeds by their keys."""

    def __init__(self, tools: Tools, api: KubeApi, session: aiohttp.ClientSession, grace_s: float = GRACE_S) -> None:
        self._tools = tools
        self._api = api
        self._session = session
        self._grace = Grace(grace_s)
        self._grace_intervals = Grace(grace_s)
        self._known: dict[Key, _Known] = {}

    def unknown_symbols(self, key: Key) -> Sequence[str]:
        """Symbols that the feed's exchange says it doesn't have."""
        known = self._known_of(key)
        return known.unknown.symbols if known is not None else ()

    def _known_of(self, key: Key) -> _Known | None:
        """What is known of a feed, from the first look on what its status says; None: it isn't there."""
        if key not in self._known and (held := self._tools.cache.get(MarketFeed.KIND, key)) is not None:
            # Pools are planned before ingest is asked: without this a refused version would begin for these seconds.
            self._known[key] = _Known(unknown=UnknownSymbols(_unknown_in(held.status)))
        return self._known.get(key)

    async def reconcile(self, key: Key) -> None:
        """Bring one feed to what it shall be; marks it when it must be looked at again.

        Raises:
            ChandleryError: something could not be done; it is repeated.
        """
        held = self._tools.cache.get(MarketFeed.KIND, key)
        if held is None:
            self._known.pop(key, None)
            return
        known = self._known_of(key)
        assert known is not None
        feed = held.resource
        plan: FeedPlan | None = None
        failure: ChandleryError | None = None
        if isinstance(feed, MarketFeed):
            plan = self._plan(feed)
            try:
                await self._carry_out(feed, plan, known)
                known.problem, known.unmade = "", None
            except InputError as error:
                known.problem, known.unmade = str(error), self._of_quota(feed, known.making, error)
                failure = error
            except ChandleryError as error:
                failure = error
            if _is_empty(plan):
                known.forget_pods()  # those that still end have nothing to say of a feed that rests
            else:
                await self._look_for_pods(feed, known)
                await self._ask(feed, known)
        await self._say(held, feed if isinstance(feed, MarketFeed) else None, plan, known)
        if failure is not None:
            raise failure

    def _plan(self, feed: MarketFeed) -> FeedPlan:
        """What is asked for now, and what was until lately."""
        asked = self._tools.planner.asked_of(feed)
        running = self._running(feed)
        now_s = time.monotonic()
        symbols = self._grace.with_leaving(feed.key, asked.symbols, running.symbols, now_s)
        intervals = self._grace_intervals.with_leaving(feed.key, asked.intervals, running.intervals, now_s)
        due = [
            self._grace.next_s(feed.key, asked.symbols, symbols),
            self._grace_intervals.next_s(feed.key, asked.intervals, intervals),
        ]
        for one in due:
            if one is not None:
                self._tools.mark(("feed", *feed.key), max(0.1, one - now_s))
        return FeedPlan(feed, tuple(symbols), by_length(intervals))

    def _running(self, feed: MarketFeed) -> FeedPlan:
        """What the settings that stand in the cluster say."""
        item = self._tools.children.seen(CONFIG_MAP, (feed.namespace, child_name(feed, "ingest")))
        try:
            settings = msgspec.json.decode((item or {})["data"]["ingest.json"], type=IngestSettings)
        except (KeyError, msgspec.DecodeError):
            return FeedPlan(feed, (), ())
        return FeedPlan(feed, tuple(settings.symbols), tuple(settings.intervals))

    async def _carry_out(self, feed: MarketFeed, plan: FeedPlan, known: _Known) -> None:
        tools = self._tools
        kafka = kafka_settings(feed, tools.defaults.kafka, namespace=feed.namespace)
        if _is_empty(plan):
            await self._remove_children(feed)
            return
        if not kafka.bootstrap:
            return
        wanted: dict[Component, IngestSettings | AggregatorSettings] = {
            # The aggregator first: what it must build is known to it when ingest appends the first of it.
            "aggregator": aggregator_of(feed, kafka, plan.intervals, tools.defaults),
            "ingest": ingest_of(feed, kafka, plan.symbols, plan.intervals, tools.defaults),
        }
        for component, settings in wanted.items():
            known.making = component
            body = settings_map(feed, component, settings)
            await tools.children.ensure(CONFIG_MAP, body)
            await tools.children.ensure(SERVICE, feed_service(feed, component))
            await tools.children.ensure(STATEFUL_SET, feed_set(feed, component, kafka, tools.defaults))
            await self._nudge(feed, component, body["metadata"]["annotations"][CONTENT])

    async def _remove_children(self, feed: MarketFeed) -> None:
        """End ingest and aggregator: nobody asks for anything any more. Their Services stay, which cost nothing. Whoever
        asks again has them made anew, as after a lost pod: a new session of the market, the same topics."""
        children = self._tools.children
        doomed = [
            (kind, child_name(feed, component))
            # Ingest's ConfigMap goes last: it tells what runs, should the operator end in between.
            for kind in (STATEFUL_SET, CONFIG_MAP)
            for component in ("aggregator", "ingest")
            if (item := children.seen(kind, (feed.namespace, child_name(feed, component)))) is not None
            and is_owned_by(item, feed)
        ]
        if not doomed:
            return
        pools = self._tools.cache.pools_of(feed.key)
        if not all(self._tools.planner.has_planned(pool) for pool in pools):
            # What a pool asks for isn't known since the operator's start, and its workers run on meanwhile.
            self._tools.mark(("feed", *feed.key), _ASK_S)
            return
        log.info("nothing is asked of the feed: ingest and aggregator end", extra={"feed": feed.full_name})
        for kind, name in doomed:
            await children.delete(kind, feed.namespace, name)

    async def _nudge(self, feed: MarketFeed, component: Component, digest: str) -> None:
        """Note the settings' digest on the pod: a changed pod has the kubelet bring its files up to date at once,
        where it would else take up to a minute. By ``status``: who may patch pods may change their images."""
        pod = self._pod(feed, component)
        if pod is None or (pod["metadata"].get("annotations") or {}).get(SETTINGS) == digest:
            return
        name = pod["metadata"]["name"]
        try:
            note = {"metadata": {"annotations": {SETTINGS: digest}}}
            await self._api.merge(POD, feed.namespace, name, note, subresource="status")
        except GoneError:
            log.debug("pod gone before it was nudged", extra={"pod": name})

    def _pod(self, feed: MarketFeed, component: Component) -> Object | None:
        return self._tools.children.seen(POD, (feed.namespace, f"{child_name(feed, component)}-0"))

    async def _look_for_pods(self, feed: MarketFeed, known: _Known) -> None:
        """Find out why ingest or aggregator has no pod."""
        found: list[PodRefusal] = [known.unmade] if known.unmade is not None else []
        for component in _COMPONENTS:
            item = self._tools.children.seen(STATEFUL_SET, (feed.namespace, child_name(feed, component)))
            if item is None:
                continue
            refused: PodRefusal | None = None
            again_s: float | None = _ASK_S
            try:
                has_pod = self._pod(feed, component) is not None
                refused, again_s = await self._tools.refusals.look(item, has_pod=has_pod)
            except ChandleryError as error:
                log.warning("can't ask why a feed has no pod", extra={"feed": feed.full_name, "problem": str(error)})
            if refused is not None:
                found.append(refused)
            if again_s is not None:
                self._tools.mark(("feed", *feed.key), again_s)
        # What was told first stays told as long as it holds: one event, not one for each pod.
        if known.refused not in found:
            known.refused = found[0] if found else None

    def _of_quota(self, feed: MarketFeed, component: Component, error: InputError) -> PodRefusal | None:
        """A part that can't even have its objects for a quota has no pod for the same reason."""
        name = child_name(feed, component)
        is_there = self._tools.children.seen(STATEFUL_SET, (feed.namespace, name)) is not None
        return refusal_of(str(error), name, of_feed=True) if is_of_quota(str(error)) and not is_there else None

    async def _ask(self, feed: MarketFeed, known: _Known) -> None:
        """Ask ingest and aggregator what they know; what ingest says of symbols concerns the pools' Traders."""
        ready = [one for one in _COMPONENTS if is_ready(pod := self._pod(feed, one)) and address_of(pod)]
        if "ingest" not in ready:
            known.ingest.kafka_problem = None
        if "aggregator" not in ready or not is_paced(feed):
            known.lag.forget()
        now_s = time.monotonic()
        due = [one for one in ready if now_s - known.asked_s.get(one, float("-inf")) >= _ASK_S]
        known.asked_s |= dict.fromkeys(due, now_s)
        for answer in await asyncio.gather(*(self._answer(feed, one) for one in due)):
            if isinstance(answer, IngestStatus):
                if known.unknown.note(answer.unknown_symbols, answer.connected, now_s):
                    for pool in self._tools.cache.pools_of(feed.key):
                        self._tools.mark(("pool", *pool), 0.05)
                known.ingest = answer
            elif answer is not None and is_paced(feed):
                known.lag.note(answer.behind_ms, now_s)
        if ready:
            self._tools.mark(("feed", *feed.key), _ASK_S)

    async def _answer(self, feed: MarketFeed, component: Component) -> IngestStatus | AggregatorStatus | None:
        """What a component's status says; None: it doesn't answer."""
        address = address_of(self._pod(feed, component))
        host = f"[{address}]" if ":" in address else address
        port = INGEST_PORT if component == "ingest" else AGGREGATOR_PORT
        try:
            async with asyncio.timeout(_ANSWER_S), self._session.get(f"http://{host}:{port}/v1/status") as answer:
                body = await answer.read()
            if component == "ingest":
                return msgspec.json.decode(body, type=IngestStatus)
            return msgspec.json.decode(body, type=AggregatorStatus)
        except (aiohttp.ClientError, OSError, TimeoutError, msgspec.DecodeError) as error:
            facts = {"feed": feed.full_name, "component": component, "problem": in_words(error)}
            log.debug("no answer to a question of its status", extra=facts)
            return None

    def _unready(self, feed: MarketFeed) -> dict[str, str]:
        """Those of its parts that aren't Ready, each with what keeps its pod from running."""
        pods = {child_name(feed, component): self._pod(feed, component) for component in _COMPONENTS}
        return {name: trouble_of(pod) for name, pod in pods.items() if not is_ready(pod)}

    async def _say(self, held: Held, feed: MarketFeed | None, plan: FeedPlan | None, known: _Known) -> None:
        tools = self._tools
        kafka = kafka_settings(feed, tools.defaults.kafka) if feed is not None else None
        bootstrap = kafka.bootstrap if kafka is not None else ""
        unready = self._unready(feed) if feed is not None else {}
        symbols = min(len(plan.symbols), len(plan.intervals)) if plan is not None else 0
        state = feed_state(
            held,
            symbols=symbols,
            kafka=bootstrap,
            unready=unready,
            problem=known.problem,
            refused=known.refused,
            kafka_problem=known.ingest.kafka_problem,
            lags_ms=known.lag.told_ms,
            unknown=known.unknown.symbols,
        )
        status = feed_status(
            held,
            state,
            plan,
            source=feed.spec.source.kind if feed is not None else "",
            session=known.ingest.session,
            kafka=bootstrap,
            topics=f"{kafka.prefix}{feed_topic(feed)}." if feed is not None and kafka is not None else "",
            pools=len(tools.cache.pools_of(held.key)),
            unknown=known.unknown.symbols,
            now=timestamp(),
        )
        wait_s = tools.statuses.wait_s(held, status)
        if wait_s is None:
            return
        if wait_s > 0:
            tools.mark(("feed", *held.key), wait_s)
            return
        if not await tools.events.tell_state(held, state):
            tools.mark(("feed", *held.key), UNTOLD_S)
            return
        if (now := tools.cache.by_uid(held.uid)) is None or now.generation != held.generation:
            return  # it was changed while that was told, and has been marked
        outcome = await tools.statuses.write(MARKET_FEED, held, status)
        if outcome in ("stale", "gone"):
            tools.mark(("feed", *held.key), 0.3)
        if outcome == "gone":
            tools.cache.drop(held.uid)


def _unknown_in(status: Mapping[str, Any]) -> list[str]:
    """The symbols that a feed's status says its source doesn't have."""
    try:
        return msgspec.convert(status.get("unknownSymbols", []), list[str])
    except msgspec.ValidationError:
        return []  # somebody else's words


def _is_empty(plan: FeedPlan) -> bool:
    """Whether there is nothing to ingest: no symbol, or no interval to build of it."""
    return not plan.symbols or not plan.intervals
