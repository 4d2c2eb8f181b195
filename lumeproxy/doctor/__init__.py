"""`lumeproxy doctor`: what is wrong here, and the mend.

Facts are gathered in `examination` and `trial`; the rest decides from values."""
