"""Notebooks that run in a second, because they import nothing of the study."""

import base64

import nbformat

PARAMETERS = 'PROFILE: str = "quick"\nRADIUS: float = 0.5\nCOUNT: int = 3\nHARD: bool = False'
PIXEL = base64.b64decode(
    "iVBORw0KGgoAAAANSUhEUgAAAAEAAAABCAYAAAAfFcSJAAAADUlEQVR42mNkYPhfDwAChwGA60e6kgAAAABJRU5ErkJggg=="
)
SAVE = f"""
import os
from pathlib import Path

def save(name, png={PIXEL!r}, csv="epoch,loss\\n1,0.5\\n"):
    for kind, content in ((".png", png), (".csv", csv.encode())):
        path = Path(os.environ["SLN_FIGURES"], PROFILE, name + kind)
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(content)
"""
SLIDER = """
import ipywidgets

def draw(epoch):
    print("epoch", 10 // epoch)

slider = ipywidgets.IntSlider(START, 0, 10)
ipywidgets.VBox([slider, ipywidgets.interactive_output(draw, {"epoch": slider})])
"""


def write(folder, name, *cells, artefacts=(), parameters=PARAMETERS):
    """A notebook of those code cells; a cell (source, tag) has that tag."""
    pairs = [(parameters, "parameters"), *((cell, None) if isinstance(cell, str) else cell for cell in cells)]
    cells = [
        nbformat.v4.new_code_cell(source, metadata={"tags": [tag] if tag else []}) for source, tag in pairs
    ]
    kernel = {"name": "python3", "display_name": "Python 3", "language": "python"}
    metadata = {"kernelspec": kernel, "sln": {"artefacts": list(artefacts)}}
    folder.mkdir(parents=True, exist_ok=True)
    nbformat.write(nbformat.v4.new_notebook(cells=cells, metadata=metadata), folder / f"{name}.ipynb")
    return folder / f"{name}.ipynb"
