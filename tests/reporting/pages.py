"""What the tests of pages share: a hostile name, contents that nobody trained, and a page taken apart."""

import base64
import io
import json
import re
from html.parser import HTMLParser

import numpy as np
import pytest
from matplotlib.image import imread

from trajdesign.config.models import load_config
from trajdesign.encoding.psf import psf
from trajdesign.learning.examples import Example
from trajdesign.learning.results import Results, StageResult
from trajdesign.learning.run_folder import RunFolder
from trajdesign.physics import limits
from trajdesign.reporting.webpage import Contents

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


def invented(trajectory):
    """Return contents of a page about a trajectory that was not learned, with images of noise."""
    noise = np.random.default_rng(0).random((2, *trajectory.acquisition.image_shape))
    parts = {"adjoint": noise[1], "network": noise[1]}
    example = Example(trajectory, noise[0], parts, {"adjoint": {}, "network": {}})
    spread, found = psf(trajectory), limits.check(trajectory)
    result = StageResult(48, [], 30.125, 0.9, 0.1, [], [], [])
    return Contents(
        path=RunFolder("run").path,
        config=load_config(),
        conditions={},
        results=Results("", {"fixed": result, "learned": result}, wilcoxon_p={"psnr": float("nan"), "ssim": 0.5}),
        trajectories={"fixed": trajectory, "learned": trajectory},
        acting=None,
        psfs={"fixed": spread, "learned": spread},
        findings={"fixed": found, "learned": found},
        examples={"fixed": example, "learned": example},
        curves={"fixed": ([1.0, 2.0], [20.0, float("nan")])},
    )


def value(opened, selector):
    return opened.run(f"document.querySelector({json.dumps(selector)}).value")


def pixels(opened, selector):
    """Return what a canvas shows (y, x, rgba)."""
    return decoded(opened.run(f"document.querySelector({json.dumps(selector)}).toDataURL()"))


def decoded(address):
    """Return the picture (y, x, rgb or rgba) of an address that holds its data."""
    return imread(io.BytesIO(base64.b64decode(address.partition(",")[2])))
