"""What people said of contents: the reviews of an output, by content."""

from __future__ import annotations
