"""What stands behind the API: `chandlery up` on this machine, or Chandlery on Kubernetes."""
