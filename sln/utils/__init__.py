"""What every other part stands on: errors, files, random streams, progress, devices."""

VERSION = "0.1.0"
