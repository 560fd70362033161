"""What the HTML pages share: one file each that loads nothing.

The text of a page is a template of ``templates/``; ``page.js`` and a script of its own draw the JSON that stands in it,
in SI. Whatever a user named is escaped, and the page's policy lets no other script run.
"""

import base64
import hashlib
import io
import json
import math
from importlib.metadata import version
from pathlib import Path
from typing import Any

import jinja2
import markupsafe
import numpy as np
from PIL import Image

from trajdesign.physics import limits
from trajdesign.reporting import drawing

_TEMPLATES = Path(__file__).parent / "templates"
_DIGITS = 6


def render(name: str, data: Any, **shown: Any) -> str:
    """Return a page as HTML.

    Parameters
    ----------
    name
        Of its template and of its script.
    data
        What the script draws.
    **shown
        What the template shows.
    """
    environment = jinja2.Environment(
        loader=jinja2.FileSystemLoader(_TEMPLATES),
        autoescape=True,
        undefined=jinja2.StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.filters |= {"number": number, "worst": limits.worst}
    script = "".join(_text(f"{part}.js") for part in ("plots", "page", name))
    style = _text("report.css")
    return environment.get_template(f"{name}.html").render(
        shown,
        version=version("trajdesign"),
        # safe: files of the package
        script=markupsafe.Markup(script),
        style=markupsafe.Markup(style),
        data=_to_json(data),
        hashes={"script": _digest(script), "style": _digest(style)},
    )


def png(values: np.ndarray, low: float, high: float, colours: str) -> str:
    """Return values (y, x) between `low` and `high` as the address of a PNG image in the colours of a map."""
    image = Image.fromarray(np.rint(255 * np.clip((values - low) / (high - low), 0, 1)).astype(np.uint8))
    image.putpalette(drawing.palette(colours).tobytes())
    stream = io.BytesIO()
    image.save(stream, "PNG", optimize=True)
    return f"data:image/png;base64,{base64.b64encode(stream.getvalue()).decode()}"


def some(n: int, most: int) -> list[int]:
    """Return numbers below `n`, evenly, at most so many; of one the middle."""
    step = math.ceil(n / most)
    return list(range((n - 1) % step // 2, n, step))


def number(value: float | None, digits: int = 5) -> str:
    """Return a number as people read it, and a dash for one that is not finite."""
    return "–" if value is None or not math.isfinite(value) else f"{value:.{digits}g}"


def _text(name: str) -> str:
    return (_TEMPLATES / name).read_text(encoding="utf-8")


def _to_json(value: Any) -> markupsafe.Markup:
    """Return short JSON of few digits, with null for what is not finite, and without the characters of markup."""
    text = json.dumps(value, default=np.ndarray.tolist)
    rounded = json.loads(text, parse_float=lambda x: float(f"{float(x):.{_DIGITS}g}"), parse_constant=lambda _: None)
    return jinja2.utils.htmlsafe_json_dumps(rounded, separators=(",", ":"), allow_nan=False)


def _digest(text: str) -> str:
    """Return the hash by which the page's policy knows a script or style."""
    return f"sha256-{base64.b64encode(hashlib.sha256(text.encode()).digest()).decode()}"
