"""Set-up of the tools on a developer's own machine: a plan as a diff, applied key by key, taken back key by key."""
