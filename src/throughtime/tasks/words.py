"""What a word is, as patterns: each rule once, by its name. A trained model keeps to the rule it was trained with."""

from __future__ import annotations

_LETTERS = r"[^\W_]+"  # a run of letters and digits of any script
_INNER = "['’]"  # what may stand within a word, as in it's

# words, with an apostrophe within them, and signs one by one: what a classifier counts
WORDS_AND_SIGNS = rf"\w+(?:{_INNER}\w+)*|[^\w\s]"
# the same, a hyphen within a word too: what a tagger tags
HYPHENATED = r"\w+(?:['’-]\w+)*|[^\w\s]"
# the same, signs that stand together as one: what is counted and replaced in a text
SIGNS_TOGETHER = HYPHENATED + "+"
# a word with the space before it, a run of other signs likewise, or white space alone: set end to end they are the text again
PIECES = rf" ?{_LETTERS}(?:{_INNER}{_LETTERS})*| ?[^\w\s]+| ?_+|\n|[^\S\n]"
# what stands between spaces, of a text whose words and signs already stand apart
SPACED = r"[^ \n]+"
# the same, and the end of a line
SPACED_AND_ENDS = SPACED + r"|\n"
