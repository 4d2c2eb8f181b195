"""The control plane: what operators can do, and how commands reach a running server."""
