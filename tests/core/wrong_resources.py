"""Resources that can't be, with what says so: for the validator's tests, and the API server's."""

from __future__ import annotations

from typing import Any, Final

from chandlery.core.resources import MarketFeed, Resource, Trader, TraderPool

TRADER: dict[str, Any] = {
    "metadata": {"name": "a"},
    "spec": {
        "pool": {"name": "p"},
        "strategy": {"name": "sma-cross"},
        "market": {"symbols": ["BTC/USDT"], "interval": "1m"},
    },
}
POOL: dict[str, Any] = {"metadata": {"name": "a"}, "spec": {"feed": {"name": "f"}}}
FEED: dict[str, Any] = {"metadata": {"name": "a"}, "spec": {"source": {"synthetic": {}}}}


def with_spec(base: dict[str, Any], **spec: Any) -> dict[str, Any]:
    """``base`` with these fields in its spec."""
    return {**base, "spec": {**base["spec"], **spec}}


def market(**fields: Any) -> dict[str, Any]:
    """A Trader with these fields in ``spec.market``."""
    return with_spec(TRADER, market={**TRADER["spec"]["market"], **fields})


def replay(**fields: Any) -> dict[str, Any]:
    """A MarketFeed with a replay of these fields."""
    return with_spec(FEED, source={"replay": {"files": ["a.csv"], **fields}})


def kafka(**fields: Any) -> dict[str, Any]:
    """A MarketFeed with these fields in ``spec.kafka``, beside an address."""
    return with_spec(FEED, kafka={"bootstrapServers": "kafka:9093", **fields})


PASSWORD: Final = {"username": "u", "passwordSecret": {"secretName": "u"}}
HISTORY: Final = {"symbol": "BTC/USDT", "interval": "1m", "path": "a.csv"}

