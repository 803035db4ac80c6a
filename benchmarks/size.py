"""How large the package is: files, folders and lines, beside the limits that keep it readable in an hour.

python benchmarks/size.py
"""

from __future__ import annotations

from pathlib import Path

SLN = Path(__file__).resolve().parents[1] / "sln"
COMMAND_LINE = ("cli.py", "__main__.py")


def counts(package: Path = SLN) -> dict[str, tuple[int, int]]:
    """Each count of Python files and lines, and its limit."""
    lines = {path: len(path.read_text().splitlines()) for path in package.rglob("*.py")}
    root = {path: count for path, count in lines.items() if path.parent == package}
    folders = [path for path in package.iterdir() if path.is_dir() and path.name != "__pycache__"]
    return {
        "files in sln/": (len(root), 14),
        "folders in sln/": (len(folders), 9),
        "lines in sln/ without its folders and the command line": (
            sum(count for path, count in root.items() if path.name not in COMMAND_LINE),
            2300,
        ),
        "lines in all": (sum(lines.values()), 11_000),
        "lines of the longest file": (max(lines.values()), 400),
    }


if __name__ == "__main__":
    for what, (count, limit) in counts().items():
        print(f"{what:55} {count:6,} of {limit:6,}{'' if count <= limit else '  too many'}")
