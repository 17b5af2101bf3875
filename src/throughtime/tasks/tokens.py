"""Text as numbers and back: characters, bytes, words or byte-pair pieces.

Entry 0 is what the vocabulary does not know, entry 1 the start of a document; neither is ever written.
"""

from __future__ import annotations

import codecs
import json
import re
import warnings
from collections import Counter
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

from throughtime.errors import UserError
from throughtime.runs import write_text
from throughtime.tasks.words import PIECES, SPACED_AND_ENDS

if TYPE_CHECKING:
    import numpy as np

UNKNOWN, START = 0, 1
_SPECIAL = ["<unk>", "<s>"]
FILE = "vocabulary.json"


class Tokens:
    """A vocabulary and the rule that cuts a text into its entries.

    kind: "characters", "bytes", "words" or "bpe". spaced: words are what stands between spaces (a text already
    tokenised); otherwise the entries set end to end are the text again.
    """

    def __init__(self, kind: str, entries: list[str], *, spaced: bool = False, merges: Any = None) -> None:
        import numpy as np

        self.kind, self.entries, self.spaced, self.merges = kind, entries, spaced, merges
        # a text that marks its unknown words means ours; one that holds <s> does not mean the start of a document
        self.index = {entry: i for i, entry in enumerate(entries) if i != START}
        if kind == "characters":
            points = np.array([ord(c) for c in entries[2:]], dtype=np.uint32)
            self._order = np.argsort(points)
            self._points = points[self._order]
        elif kind == "bpe":
            self._bpe = _bpe({entry: i for i, entry in enumerate(entries)}, merges)

    def __len__(self) -> int:
        return len(self.entries)

    @property
    def dtype(self) -> type[np.unsignedinteger[Any]]:
        """The smallest integers that hold every entry."""
        import numpy as np

        return np.uint8 if len(self) <= 256 else np.uint16 if len(self) <= 65536 else np.uint32

    def encode(self, text: str) -> np.ndarray[Any, Any]:
        """The entries of a text, [n] of `dtype`; what the vocabulary does not know is 0."""
        import numpy as np

        if self.kind == "bytes":
            return np.frombuffer(text.encode("utf-8", "surrogateescape"), np.uint8).astype(self.dtype) + 2
        if self.kind == "characters":
            points = np.frombuffer(text.encode("utf-32-le", "surrogatepass"), np.uint32)
            place = np.searchsorted(self._points, points).clip(max=max(len(self._points) - 1, 0))
            known = self._points[place] == points
            return np.where(known, self._order[place] + 2, UNKNOWN).astype(self.dtype)
        if self.kind == "words":
            get = self.index.get
            pattern = SPACED_AND_ENDS if self.spaced else PIECES
            return np.fromiter((get(word, UNKNOWN) for word in re.findall(pattern, text)), self.dtype)
        return np.asarray(self._bpe.encode(text).ids, dtype=self.dtype)

    def beginning(self, text: str, count: int) -> np.ndarray[Any, Any]:
        """The entries of a text; of one that has more than `count` perhaps not all, but more than these."""
        size = 16 * count
        while size < len(text):
            cut = (
                size
                if self.kind in ("characters", "bytes")
                else max(text.rfind(" ", 0, size), text.rfind("\n", 0, size))
            )
            if cut > 0 and len(ids := self.encode(text[:cut])) > count:  # no entry goes on after white space
                return ids
            size *= 4
        return self.encode(text)

    def named(self, text: str, ids: Iterable[int]) -> list[str]:
        """What each entry of a text stands for; what the vocabulary does not know as it is written, where that can be told."""
        written = list(text) if self.kind == "characters" else []
        if self.kind == "words":
            written = re.findall(SPACED_AND_ENDS if self.spaced else PIECES, text)
        return [
            written[k].strip() or written[k] if i == UNKNOWN and k < len(written) else self.entries[i]
            for k, i in enumerate(map(int, ids))
        ]

    def unknown_in(self, text: str) -> list[str]:
        """What of a text the vocabulary does not know, each once, in order."""
        if self.kind == "bytes":
            return []
        if self.kind == "words":
            pieces: Iterable[str] = re.findall(SPACED_AND_ENDS if self.spaced else PIECES, text)
        else:
            pieces = text
        return [piece.strip() or piece for piece in dict.fromkeys(pieces) if piece not in self.index]

    def decoder(self) -> Callable[[int], str]:
        """A function that takes entries one by one and gives the text each adds, for writing as it comes."""
        if self.kind == "bytes":
            decode = codecs.getincrementaldecoder("utf-8")("replace").decode
            return lambda token: decode(bytes([token - 2])) if token >= 2 else ""
        if not self.spaced:
            return lambda token: self.entries[token] if token >= 2 else ""
        at_start = True

        def spaced(token: int) -> str:
            nonlocal at_start
            entry = self.entries[token] if token != START else ""
            text = entry if at_start or entry == "\n" or not entry else " " + entry
            at_start = entry == "\n" or (at_start and not entry)
            return text

        return spaced

    def decode(self, tokens: Iterable[int]) -> str:
        """The text of some entries."""
        write = self.decoder()
        return "".join(write(int(token)) for token in tokens)

    def save(self, folder: Path) -> None:
        """Write `vocabulary.json`."""
        write_text(folder / FILE, json.dumps(self.values(), ensure_ascii=False, indent=0))

    def values(self) -> dict[str, Any]:
        """As JSON holds it."""
        return {"kind": self.kind, "spaced": self.spaced, "entries": self.entries, "merges": self.merges}

    def exported(self, name: str) -> dict[str, str]:
        """What an export needs of it, text by the name of its file: NAME.json; of byte-pair pieces also NAME.tokenizer.json, which
        the package tokenizers reads."""
        pattern = (SPACED_AND_ENDS if self.spaced else PIECES) if self.kind == "words" else None
        about = {"kind": self.kind, "spaced": self.spaced, "pattern": pattern, "entries": self.entries}
        bpe = {f"{name}.tokenizer.json": self._bpe.to_str()} if self.kind == "bpe" else {}
        return {f"{name}.json": json.dumps(about, ensure_ascii=False), **bpe}

    @classmethod
    def of(cls, values: Any) -> Tokens:
        """A vocabulary as JSON holds it."""
        return cls(values["kind"], values["entries"], spaced=values["spaced"], merges=values["merges"])

    @classmethod
    def load(cls, folder: Path, values: Any) -> Tokens:
        """The vocabulary that `save` wrote. Raises: UserError where it is damaged."""
        try:
            return cls.of(values)
        except Exception as error:  # of merges that do not fit, tokenizers raises nothing narrower
            raise UserError(f"{folder / FILE}: the run is damaged: no vocabulary in it ({error!r})") from error