#: (type, what is given, words of the validator's message, words of the API server's; None: JSON can't say it).
REFUSED: Final[list[tuple[type[Resource], dict[str, Any], str, str | None]]] = [
    (Trader, with_spec(TRADER, market={"symbols": [], "interval": "1m"}), "at least 1 item", "spec.market.symbols in body should have at least 1 items"),
    (Trader, with_spec(TRADER, market={"symbols": ["BTC/USDT", "btcusdt"], "interval": "1m"}), "BTC/USDT twice", "spec.market.symbols: Invalid value: symbols has one of them twice"),
    (Trader, with_spec(TRADER, market={"symbols": ["A/B"] * 65, "interval": "1m"}), "at most 64", "spec.market.symbols: Too many: 65: must have at most 64 items"),
    (Trader, with_spec(TRADER, resources={"memory": "1Mi"}), "32Mi or more", "spec.resources.memory: Invalid value: memory is too little to start in; write 32Mi or more"),
    (Trader, with_spec(TRADER, suspend="yes"), "boolean", "spec.suspend in body must be of type boolean"),
    (Trader, with_spec(TRADER, strategy={"name": "s", "parameters": {"a": float("nan")}}), "finite", None),
    (Trader, with_spec(TRADER, strategy={"name": "s", "parameters": {"a": [1]}}), "a list", "spec.strategy.parameters.a: Too many: 1"),
    (Trader, {**TRADER, "metadata": {"name": "A b"}}, "pattern", "metadata.name in body should match"),
    (Trader, {**TRADER, "metadata": {"name": "a" * 64}}, "63", "metadata.name: Too long: may not be more than 63 bytes"),
    (TraderPool, {**POOL, "metadata": {"name": "a" * 49}}, "48", "metadata.name: Too long: may not be more than 48 bytes"),
    (MarketFeed, {**FEED, "metadata": {"name": "a" * 42}}, "41", "metadata.name: Too long: may not be more than 41 bytes"),
    (TraderPool, with_spec(POOL, workers={"min": 3, "max": 2}), "max 2 is below min 3", "spec.workers.max: Invalid value: max is below min; raise max, or lower min"),
    (TraderPool, with_spec(POOL, workers={"spare": 2}), "spare 2 is above max 1", "spec.workers.spare: Invalid value: spare is above max; lower spare, or raise max"),
    (TraderPool, with_spec(POOL, tradersPerWorker=True), "valid integer", "spec.tradersPerWorker in body must be of type integer"),
    (TraderPool, with_spec(POOL, tiers=[{"name": "a"}, {"name": "a"}]), "same name", "spec.tiers: Invalid value: two of the tiers have the same name"),
    (TraderPool, with_spec(POOL, allowedTraders={"namespaces": {"from": "Selector"}}), "needs a selector", "from: Selector needs a selector, such as selector: {matchLabels: {team: quant}}"),
    (TraderPool, with_spec(POOL, allowedTraders={"namespaces": {"selector": {}}}), "write from: Selector", "spec.allowedTraders.namespaces.selector: Invalid value: selector has no meaning without from: Selector"),
    (MarketFeed, with_spec(FEED, source={}), "exactly one", "spec.source: Invalid value: needs exactly one of synthetic, replay and binance"),
    (MarketFeed, with_spec(FEED, source={"synthetic": {}, "binance": {}}), "synthetic and binance", "spec.source: Invalid value: needs exactly one of synthetic, replay and binance"),
    (MarketFeed, with_spec(FEED, source={"binance": {"baseUrl": "https://x"}}), "pattern", "spec.source.binance.baseUrl in body should match"),
    (MarketFeed, with_spec(FEED, source={"replay": {"files": ["x"], "speed": 0}}), "above 0", "spec.source.replay.speed in body should be greater than 0"),
    (MarketFeed, with_spec(FEED, kafka={"minInsyncReplicas": 2}), "nothing could be written", "minInsyncReplicas is above replicationFactor: nothing could be written"),
    (MarketFeed, kafka(tls={"insecure": True}), "insecure", None),
    (MarketFeed, with_spec(FEED, kafka={"tls": {}}), "needs bootstrapServers", "need bootstrapServers: no login is sent to a Kafka that isn't named"),
    (MarketFeed, kafka(strimzi={"cluster": "c"}, tls={}), "leave out tls", "spec.kafka.strimzi: Invalid value: strimzi says it all: leave out tls and authentication"),
    (MarketFeed, kafka(authentication={"type": "plain", **PASSWORD}), "in the clear", "plain would send the password in the clear"),
    (MarketFeed, kafka(authentication={"type": "tls", "certificateAndKey": {"secretName": "u"}}), "needs tls", "spec.kafka.authentication: Invalid value: needs tls"),
    (MarketFeed, kafka(tls={}, authentication={"type": "scram-sha-512", "username": "u"}), "needs username and passwordSecret", "a login by password needs username and passwordSecret"),
    (MarketFeed, kafka(tls={}, authentication={"type": "tls"}), "needs certificateAndKey", "type: tls needs certificateAndKey"),
    (MarketFeed, kafka(tls={}, authentication={"type": "tls", "certificateAndKey": {"secretName": "u"}, "username": "u"}), "leave out username", "leave out username and passwordSecret"),
    (MarketFeed, kafka(tls={}, authentication={"type": "plain", **PASSWORD, "certificateAndKey": {"secretName": "u"}}), "without type: tls", "certificateAndKey has no meaning without type: tls"),
    (MarketFeed, kafka(tls={}, authentication={"type": "oauth", **PASSWORD}), "scram-sha-512", "spec.kafka.authentication.type: Unsupported value"),
    (MarketFeed, kafka(tls={"trustedCertificates": [{"secretName": "c", "certificate": "../x"}]}), "pattern", "spec.kafka.tls.trustedCertificates[0].certificate in body should match"),
    (MarketFeed, kafka(strimzi={"cluster": "../c"}), "pattern", "spec.kafka.strimzi.cluster in body should match"),
    (MarketFeed, with_spec(FEED, retention={"live": "1s"}), "at least 1m", "spec.retention.live: Invalid value: live must be at least 1m"),
    (MarketFeed, with_spec(FEED, symbols="all"), "auto or a list", "spec.symbols in body should match '^auto$'"),
    (MarketFeed, with_spec(FEED, allowedLateness=5), "duration as text", "spec.allowedLateness in body must be of type string"),
    (Trader, market(interval="1x"), "is no interval", "spec.market.interval: Invalid value: \"1x\": is no interval: write a number and a unit"),
    (Trader, market(interval="7m"), "divide a day", "spec.market.interval: Invalid value: \"7m\": doesn't divide a day evenly"),
    (Trader, market(interval="5M"), "months must divide", "months must divide a year"),
    (Trader, market(interval="100000h"), "is no interval", "spec.market.interval"),
    (Trader, market(symbols=["BTC"]), "is no symbol", "spec.market.symbols[0]: Invalid value: \"BTC\": is no symbol: write base/quote"),
    (Trader, market(symbols=["BTC/USDT/X"]), "is no symbol", "is no symbol: write base/quote"),
    (Trader, market(warmup=0), "greater than or equal to 1", "spec.market.warmup in body should be greater than or equal to 1"),
    (Trader, market(informative=[{"symbol": "ETH/USDT"}]), "required", "spec.market.informative[0].interval: Required value"),
    (Trader, with_spec(TRADER, signals={"ttl": "5 minutes"}), "is no duration", "spec.signals.ttl: Invalid value: \"5 minutes\": is no duration"),
    (Trader, with_spec(TRADER, signals={"ttl": "1s1m"}), "is no duration", "is no duration: write whole numbers"),
    (Trader, with_spec(TRADER, signals={"ttl": "99999999999w"}), "too long", "is too long: a hundred years at most"),
    (Trader, with_spec(TRADER, resources={"memory": "256MB"}), "write 256Mi", "spec.resources.memory: Invalid value: \"256MB\": is no amount of memory"),
    (Trader, with_spec(TRADER, resources={"memory": -1}), "negative", "is no amount of memory"),
    (Trader, with_spec(TRADER, resources={"memory": 1000}), "32Mi or more", "write 32Mi or more"),
    (Trader, with_spec(TRADER, strategy={"name": "s", "parameters": {"a": []}}), "a list", "spec.strategy.parameters.a"),
    (Trader, with_spec(TRADER, strategy={"name": "s", "parameters": {"a": {}}}), "an object", "spec.strategy.parameters.a"),
    (Trader, with_spec(TRADER, strategy={"name": "s", "source": {}}), "required", "spec.strategy.source.configMapRef: Required value"),
    (Trader, with_spec(TRADER, pool={"name": "No_Name"}), "pattern", "spec.pool.name: Invalid value: \"No_Name\": won't do: lower-case letters"),
    (Trader, with_spec(TRADER, colour="red"), "Extra inputs", "strict decoding error: unknown field \"spec.colour\""),
    (Trader, with_spec(TRADER, transport="pipe"), "'SharedMemory' or 'Pipe'", "spec.transport: Unsupported value: \"pipe\""),
    (TraderPool, with_spec(POOL, tiers=[]), "at least 1 item", "spec.tiers in body should have at least 1 items"),
    (TraderPool, with_spec(POOL, workers={"min": 1, "max": 0}), "greater than or equal to 1", "spec.workers.max in body should be greater than or equal to 1"),
    (TraderPool, with_spec(POOL, transport="Pigeon"), "'SharedMemory' or 'Pipe'", "spec.transport: Unsupported value: \"Pigeon\""),
    (MarketFeed, replay(speed="fast"), "above 0", "spec.source.replay.speed in body should match '^max$'"),
    (MarketFeed, replay(speed=True), "above 0", "spec.source.replay.speed"),
    (MarketFeed, replay(files=[]), "at least 1 item", "spec.source.replay.files in body should have at least 1 items"),
    (MarketFeed, replay(files=[{"symbol": "BTC/USDT"}]), "required", "spec.source.replay.files[0].path: Required value"),
    (MarketFeed, replay(files=[5]), "valid", "spec.source.replay.files[0]"),
    (MarketFeed, with_spec(FEED, symbols=[]), "at least 1 item", "spec.symbols in body should have at least 1 items"),
    (MarketFeed, with_spec(FEED, symbols=[5]), "symbol as text", "spec.symbols[0] in body must be of type string"),
    (MarketFeed, with_spec(FEED, symbols=True), "auto or a list", "spec.symbols"),
    (MarketFeed, with_spec(FEED, symbols={}), "auto or a list", "spec.symbols"),
    (MarketFeed, with_spec(FEED, retention={"signals": "59s999ms"}), "at least 1m", "spec.retention.signals: Invalid value: signals must be at least 1m"),
    (MarketFeed, with_spec(FEED, source={"synthetic": {"volatility": 0}}), "greater than 0", "spec.source.synthetic.volatility in body should be greater than 0"),
    (MarketFeed, with_spec(FEED, history={"files": [HISTORY, {**HISTORY, "shift": True}]}), "same in all", "spec.history.files: Invalid value: shift must be the same in all"),
]  # fmt: skip

