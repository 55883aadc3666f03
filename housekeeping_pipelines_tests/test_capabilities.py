"""Capabilities hand themselves over: one that a package adds is everywhere, and no two tasks have one name."""

from __future__ import annotations