def learn(
    kind: str, blocks: Callable[[], Iterator[str]], size: int, spaced: bool | None = None, *, asked: bool = True
) -> Tokens:
    """A vocabulary of at most `size` entries from a text given in blocks.

    Args: kind: as in `Tokens`. blocks: gives the text from its beginning, in pieces; may be called more than once.
        spaced: whether words are what stands between spaces; None: as the text looks. asked: whether the user asked for so many;
        if not, what they leave out is said.
    Returns: characters sorted by code point; words by frequency; byte-pair pieces in the order they were merged.
    """
    if kind == "bytes":
        return Tokens("bytes", _SPECIAL + [f"<{b:02x}>" for b in range(256)])
    if kind == "characters":
        seen: Counter[str] = Counter()
        for block in blocks():
            seen.update(block)
        kept = [c for c, _ in seen.most_common(size - 2)]
        if not asked:
            _say_left_out("characters", seen, kept)
        return Tokens("characters", _SPECIAL + sorted(kept))
    if kind == "words":
        spaced = looks_tokenised(next(blocks(), "")) if spaced is None else spaced
        pattern = SPACED_AND_ENDS if spaced else PIECES
        counts: Counter[str] = Counter()
        for block in blocks():
            counts.update(re.findall(pattern, block))
        for special in _SPECIAL:
            counts.pop(special, None)
        kept = [word for word, _ in counts.most_common(size - 2)]
        if not asked:
            _say_left_out("words", counts, kept)
        return Tokens("words", _SPECIAL + kept, spaced=spaced)
    tokens = _learn_bpe(blocks, size)
    if not asked:
        seen = Counter()
        for block in blocks():
            seen.update(block)
        _say_left_out("characters", seen, [c for c in seen if c in tokens.index])
    return tokens


def _say_left_out(what: str, counts: Counter[str], kept: list[str]) -> None:
    """Warn of what a vocabulary has no room for."""
    if len(kept) < len(counts):
        share = 1 - sum(counts[entry] for entry in kept) / counts.total()
        warnings.warn(
            f"of {len(counts):,} different {what} the vocabulary has room for {len(kept):,}; the others, {share:.2%} of the "
            f"text, are read as unknown (model.vocabulary)",
            stacklevel=3,
        )


def looks_tokenised(text: str) -> bool:
    """Whether the words and signs of a text already stand apart, as in WikiText: nearly every comma after a space."""
    spaced, all_signs = len(re.findall(r" [,.](?=\s)", text)), len(re.findall(r"[,.](?=\s)", text))
    return all_signs >= 20 and spaced > 0.9 * all_signs


def _bpe(index: dict[str, int], merges: Any) -> Any:
    from tokenizers import Regex, Tokenizer, models, pre_tokenizers

    model = models.BPE(vocab=index, merges=[tuple(pair) for pair in merges], unk_token=_SPECIAL[UNKNOWN])
    tokenizer = Tokenizer(model)
    tokenizer.pre_tokenizer = pre_tokenizers.Split(Regex(PIECES), "isolated")
    return tokenizer


def _learn_bpe(blocks: Callable[[], Iterator[str]], size: int) -> Tokens:
    """Byte-pair pieces (Sennrich et al. 2016) over characters. The rarest of very many kinds of characters stay unknown."""
    from tokenizers import Regex, Tokenizer, models, pre_tokenizers, trainers

    tokenizer = Tokenizer(models.BPE(unk_token=_SPECIAL[UNKNOWN]))
    tokenizer.pre_tokenizer = pre_tokenizers.Split(Regex(PIECES), "isolated")
    trainer = trainers.BpeTrainer(
        vocab_size=size, special_tokens=_SPECIAL, limit_alphabet=max(size // 2, 1), show_progress=False
    )
    tokenizer.train_from_iterator(blocks(), trainer)
    model = json.loads(tokenizer.to_str())["model"]
    entries = [entry for entry, _ in sorted(model["vocab"].items(), key=lambda pair: pair[1])]
    return Tokens("bpe", entries, merges=model["merges"])