#: What is unusual and yet right, in every form that a field takes.
ACCEPTED: Final[list[tuple[type[Resource], dict[str, Any]]]] = [
    (Trader, TRADER),
    (TraderPool, POOL),
    (MarketFeed, FEED),
    (Trader, market(symbols=["btcusdt", "ETH/USDT:USDT", "BTC/USD:BTC-251226"], interval="12M", warmup=100_000)),
    (Trader, market(informative=[{"interval": "1h"}, {"symbol": "ETHBTC", "interval": "1w"}])),
    (MarketFeed, kafka(tls={}, authentication={"type": "plain", **PASSWORD})),
    (MarketFeed, kafka(authentication={"type": "scram-sha-256", **PASSWORD})),
    (MarketFeed, kafka(strimzi={"cluster": "my-cluster", "user": "my-user.with.dots"})),
    (
        MarketFeed,
        kafka(
            tls={"trustedCertificates": [{"secretName": "c"}, {"secretName": "d", "certificate": "tls.crt"}]},
            authentication={
                "type": "tls",
                "certificateAndKey": {"secretName": "u", "certificate": "tls.crt", "key": "tls.key"},
            },
        ),
    ),
    (Trader, with_spec(TRADER, signals={"ttl": "1w2d3h4m5s6ms", "cooldown": "0s"})),
    (Trader, with_spec(TRADER, resources={"memory": 268435456})),
    (Trader, with_spec(TRADER, resources={"memory": "0.5Gi"}, tier=None, signals=None)),
    (Trader, with_spec(TRADER, strategy={"name": "s", "parameters": {"a": 1, "b": 0.5, "c": "x", "d": True, "e": ""}})),
    (Trader, with_spec(TRADER, strategy={"name": "s", "source": {"configMapRef": {"name": "code"}}})),
    (TraderPool, with_spec(POOL, workers={"min": 3})),
    (TraderPool, with_spec(POOL, workers={"min": 0, "spare": 1})),
    (TraderPool, with_spec(POOL, podTemplate={"spec": {"nodeSelector": {"a": "b"}, "anything": [1, {}]}})),
    (TraderPool, with_spec(POOL, allowedTraders={"namespaces": {"from": "Selector", "selector": {}}})),
    (MarketFeed, with_spec(FEED, symbols=["BTC/USDT", "ethusdt"], intervals=["1s", "1d"])),
    (MarketFeed, with_spec(FEED, source={"synthetic": {"seed": 2**63 - 1, "startPrice": 5}})),
    (MarketFeed, replay(speed="max", files=["a.csv", {"path": "b.csv", "symbol": "BTC/USDT"}])),
    (MarketFeed, replay(speed=0.5)),
    (MarketFeed, with_spec(FEED, retention={"live": "60000ms", "fast": "1m", "closed": "26w"})),
    (MarketFeed, with_spec(FEED, kafka={"replicationFactor": 3, "minInsyncReplicas": 2, "topicPrefix": ""})),
]
