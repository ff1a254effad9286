"""The local runtime behind ``chandlery up``: the same parts as in the cluster, as processes of one machine."""
