"""The data plane: one call from the client's bytes to the settled charge."""
