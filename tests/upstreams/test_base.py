"""The two ways in which a reply fails to come, and what of each is told on."""

from __future__ import annotations

import pytest

from lumeproxy.errors import LumeError, Unreachable
from lumeproxy.upstreams.base import CutShort, NotReached


@pytest.mark.parametrize("sent", [True, False])
def test_no_reply_is_an_unreachable_upstream_and_says_whether_the_request_may_have_arrived(sent):
    error = NotReached("The upstream x can't be reached.", sent=sent)

    assert isinstance(error, Unreachable)
    assert (error.status, error.code, error.final) == (503, "upstream_unreachable", False)
    assert (error.message, error.sent, error.retry_after_s) == ("The upstream x can't be reached.", sent, 5)


def test_a_reply_that_breaks_off_is_no_error_for_a_client_but_an_ending():
    assert not issubclass(CutShort, LumeError)
