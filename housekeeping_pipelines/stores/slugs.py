"""AnythingLLM's names for uploaded files, as PostgreSQL expressions.

The name on disk is that of the row, or its slug by the npm package `slugify`, without the characters that
`sanitizeFileName` of AnythingLLM's collector removes before or after. The table is that of slugify 1.6.4 to 1.6.9 (its
charmap.json), with the package's default options: a character in the table is replaced, one of `_KEPT` is kept, and any
other is removed; runs of white space, `-` and `–` become one `-` between words.
"""

from __future__ import annotations

import json
from typing import TYPE_CHECKING

import sqlalchemy as sa
from sqlalchemy.dialects.postgresql import JSONB, aggregate_order_by

if TYPE_CHECKING:
    from collections.abc import Sequence

# Replacement: the characters that it replaces.
_REPLACED = {
    "\"": "“”„",
    "'": "‘’",
    "*": "•",
    "+": "†",
    "0": "٠۰",
    "1": "١۱",
    "2": "٢۲",
    "3": "Ξξ٣۳",
    "4": "٤۴",
    "5": "٥۵",
    "6": "٦۶",
    "7": "٧۷",
    "8": "Θθ٨۸",
    "9": "٩۹",
    "A": "ÀÁÂÃÄÅĀĂĄΆΑАԱẠẢẤẦẨẪẬẮẰẲẴẶ",
    "B": "ΒБԲ",
    "C": "ÇĆČЋЦՑ",
    "D": "ÐĎΔДԴ",
    "E": "ÈÉÊËĒĖĚƏΈΕЕЭԵẸẺẼẾỀỂỄỆ",
    "F": "ΦФՖ",
    "G": "ĞĢΓГҐԳ",
    "H": "ΉΗХҺՀ",
    "I": "ÌÍÎÏĨĮİΊΙΪІИԻỈỊ",
    "J": "ЈЙՋ",
    "K": "ΚКԿ",
    "L": "ĻĽŁΛЛԼ",
    "M": "ΜМՄ",
    "N": "ÑŃŅŇΝНՆ",
    "O": "ÒÓÔÕÖØŌŐƠΌΟОỌỎỐỒỔỖỘỚỜỞỠỢ",
    "P": "ΠПՊ",
    "R": "ŔŘΡРՐ",
    "S": "ŚŞŠȘΣСՍṢ",
    "T": "ŢŤȚΤТՏ",
    "U": "ÙÚÛÜŨŮŰŲƯУЪҰỤỦỨỪỬỮỰ",
    "V": "ВՎ",
    "W": "ŴΏΩẀẂẄ",
    "X": "ΧԽ",
    "Y": "ÝŶŸΎΥΫЫՅỲỴỶỸ",
    "Z": "ŹŻŽΖЗԶ",
    "a": "ªàáâãäåāăąάαаءأاعىَაạảấầẩẫậắằẳẵặ",
    "b": "βбبბ",
    "c": "çćčцћ",
    "d": "ðďδдدდ∂",
    "e": "èéêëēėĘęěəέεеэئِეẹẻẽếềểễệ",
    "f": "ƒφфفფ",
    "g": "ğģγгґگგ",
    "h": "ήηхһةحهჰ",
    "i": "ìíîïĩĪīįıΐίιϊиіإიỉị",
    "j": "йјجჯ",
    "k": "Ķķκкكکკქ",
    "l": "ļľłλлلლ",
    "m": "μмمმ",
    "n": "ñńņňνнنნ",
    "o": "ºòóôõöøōőơ˚οόоოọỏốồổỗộớờởỡợ",
    "p": "πпپპ",
    "q": "قყ",
    "r": "ŕřρрرრ",
    "s": "śşšșςσсسصსṣ",
    "t": "ţťțτтتطთტ",
    "u": "ùúûüũŪūůűųưуъѝұؤُუụủứừửữự",
    "v": "вვ",
    "w": "ŵωώوẁẃẅ",
    "x": "χ",
    "y": "ýÿŷΰυϋύыيیỳỵỷỹ",
    "z": "źżžζзزظზ",
    "(c)": "©",
    "(r)": "®",
    "...": "…",
    "aa": "آ",
    "AE": "ÆӘ",
    "ae": "æә",
    "an": "ً",
    "and": "&",
    "austral": "₳",
    "baht": "฿",
    "bitcoin": "₿",
    "C'": "Ծ",
    "cedi": "₵",
    "cent": "¢",
    "CH": "Չ",
    "Ch": "Ч",
    "ch": "чچჩჭ",
    "cruzeiro": "₢",
    "currency": "¤",
    "D'": "Ձ",
    "delta": "∆",
    "dh": "ض",
    "DJ": "ĐЂ",
    "dj": "đђ",
    "dollar": "$",
    "dong": "₫",
    "drachma": "₯",
    "DZ": "Џ",
    "dz": "џძ",
    "E'": "Է",
    "ecu": "₠",
    "en": "ٍ",
    "euro": "€",
    "EV": "և",
    "french franc": "₣",
    "GH": "ҒՂ",
    "gh": "ғغღ",
    "greater": ">",
    "guarani": "₲",
    "hryvnia": "₴",
    "indian rupee": "₹",
    "infinity": "∞",
    "JH": "Ժ",
    "kazakhstani tenge": "₸",
    "KH": "Қ",
    "kh": "қخხ",
    "kip": "₭",
    "la": "ﻻ",
    "laa": "ﻵﻷ",
    "lai": "ﻹ",
    "less": "<",
    "lira": "₤",
    "LJ": "ǈЉ",
    "lj": "ǉљ",
    "love": "♥",
    "mill": "₥",
    "naira": "₦",
    "new shequel": "₪",
    "NG": "Ң",
    "ng": "ң",
    "NJ": "ǋЊ",
    "nj": "ǌњ",
    "O''": "Օ",
    "OE": "ŒӨ",
    "oe": "œө",
    "on": "ٌ",
    "or": "|",
    "P'": "Փ",
    "penny": "₰",
    "percent": "%",
    "peseta": "₧",
    "peso": "₱",
    "pound": "£",
    "PS": "Ψ",
    "ps": "ψ",
    "Q'": "Ք",
    "R'": "Ռ",
    "rial": "﷼",
    "rupee": "₨",
    "russian ruble": "₽",
    "SH": "Շ",
    "Sh": "ШЩ",
    "sh": "шщشშ",
    "sm": "℠",
    "SS": "ẞ",
    "ss": "ß",
    "sum": "∑",
    "T'": "Թ",
    "TH": "Þ",
    "th": "þثذ",
    "tm": "™",
    "ts": "ცწ",
    "tugrik": "₮",
    "turkish lira": "₺",
    "TW": "Ճ",
    "UE": "Ү",
    "ue": "ү",
    "won": "₩",
    "Y'": "Ը",
    "Ya": "Я",
    "ya": "я",
    "Ye": "Є",
    "ye": "є",
    "yen": "¥円",
    "Yi": "Ї",
    "yi": "ї",
    "Yo": "Ё",
    "yo": "ё",
    "Yu": "Ю",
    "yu": "ю",
    "yuan": "元",
    "Zh": "Ж",
    "zh": "жژჟ",
}  # fmt: skip

