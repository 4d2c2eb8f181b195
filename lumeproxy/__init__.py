"""lumeproxy: keys, prepaid credit and exact metering between coding agents and model providers."""

__version__ = "0.1.0"
