"""Commands: one file a noun. Nothing here is imported by the server."""
