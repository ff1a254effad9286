"""The market's way in: ingest (connectors, replay, synthetic), the candle aggregator, topics, embedded broker."""
