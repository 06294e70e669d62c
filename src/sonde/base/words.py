"""Text as words: the same ones wherever a text meets a model that answers word by word.

Words follow the tokens of English Universal Dependencies (Silveira et al. 2014) and, but for hyphens, the Penn Treebank
(Marcus et al. 1993), as far as rules without a dictionary go. Where those leave a choice the finer cut is taken: a
name in "New York-based" or "l'Italie" is then a word of its own.
"""

from __future__ import annotations

import functools
import re
import unicodedata

# Written without spaces between words: ideographs and kana. Each is a word, as in BERT (Devlin et al. 2019).
_SPACELESS = "\u3040-\u30ff\u3400-\u4dbf\u4e00-\u9fff\uf900-\ufaff\U00020000-\U0003ffff"
# Invisible, and inside of words: the soft hyphen, the zero-width joiner and non-joiner.
_INVISIBLE = "\u00ad\u200c\u200d"
# Invisible, and between words: the zero-width space, the byte-order mark.
_SPACE = "\\s\u200b\ufeff"
_APOSTROPHE = "['\u2019]"
# English words that begin with an apostrophe or hold one, and French and Italian words that end in one.
_ENDING = f"(?i:{_APOSTROPHE}(?:s|m|d|re|ve|ll)\\b)"
_NEGATION = f"(?i:n{_APOSTROPHE}t\\b)"
_ELIDED = (
    "(?i:[cdjlmnstv]|qu|jusqu|lorsqu|puisqu|quoiqu|un|gl|dagl|degl|[ad]ll|[dns]ell|[dns]ull|dall|quell|quest|bell|sant)"
)


def split_words(text: str) -> tuple[list[str], list[int]]:
    """The words of a text, and the character that each starts at: `text[start : start + len(word)] == word`.

    A word is a run of letters, digits and underscores with the marks on them (accents, vowel signs), or one other
    character that is no space. Within a run stand the points and commas of numbers (3.14, 1,000) and apostrophes
    (O'Brien, o'clock), except before an English ending, which is a word: it 's, we 're, do n't; and after a French or
    Italian word that lost its vowel: l' Italie, dell' arte. Hyphens stand alone: New York - based. Chinese and
    Japanese characters are a word each. Thai, Lao, Khmer and Burmese, which write no spaces, come out as whole phrases.

        >>> split_words("Don't pay $3.50!")
        (['Do', "n't", 'pay', '$', '3.50', '!'], [0, 2, 6, 10, 11, 15])
    """
    found = list(_pattern("'" in text or "\u2019" in text).finditer(text))
    return [match.group() for match in found], [match.start() for match in found]


@functools.cache
def _pattern(apostrophes: bool) -> re.Pattern[str]:
    """Without the rules for apostrophes it is twice as quick, and most texts have none."""
    letters, marks = f"[^\\W{_SPACELESS}]", f"[{_marks()}{_INVISIBLE}]"
    single = f"[^{_SPACE}]{marks}*"
    joint = f"(?<=\\d)[.,](?=\\d)|{marks}+"
    if not apostrophes:
        return re.compile(f"{letters}+(?:(?:{joint}){letters}*)*|{single}")
    # Where another word begins with it, an apostrophe (or the n of n't) is no part of the run before.
    joint = f"(?<=[^\\W\\d_])(?!{_ENDING}){_APOSTROPHE}(?=[^\\W\\d_])|{joint}"
    return re.compile(
        f"(?<!\\w){_ELIDED}(?!{_ENDING}){_APOSTROPHE}(?=[^\\W\\d_])"
        f"|(?<=\\w)(?:{_NEGATION}|{_ENDING})"
        f"|(?:{letters}+(?={_NEGATION})|{letters}+)(?:(?:{joint}){letters}*)*"
        f"|{single}"
    )


@functools.cache
def _marks() -> str:
    """Every combining mark of Unicode, as ranges for a regular expression, which has no name for them."""
    ranges: list[list[int]] = []
    # Beyond the second plane there are only the variation selectors.
    for code in (*range(0x300, 0x20000), *range(0xE0100, 0xE01F0)):
        if unicodedata.category(chr(code))[0] == "M":
            if ranges and ranges[-1][1] == code - 1:
                ranges[-1][1] = code
            else:
                ranges.append([code, code])
    return "".join(f"{chr(first)}-{chr(last)}" for first, last in ranges)
