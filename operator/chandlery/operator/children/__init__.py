"""Manifests of what the operator makes in a cluster, as pure functions of resources and defaults."""
