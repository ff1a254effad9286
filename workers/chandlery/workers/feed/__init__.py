"""The feed, a worker's only gateway: candles into the segment, signals out of the rings, the pod's API."""
