"""The manifests for Kubernetes, and what of them is generated (`k8s.generate`)."""
