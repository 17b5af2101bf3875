"""What was seen of a network, as a notebook shows it."""

from __future__ import annotations

import html
from pathlib import Path
from typing import Any

from throughtime.errors import UserError
from throughtime.files import write_text
from throughtime.inspect.page import page
from throughtime.inspect.report import MOST, look_into
from throughtime.inspect.words import in_words
from throughtime.tasks.base import Trained

HEIGHT = 720  # pixels of a notebook that the page is scrolled in


class Inspection:
    """What a network remembers of inputs. A notebook shows it as the page of `throughtime inspect`, a terminal as a few words."""

    def __init__(
        self, model: Trained[Any], given: Any, *, output: int | None = None, most: int = MOST, **options: Any
    ) -> None:
        """Look into a trained model. The same arguments as of `look_into`: `options` are the task's, for reading a file.

        Args: given: a text or many, or a `Path`, whose first input is shown whole. output: the answer that is shown first, by its
            number. most: inputs that gradients and units are averaged over.
        Raises: UserError where there is nothing to look into, or no such output or option.
        """
        self.data = look_into(model, given, output=output, most=most, **options)
        """The numbers, as JSON can hold them; docs/inspect.md lists them."""

    def __repr__(self) -> str:
        return in_words(self.data)

    def _repr_html_(self) -> str:
        """The page in a frame of its own: its style and script know nothing of the notebook, nor the notebook of them."""
        inner = html.escape(page(self.data))
        return f'<iframe sandbox="allow-scripts" srcdoc="{inner}" style="width: 100%; height: {HEIGHT}px; border: 0"></iframe>'

    def save(self, path: str | Path, *, overwrite: bool = False) -> None:
        """Write the page, one file that opens from disk. Raises: UserError where it cannot be written, or is there already."""
        if Path(path).exists() and not overwrite:
            raise UserError(f"{path}: is there already; name another file, or replace it by overwrite=True")
        write_text(Path(path), page(self.data))
