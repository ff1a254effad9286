"""Kubernetes' API as the operator uses it: credentials, requests, watches. Knows nothing of Chandlery's resources."""
