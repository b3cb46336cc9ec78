"""What the sidecar has on disk until it is done."""
