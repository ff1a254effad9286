"""``kubectl chandlery``: Chandlery on Kubernetes, seen with the rights of whoever runs kubectl."""
