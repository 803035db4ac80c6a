"""Figures as SVG for a web page: small, the same bytes every time, in the page's own colours and fonts."""

from __future__ import annotations

import base64
import hashlib
import io
import re
from typing import TYPE_CHECKING

from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.backends.backend_svg import FigureCanvasSVG
from matplotlib.colors import to_hex, to_rgb
from PIL import Image

if TYPE_CHECKING:
    from sln.plots.style import Figure

GRID, DARK_GRID = "#e6e6e6", "#3a3d42"  # the grid's colour in style.mplstyle, and on a dark page
DARK = "#16181c"  # a dark page, on which lines and words keep CONTRAST
CONTRAST = 3.0  # of luminances, as WCAG 2 asks of graphics
PHOTOGRAPH = 4096  # pixels, from which on an image may lose what nobody sees
LEGIBLE = 1.12  # pixels per point at least: words of 8 points are 9 pixels high
DOTS = 90  # per inch, of what is not drawn as lines
# DejaVu Sans has measured the words; Verdana has its widths, and most other machines have Verdana
FONTS = "'DejaVu Sans', Verdana, sans-serif"
NO_DATE = dict.fromkeys(("Creator", "Date", "Format", "Type"))


def svg(figure: Figure, prefix: str | None = None) -> str:
    """The figure as one <svg> element without a size of its own; ids begin with `prefix`.

    Black is the page's ink, the background is left out, and lines and words that a dark page would swallow
    are lighter there. By default `prefix` is a hash of the content, so that two figures share no id.
    """
    buffer, dots = io.StringIO(), figure.dpi
    patches = [figure.patch, *(ax.patch for ax in figure.axes if ax.patch.get_facecolor() == (1, 1, 1, 1))]
    shown = [patch for patch in patches if patch.get_visible()]
    try:
        figure.dpi = DOTS
        for patch in shown:
            patch.set_visible(False)
        FigureCanvasSVG(figure).print_svg(buffer, metadata=NO_DATE)
    finally:
        FigureCanvasAgg(figure)
        figure.dpi = dots
        for patch in shown:
            patch.set_visible(True)
    text = buffer.getvalue()
    text = text[text.index("<svg") :]
    prefix = "f" + hashlib.sha256(text.encode()).hexdigest()[:8] + "-" if prefix is None else prefix
    text = re.sub(r"<!--.*?-->|<metadata>.*?</metadata>", "", text, flags=re.DOTALL)
    text = re.sub(r'data:image/png;base64,\s*([^"]+)', lambda found: _smaller(found[1]), text)
    text = re.sub(r' transform="rotate\(-?0 [^"]*"', "", text).replace("xlink:href", "href")
    text = _named(_rounded(text), prefix)
    size = f'<svg viewBox="0 0 {figure.get_figwidth() * 72:g} {figure.get_figheight() * 72:g}"'
    head = f'{size} fill="currentColor" font-family="{FONTS}" xmlns="http://www.w3.org/2000/svg"'
    text = re.sub(r"<svg[^>]*", lambda _: head, text, count=1)
    return re.sub(r"\s*\n\s*", " ", _coloured(text)).strip()


def place(picture: str) -> tuple[float, str]:
    """Height by width of an SVG, and the CSS of its place, wide enough for words of 8 points."""
    width, height = map(float, re.search(r'viewBox="0 0 (\S+) (\S+)"', picture).groups())
    return height / width, f"aspect-ratio: {width / height:.4f}; min-width: {LEGIBLE * width:.0f}px"


def _rounded(text: str) -> str:
    """Places to a tenth of a point, paths without what is understood; factors and opacities as they are."""

    def tenth(found: re.Match) -> str:
        number = round(float(found[0]), 1)
        return f"{number + 0.0:g}" if abs(number) < 1e5 else f"{number:.1f}"

    def line(found: re.Match) -> str:  # "L" need not be repeated, nor written after the first place
        return "M" + re.sub(r"[\sL]+", " ", found[0][1:]).strip()

    def places(found: re.Match) -> str:
        short = re.sub(r"-?\d+\.\d+", tenth, found[0])
        return re.sub(r"M[-\d.\sL]*", line, short) if short.startswith("d=") else short

    return re.sub(r'(?<= )(?:d|x|y|width|height|points)="[^"]*"|translate\([^)]*\)', places, text)


def _named(text: str, prefix: str) -> str:
    """Only the ids that something refers to, each shorter and behind `prefix`."""
    used = re.findall(r'(?:url\(#|href="#)([^")]+)', text)
    names = {name: f"{prefix}{number}" for number, name in enumerate(dict.fromkeys(used))}
    text = re.sub(
        r' id="([^"]+)"', lambda found: f' id="{names[found[1]]}"' if found[1] in names else "", text
    )
    return re.sub(r'(url\(#|href="#)([^")]+)', lambda found: found[1] + names[found[2]], text)


def _coloured(text: str) -> str:
    """The page's ink for black, its font, and colours that a dark page does not swallow."""
    text = re.sub(r"#000000\b", "currentColor", text)
    text = re.sub(r"font-family: [^;\"]*;? ?|(?<=px )'DejaVu Sans'[^;\"]*", "", text)

    def both(found: re.Match) -> str:  # a browser without light-dark() takes the first
        name, colour = "fill" if found[1].startswith("<text") else "stroke", _on_both(found[2])
        return found[0] if colour == found[2] else f"{found[0]}; {name}: {colour}"

    return re.sub(r"(stroke: |<text[^>]*?fill: )(#[0-9a-f]{6})", both, text)


def _on_both(colour: str) -> str:
    """A colour, or `light-dark(colour, a lighter one)` if a dark page would swallow it."""
    if colour == GRID:
        return f"light-dark({GRID}, {DARK_GRID})"
    rgb, share = to_rgb(colour), 0.0
    lighter = rgb
    while _luminance(lighter) + 0.05 < CONTRAST * (_luminance(to_rgb(DARK)) + 0.05):
        share += 0.05
        lighter = tuple(value + share * (1 - value) for value in rgb)
    return f"light-dark({colour}, {to_hex(lighter)})" if share else colour


def _luminance(rgb: tuple[float, ...]) -> float:
    """Relative luminance of sRGB in [0, 1] (WCAG 2)."""
    linear = [value / 12.92 if value <= 0.04045 else ((value + 0.055) / 1.055) ** 2.4 for value in rgb]
    return 0.2126 * linear[0] + 0.7152 * linear[1] + 0.0722 * linear[2]


def _smaller(png: str) -> str:
    """An image as a data URI, in the smallest form; only large ones may change, where nobody sees it."""
    raw = base64.b64decode("".join(png.split()))
    image = Image.open(io.BytesIO(raw))
    forms = {"png": raw}
    if image.width * image.height >= PHOTOGRAPH:
        for kind, options in {"webp": {"quality": 50, "alpha_quality": 10, "method": 4}}.items():
            buffer = io.BytesIO()
            image.save(buffer, kind, **options)
            forms[kind] = buffer.getvalue()
    kind = min(forms, key=lambda kind: len(forms[kind]))
    return f"data:image/{kind};base64,{base64.b64encode(forms[kind]).decode()}"
