"""What the tests of pages share: a hostile name, and a page taken apart."""

import json
import re
from html.parser import HTMLParser

import pytest

HOSTILE = "</script><script>alert(1)</script><img src=x onerror=alert(2)>\"'&amp; {{ 7 * 7 }} $x$ ]]>"


class Reader(HTMLParser):
    """The elements of a page with their attributes, and the text inside each kind of element."""

    def __init__(self, text):
        super().__init__()
        self.elements, self.texts, self._open = [], {}, []
        self.feed(text)

    def handle_starttag(self, tag, attributes):
        self.elements.append((tag, dict(attributes)))
        self.texts.setdefault(tag, []).append("")
        self._open.append(tag)

    def handle_endtag(self, tag):
        while self._open and self._open.pop() != tag:
            pass

    def handle_data(self, text):
        for tag in self._open:
            self.texts[tag][-1] += text


def data_of(page):
    (text,) = re.findall(r'<script type="application/json" id="data">(.*?)</script>', page, re.DOTALL)
    return json.loads(text, parse_constant=pytest.fail)
