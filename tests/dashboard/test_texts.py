"""The operator's Markdown becomes HTML of a few plain elements, whatever stands in it."""

from __future__ import annotations

from html.parser import HTMLParser

import pytest
from hypothesis import given
from hypothesis import strategies as st

from lumeproxy.dashboard.texts import PRIVACY, TERMS, render

ALLOWED = {"h1", "h2", "h3", "p", "ul", "ol", "li", "em", "strong", "code", "a"}


@pytest.mark.parametrize(
    ("markdown", "html"),
    [
        ("# Title", "<h1>Title</h1>"),
        ("### Sub *one*\ntext\ngoes on", "<h3>Sub <em>one</em></h3>\n<p>text goes on</p>"),
        ("a **b** `c*d`", "<p>a <strong>b</strong> <code>c*d</code></p>"),
        ("- one\n- two\n  more", "<ul><li>one</li><li>two more</li></ul>"),
        ("1. one\n2) two", "<ol><li>one</li><li>two</li></ol>"),
        ("[x](https://a.test/?b=1&c=2)",
         '<p><a href="https://a.test/?b=1&amp;c=2" rel="noreferrer noopener">x</a></p>'),
        ("[x](/privacy)\r\n\r\ny", '<p><a href="/privacy" rel="noreferrer noopener">x</a></p>\n<p>y</p>'),
        ("[x](javascript:alert(1))", "<p>[x](javascript:alert(1))</p>"),
        ("[x](data:text/html,a)", "<p>[x](data:text/html,a)</p>"),
        ("<script>alert(1)</script>", "<p>&lt;script&gt;alert(1)&lt;/script&gt;</p>"),
        ('[x](https://a"onclick="b)', None),
        ("", ""),
        ("#no heading\n####### nor this", "<p>#no heading ####### nor this</p>"),
    ],
)  # fmt: skip
def test_each_part_of_it(markdown, html):
    if html is None:
        assert "onclick=" not in str(render(markdown)).replace("&#34;onclick=", "")
    else:
        assert str(render(markdown)) == html


class Reader(HTMLParser):
    def __init__(self) -> None:
        super().__init__()
        self.seen: list[tuple[str, dict[str, str | None]]] = []

    def handle_starttag(self, tag, attrs):
        self.seen.append((tag, dict(attrs)))


@given(st.text(alphabet="<>\"'&`*#[]()-/: \n\tab1.=jhtps\x00é", max_size=120))
def test_nothing_but_plain_elements_comes_out(text):
    reader = Reader()
    reader.feed(str(render(text)))

    for tag, attributes in reader.seen:
        assert tag in ALLOWED
        assert attributes.keys() <= ({"href", "rel"} if tag == "a" else set())
        assert (attributes.get("href") or "/").startswith(("http://", "https://", "mailto:", "/"))


def test_the_defaults_say_what_is_kept_and_name_no_operator():
    terms, privacy = str(render(TERMS)), str(render(PRIVACY))

    assert terms.startswith("<h1>Terms</h1>") and privacy.startswith("<h1>Privacy</h1>")
    for word in ("neither stored nor logged", "address", "session and agent", "argon2id", "fingerprint", "only a hash"):
        assert word in privacy, word
    assert "*" not in terms + privacy
