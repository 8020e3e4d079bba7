"""The pages under docs/, as tests read them."""

from __future__ import annotations

import re
import textwrap
from pathlib import Path

ROOT = Path(__file__).parents[2]


def blocks(page: str) -> dict[str, str]:
    """Return a page's named code blocks, by name: ` ```python publish.py ` is `publish.py`.

    Those within a list lose its indentation.
    """
    text = (ROOT / page).read_text()
    fence = re.compile(r"^( *)```\w+ (\S+)\n(.*?)^\1```$", re.MULTILINE | re.DOTALL)
    found = [(name, textwrap.dedent(block)) for _, name, block in fence.findall(text)]
    names = [name for name, _ in found]
    repeated = {name for name in names if names.count(name) > 1}
    assert not repeated, f"{page} has more than one block {repeated}"
    return dict(found)
