"""What tests share: clocks, a scripted upstream, a running proxy."""
