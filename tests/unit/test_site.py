"""The documentation as a site: built without a warning, and loading nothing from elsewhere."""

from __future__ import annotations

import logging
import re
from html import unescape
from html.parser import HTMLParser
from pathlib import Path

import markdown
import pytest
from markdown_it import MarkdownIt

from docs.tools import hooks
from tests.support.pages import ROOT

SECTIONS = [place for place in hooks.SECTIONS.values() if not place.endswith(".md")]
PAGES = sorted(path.relative_to(hooks.DOCS).as_posix() for path in hooks.DOCS.rglob("*.md"))
#: What the namespaces of SVG and XML are called; nobody loads them.
_NAMESPACE = "http://www.w3.org/"
_LOADING = {"src", "srcset", "href", "data", "action", "poster", "style"}
_STRUCTURE = {"h1", "h2", "h3", "h4", "pre", "table", "tr", "ul", "ol", "li", "blockquote"}


class Elements(HTMLParser):
    """The elements of a page, with their attributes."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.found: list[tuple[str, dict[str, str]]] = []
        self.feed(text)

    def handle_starttag(self, tag, attrs):
        """Note an element."""
        self.found.append((tag, {name: value or "" for name, value in attrs}))


@pytest.fixture(scope="module")
def site(tmp_path_factory) -> Path:
    """Build the site as `make docs` does: strictly, so that a warning is an error."""
    from mkdocs.commands.build import build  # noqa: PLC0415 - configures logging when imported
    from mkdocs.config import load_config  # noqa: PLC0415

    folder = tmp_path_factory.mktemp("site")
    said: list[str] = []
    handler = logging.Handler(logging.WARNING)
    handler.emit = lambda record: said.append(record.getMessage())
    logging.getLogger("mkdocs").addHandler(handler)
    try:
        build(load_config(str(ROOT / "mkdocs.yml"), site_dir=str(folder)))
    except BaseException as error:
        raise AssertionError("\n".join(said)) from error
    finally:
        logging.getLogger("mkdocs").removeHandler(handler)
    assert said == []
    return folder


def test_every_page_is_in_the_site(site):
    """Each page of docs/ is there, with its title, and its pictures are part of it."""
    for page in PAGES:
        text = (site / page).with_suffix(".html").read_text()
        assert "<h1" in text, page
        assert text.count('<figure class="drawn">') == len(
            re.findall(r"^!\[.*\.svg\)$", (hooks.DOCS / page).read_text(), re.MULTILINE)
        )


def test_no_program_of_ours_is_in_the_site(site):
    """What generates the pages stays where it is."""
    assert [path for path in site.rglob("*") if path.suffix in {".py", ".pyc", ".map"}] == []


def test_the_site_loads_nothing_from_another_host(site):
    """No page, style or program names something on another host but as a link to click on."""
    loads = []
    for path in site.rglob("*.html"):
        loads += [
            f"{path.name}: {tag} {name}={value}"
            for tag, attributes in Elements(path.read_text()).found
            for name, value in attributes.items()
            if tag != "a" and name in _LOADING and re.search(r"(?:https?:)?//", value)
        ]
        inline = "".join(re.findall(r"<style.*?</style>", path.read_text(), re.DOTALL))
        loads += re.findall(r"(?:url\(|@import)\s*[\"']?(?:https?:)?//[^)\"']*", inline)
    for path in site.rglob("*.css"):
        loads += re.findall(r"(?:url\(|@import)\s*[\"']?(?:https?:)?//[^)\"']*", path.read_text())
    for path in site.rglob("*.js"):
        named = re.findall(r"[\"'`]((?:https?:|wss?:)?//[\w.][^\"'`]*)", path.read_text())
        loads += [f"{path.name}: {url}" for url in named if not url.startswith(_NAMESPACE)]
    assert loads == []


@pytest.mark.parametrize("section", SECTIONS)
def test_the_index_of_a_section_lists_all_of_its_pages(section):
    """The navigation is what the index page lists; a new page needs a line there."""
    missing = hooks.unlisted(section)
    assert not missing, f"add to docs/{section}/index.md a line for each: " + ", ".join(
        f"- [Its title]({page}): what it is for" for page in missing
    )


def structure(html: str) -> list[str]:
    """Return what a page is made of, in order, and its words of code."""
    text = re.sub(r"<pre.*?</pre>", "", html, flags=re.DOTALL)
    code = re.findall(r"<code>(.*?)</code>", text, re.DOTALL)
    words = [" ".join(unescape(part).split()) for part in code]
    return [tag for tag, _ in Elements(html).found if tag in _STRUCTURE] + words


@pytest.mark.parametrize("page", PAGES)
def test_a_page_reads_the_same_on_a_forge(page):
    """CommonMark with tables makes of a page what the site makes of it: lists, blocks, tables."""
    text = re.sub(r"<!--.*?-->", "", (hooks.DOCS / page).read_text(), flags=re.DOTALL)
    there = MarkdownIt("commonmark").enable("table").render(text)
    extensions = ["tables", "pymdownx.superfences", "attr_list"]
    here = markdown.markdown(hooks.plain(text), extensions=extensions)
    here = re.sub(r'<table class="highlighttable">.*?</table>', "", here, flags=re.DOTALL)
    assert structure(here) == structure(there)
