"""The candle aggregator: topic ``trades`` → candle topics, as a Faust app.

The guarantee, over kill -9 at any moment: every output is appended at least once, repetitions are equal to
the first, and the counts are exact. It rests on three things:

* :mod:`chandlery.stream.aggregation` is deterministic: a record applied again gives the same output again;
* a checkpoint writes state only after every output up to it is acknowledged (``checkpoints``);
* the input position is part of the checkpoint (``partition.Manifest``), not of the consumer group's offsets,
  and records are applied strictly one offset after the other (``position``).
"""
