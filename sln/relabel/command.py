"""`python -m sln relabel`: its options, and what it prints."""

from __future__ import annotations

import argparse
from pathlib import Path

from sln.utils.settings import option

SKIPS_SHOWN = 10  # of the images that are left out; skipped.csv has them all


def sigma_or_auto(text: str) -> float | None:
    """`--sigma`: a number, or None for auto."""
    return None if text == "auto" else float(text)


OPTIONS = [
    option("source", type=Path, metavar="FOLDER_OR_CSV", help="a sub-folder per class, or path,label"),
    option("--out", type=Path, metavar="DIR", help="where the files go (default NAME-relabelled, here)"),
    option("--decisions", type=Path, metavar="FILE", help="write corrected.csv from what the page has saved"),
    option("--images", dest="root", type=Path, metavar="FOLDER", help="where a CSV's paths start"),
    option("--path-column", metavar="NAME", help="a CSV's column of paths (default path)"),
    option("--label-column", metavar="NAME", help="a CSV's column of labels (default label)"),
    option("--encoding", metavar="NAME", help="of a CSV: cp1252, utf-16, ... (default utf-8)"),
    option(
        "--groups",
        metavar="COLUMN_OR_PATTERN",
        help="of images that stay in one fold; see sln/relabel/README.md",
    ),
    option("--keep-missing-words", action="store_true", help="labels such as nan, none and - are labels"),
    option("--merge-spellings", action="store_true", help="one label for Cat, cat and CAT, or 3 and 3.0"),
    option("--check", action="store_true", help="say what the data hold, and stop"),
    option("--threshold", type=float, metavar="P", help="replace labels at least that suspect (default 0.5)"),
    option("--sigma", type=sigma_or_auto, metavar="S", help="stochastic noise (auto: on noisy labels)"),
    option("--folds", type=int, metavar="K", help="parts, each judged by networks trained on the others (5)"),
    option("--repeats", type=int, metavar="N", help="divisions into folds, predictions averaged (default 1)"),
    option("--epochs", type=int, metavar="N", help="passes (default 100, fewer for more than 1,150 images)"),
    option("--size", type=int, metavar="PIXELS", help="side that images are resized to (32)"),
    option("--model", metavar="NAME", help="network: cnn, wrn-10-1 or wrn-28-2 (default cnn)"),
    option("--backbone", metavar="NAME", help="features of torchvision's or timm's network; none: pixels"),
    option("--weights", type=Path, metavar="FILE", help="the backbone's, .safetensors or torch's .pth"),
    option(
        "--export", action="append", metavar="FORMAT", help="also write label-studio or cleanlab (repeatable)"
    ),
    option("--seed", type=int, metavar="N", help="seed of folds and training (default 0)"),
]


def run(options: argparse.Namespace) -> None:
    """Judge every label by networks that were not trained on it (SLN-MO-LC, cross-fitted).

    Writes labels.csv, corrected.csv, skipped.csv and suspects.html to a folder of its own; your files are
    only read. With --decisions it trains nothing and writes corrected.csv from a person's decisions.
    """
    from sln.relabel.decisions import decide
    from sln.relabel.pipeline import relabel

    settings = {name: value for name, value in vars(options).items() if name != "command"}
    if "decisions" in settings:
        print("\n".join(decide(**settings)))
        return
    found = relabel(**settings)
    if found is None:
        return
    skipped = [f"  skipped {name!r}: {why}" for name, why in found.skipped[:SKIPS_SHOWN]]
    print("\n".join([*found.sentences, *skipped, *found.verdict]))
    print(f"Decide on the page {found.folder / 'suspects.html'}; --decisions applies what you save there.")
