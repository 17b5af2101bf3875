"""What the tests of the panels of `play` share: a look for what axe-core finds serious."""

from __future__ import annotations

from pathlib import Path

import pytest

AXE = Path(__file__).parent.parent / "page/node_modules/axe-core/axe.min.js"
LOOKS = pytest.mark.parametrize(("width", "theme"), [(w, t) for w in (390, 1440) for t in ("light", "dark")])


def nothing_serious(page):
    """Fails where axe-core finds something serious, or the page scrolls sideways."""
    assert page.evaluate("document.documentElement.scrollWidth <= innerWidth"), "it scrolls sideways"
    if not AXE.is_file():
        pytest.skip("no page/node_modules/axe-core: make page")
    page.evaluate(AXE.read_text() + "; undefined")
    found = page.evaluate("axe.run()")["violations"]
    serious = [v for v in found if v["impact"] in ("serious", "critical")]
    assert [(v["id"], v["help"], [n["html"] for n in v["nodes"]][:3]) for v in serious] == []
