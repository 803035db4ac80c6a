"""One HTML page of the most suspect images, with a slider for the threshold.

It is one file that needs no network. Everything that comes from the user's data is escaped, and the page's
own policy lets nothing run but the script below.
"""

from __future__ import annotations

import base64
import hashlib
import html
import io
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import pandas as pd
from PIL import Image

THUMBNAIL = 112  # pixels of the longer side
STYLE = """
body { font: 16px/1.5 system-ui, sans-serif; color: #222; background: #fff; max-width: 70rem;
  margin: 2rem auto; padding: 0 1rem }
form { position: sticky; top: 0; background: #fff; padding: .75rem 0; border-bottom: 1px solid #bbb }
input { width: min(36rem, 90%); accent-color: #0072B2 }
ol { list-style: none; padding: 0; display: flex; flex-wrap: wrap; gap: 1rem }
li { width: 8.5rem; overflow-wrap: anywhere; font-size: .85rem; line-height: 1.3 }
li[hidden] { display: none }
img { width: 7rem; height: 7rem; object-fit: contain; image-rendering: pixelated; background: #eee }
.given { color: #9a3472 }
.suggested { color: #00664a; font-weight: 600 }
.name { color: #555 }
"""
SCRIPT = """
const slider = document.getElementById("threshold");
const pictures = [...document.querySelectorAll("li")];
const counts = slider.dataset.counts.split(",");
function show() {
  const threshold = Number(slider.value);
  for (const picture of pictures) picture.hidden = Number(picture.dataset.suspect) < threshold;
  const shown = pictures.filter((picture) => !picture.hidden).length;
  document.getElementById("value").textContent = threshold.toFixed(2);
  document.getElementById("suspects").textContent = counts[Math.round(100 * threshold)];
  document.getElementById("shown").textContent = shown;
  document.getElementById("command").textContent = "--threshold " + threshold.toFixed(2);
}
slider.addEventListener("input", show);
show();
"""


@dataclass(frozen=True)
class Suspect:
    """One image of the page, and what is said of it.

    image : None where it can no longer be read
    suspect, probability : in [0, 1]
    """

    name: str
    given: str
    suggested: str
    suspect: float
    probability: float
    rank: int
    image: Image.Image | None


def page(
    title: str, suspects: Sequence[Suspect], everything: pd.Series, threshold: float, about: Sequence[str]
) -> str:
    """The page as text.

    suspects : the most suspect images, the most suspect first
    everything : (N,) how suspect every label is, for the counts
    threshold : where the slider starts
    about : sentences on how this came about
    """
    rounded = np.round(everything.to_numpy(dtype=float), 4)
    counts = [int((rounded >= number / 100).sum()) for number in range(101)]
    start = round(threshold, 2)
    pictures = "\n".join(_picture(suspect) for suspect in suspects)
    sentences = "".join(f"<p>{html.escape(sentence)}</p>" for sentence in about)
    digest = base64.b64encode(hashlib.sha256(SCRIPT.encode()).digest()).decode()
    policy = f"default-src 'none'; img-src data:; style-src 'unsafe-inline'; script-src 'sha256-{digest}'"
    return f"""<!doctype html>
<html lang="en"><head><meta charset="utf-8">
<meta http-equiv="Content-Security-Policy" content="{policy}">
<meta name="viewport" content="width=device-width">
<title>Suspect labels: {html.escape(title)}</title><style>{STYLE}</style></head><body>
<h1>Suspect labels: {html.escape(title)}</h1>
{sentences}
<form>
<label for="threshold">Show labels whose estimated probability of being wrong is at least
<output id="value" for="threshold">{start:.2f}</output></label><br>
<input id="threshold" type="range" min="0" max="1" step="0.01" value="{start:.2f}" autocomplete="off"
 data-counts="{",".join(map(str, counts))}">
<p aria-live="polite"><span id="suspects">{counts[round(100 * start)]}</span> of {len(rounded)} labels are
that suspect; <span id="shown">{len(suspects)}</span> of the {len(suspects)} most suspect, which this page
holds, are shown. For corrections from this threshold on, run the command again with
<code id="command">--threshold {start:.2f}</code>.</p>
</form>
<ol>
{pictures}
</ol>
<script>{SCRIPT}</script></body></html>
"""


def _picture(of: Suspect) -> str:
    given, suggested, name = (html.escape(text) for text in (of.given, of.suggested, of.name))
    picture = "<p>(cannot be read)</p>"
    if of.image is not None:
        picture = f'<img alt="{name}, labelled {given}" src="data:image/png;base64,{_thumbnail(of.image)}">'
    return (
        f'<li data-suspect="{of.suspect:.4f}">{picture}<br>'
        f'<span class="given">given <bdi>{given}</bdi></span><br>'
        f'<span class="suggested">suggested <bdi>{suggested}</bdi></span> ({of.probability:.2f})<br>'
        f"no. {of.rank}, suspect {of.suspect:.2f}<br>"
        f'<span class="name"><bdi>{name}</bdi></span></li>'
    )


def _thumbnail(image: Image.Image) -> str:
    """A PNG in base64, no side longer than THUMBNAIL; smaller images stay as they are."""
    small = image.copy()
    small.thumbnail((THUMBNAIL, THUMBNAIL))
    buffer = io.BytesIO()
    small.save(buffer, format="PNG")
    return base64.b64encode(buffer.getvalue()).decode()
