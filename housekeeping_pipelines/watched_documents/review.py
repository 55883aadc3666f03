"""Decides whether a new text may replace the old one, or must be reviewed first.

A broken source rarely reports an error: it answers 200 with a login page, a cookie banner, a page that asks to come
back later, or half of its text.
"""

from __future__ import annotations

import re

# A share of the old length; a shorter text is more often a fault than an edit.
SHRUNK_TO = 0.3

# Such a page is short.
MAX_NOTICE_CHARACTERS = 2000

_NOTICES = {
    "a login page": (
        r"(please )?(log|sign) ?in to (continue|view|access|your account|proceed)|forgot (your )?password"
        r"|you (must|need to) (be logged|log|sign) in|single sign-on|session (has )?(expired|timed out)"
        r"|enter your (user ?name|e-?mail( address)?) and password|bitte (melden sie sich an|einloggen)"
        r"|(user ?name|e-?mail)\W+password\W+(log|sign) ?in"
    ),
    "a page about cookies": (
        r"(we|this (web)?site|our partners) uses? cookies|accept (all )?cookies|cookies? (consent|settings|preferences)"
        r"|enable (javascript|cookies)|(javascript|cookies) (is|are) (required|disabled)"
    ),
    "an error page": (
        r"\b(404|403|410|500|502|503|504)\b.{0,20}(not found|forbidden|gone|error|unavailable|bad gateway|time-?out)"
        r"|page (you requested |you are looking for )?(was |could |can)?(not|n't) (be )?(found|available)"
        r"|page not found"
        r"|internal server error|bad gateway|service (temporarily )?unavailable|gateway time-?out|access denied"
        r"|something went wrong|an (unexpected )?error (has )?occurred|under maintenance|too many requests"
        r"|checking your browser|verify (that )?you are (a )?human|are you a robot|unusual traffic"
        r"|this site can.t be reached|database connection"
    ),
}
_PATTERNS = {name: re.compile(pattern, re.IGNORECASE) for name, pattern in _NOTICES.items()}


def reject_reason(text: str, old: str | None) -> str | None:
    """Why the text must be reviewed; None if it may be written."""
    length, was = len(text.strip()), len(old.strip()) if old is not None else 0
    notice = looks_like(text)
    if notice is not None and (old is None or looks_like(old) != notice):
        return f"it looks like {notice}"
    if length < SHRUNK_TO * was:
        return f"it has {length:,} characters; the current text has {was:,}"
    return None


def looks_like(text: str) -> str | None:
    """Which kind of notice a short text is; None if it is not a notice."""
    plain = " ".join(text.split())
    if len(plain) > MAX_NOTICE_CHARACTERS:
        return None
    return next((name for name, pattern in _PATTERNS.items() if pattern.search(plain)), None)