_BECOMES = {character: text for text, characters in _REPLACED.items() for character in characters}

_WORD = "A-Za-z0-9_"
_KEPT = "$*+~.()'\"!:@"
# What JavaScript's \\s matches (ECMA-262, WhiteSpace and LineTerminator), and the two dashes.
_SPACE = "\t\n\v\f\r \u00a0\u1680\u2000-\u200a\u2028\u2029\u202f\u205f\u3000\ufeff–-"
_SANITIZED = '<>:"/\\\\|?*“”„‟‘’‚‛'


def names_on_disk(name: sa.ColumnElement[str]) -> Sequence[sa.ColumnElement[str]]:
    """The possible names of the file of a row with this name; some may be null."""
    unsafe = name.op("~")(f"[{_SANITIZED}•]")
    return [
        name,
        sa.func.nullif(slug(name), name),
        sa.case((unsafe, _sanitized(slug(name)))),
        sa.case((unsafe, _sanitized(slug(_sanitized(name))))),
    ]


def slug(name: sa.ColumnElement[str]) -> sa.ColumnElement[str]:
    """The name's slug by slugify."""
    kept = sa.func.regexp_replace(_replaced(name), f"[^{_WORD}{_KEPT}{_SPACE}]+", "", "g")
    return sa.func.btrim(sa.func.regexp_replace(kept, f"[{_SPACE}]+", "-", "g"), "-")


def _replaced(name: sa.ColumnElement[str]) -> sa.ColumnElement[str]:
    composed = sa.func.normalize(name)
    letters = sa.func.unnest(sa.func.string_to_array(composed, sa.null())).table_valued(
        sa.column("letter", sa.Text), with_ordinality="place", name="letters"
    ).render_derived()  # fmt: skip
    # As text: the driver streams this statement itself, and cannot bind a dict.
    table = sa.cast(sa.literal(json.dumps(_BECOMES)), JSONB)
    text = sa.func.coalesce(table.op("->>", return_type=sa.Text())(letters.c.letter), letters.c.letter)
    joined = sa.select(sa.func.string_agg(text, aggregate_order_by(sa.literal(""), letters.c.place))).scalar_subquery()
    # Most names have nothing to replace.
    return sa.case((name.op("~")(f"[^{_WORD}*+~.()'\"!:@ -]"), joined), else_=name)


def _sanitized(name: sa.ColumnElement[str]) -> sa.ColumnElement[str]:
    return sa.func.regexp_replace(name, f"[{_SANITIZED}]", "", "g")
