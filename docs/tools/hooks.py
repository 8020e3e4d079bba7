"""What MkDocs does beside the usual for the site of these pages (`make docs`).

The pages are Markdown that reads well on a forge. Here the site's navigation is made from what the
index page of each section lists, code blocks get their names as titles, pictures are put into the
page so that they take its colours, and the theme loses the addresses of other hosts: the site loads
nothing from elsewhere.
"""

from __future__ import annotations

import logging
import posixpath
import re
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from mkdocs.config.defaults import MkDocsConfig
    from mkdocs.structure.files import Files
    from mkdocs.structure.pages import Page

DOCS = Path(__file__).parents[1]
#: The sections of the site: a page at the top, or a folder with an index page.
SECTIONS = {
    "Quickstart": "quickstart.md",
    "How-to": "how-to",
    "Explanation": "explanation",
    "Reference": "reference",
    "Runbooks": "runbooks",
}
_LOG = logging.getLogger("mkdocs.hooks.leveret")
_LINK = re.compile(r"^## (?P<group>.+)$|\[[^\]]+\]\((?P<page>[\w./-]+\.md)\)", re.MULTILINE)
_FENCE = re.compile(r"^(?P<indent> *)```(?P<language>\w+) (?P<name>[^\s={]+)$", re.MULTILINE)
_OUTSIDE = re.compile(r"\[(?P<text>[^\]]+)\]\((?P<path>(?:\.\./)+[\w./-]+)\)")
_ROW = re.compile(r"^\|.*\|$", re.MULTILINE)
_CODE = re.compile(r"`[^`]*`")
_PICTURE = re.compile(r"^!\[(?P<about>[^\]]*)\]\((?P<path>[\w./-]+\.svg)\)$", re.MULTILINE)
#: Addresses that the theme could load from, for features that are not used here.
_FOREIGN = re.compile(r"https://(?:unpkg\.com|api\.github\.com)/[^\"'`]*")


def listed(section: str) -> dict[str, list[str]]:
    """Return the pages that a section's index page links to within its folder, by heading."""
    groups: dict[str, list[str]] = {}
    group, seen = "", set()
    for found in _LINK.finditer((DOCS / section / "index.md").read_text()):
        group, page = found["group"] or group, found["page"]
        if page and "/" not in page and page not in seen:
            seen.add(page)
            groups.setdefault(group, []).append(page)
    return groups


def unlisted(section: str) -> list[str]:
    """Return the pages of a section's folder that its index page does not link to."""
    known = {"index.md"}.union(*listed(section).values())
    return sorted(path.name for path in (DOCS / section).glob("*.md") if path.name not in known)


def on_config(config: MkDocsConfig) -> None:
    """Make the navigation from the index pages; what they do not list comes last."""
    nav: list[object] = [{"Home": "index.md"}]
    for title, place in SECTIONS.items():
        if place.endswith(".md"):
            nav.append({title: place})
            continue
        parts: list[object] = [f"{place}/index.md"]
        for group, pages in listed(place).items():
            paths = [f"{place}/{page}" for page in pages if (DOCS / place / page).exists()]
            if group and paths:
                parts.append({group: paths})
            else:
                parts.extend(paths)
        parts.extend(f"{place}/{page}" for page in unlisted(place))
        nav.append({title: parts})
    config.nav = nav


def plain(markdown: str) -> str:
    """Write what forges and the site's Markdown read differently as the site reads it.

    A code block's name becomes its title, when it is a file's; the others are for tests. In a
    table, a bar within code is escaped for forges, and must not be here.
    """

    def titled(found: re.Match[str]) -> str:
        title = f' title="{found["name"]}"' if "." in found["name"] else ""
        return f"{found['indent']}```{found['language']}{title}"

    def unescaped(found: re.Match[str]) -> str:
        return _CODE.sub(lambda code: code[0].replace("\\|", "|"), found[0])

    return _ROW.sub(unescaped, _FENCE.sub(titled, markdown))


def on_page_markdown(markdown: str, page: Page, config: MkDocsConfig, files: Files) -> str:
    """Put pictures into the page, and take away links that lead out of the site."""
    del config
    folder = posixpath.dirname(page.file.src_uri)

    def drawn(found: re.Match[str]) -> str:
        path = posixpath.normpath(posixpath.join(folder, found["path"]))
        picture = files.get_file_from_path(path)
        if picture is None:
            _LOG.warning("%s shows %s, which does not exist", page.file.src_uri, found["path"])
            return found[0]
        return f'<figure class="drawn">\n{picture.content_string.strip()}\n</figure>'

    def inside(found: re.Match[str]) -> str:
        path = posixpath.normpath(posixpath.join(folder, found["path"]))
        return f"{found['text']} (`{path[3:]}`)" if path.startswith("../") else found[0]

    return _PICTURE.sub(drawn, _OUTSIDE.sub(inside, plain(markdown)))


def on_post_build(config: MkDocsConfig) -> None:
    """Take the addresses of other hosts out of the theme's programs, and what nobody asked for."""
    site = Path(config.site_dir)
    unused = ["**/*.map", "assets/javascripts/lunr/**/*.js", "sitemap.xml*"]
    for path in [path for pattern in unused for path in site.glob(pattern)]:
        path.unlink()
    for path in site.glob("assets/javascripts/**/*.js"):
        mended = _FOREIGN.sub("about:blank", path.read_text())
        path.write_text(re.sub(r"^//# sourceMappingURL=.*$", "", mended, flags=re.MULTILINE))
