"""The actors of a shop, which fail in the ways that the runbooks are about.

What is wrong with the shop is in its environment, so that a repair is another environment: a pool
of another release, or a mail server that is there again.
"""

from __future__ import annotations

import os
import signal
import time
from datetime import timedelta
from pathlib import Path

import httpx

import leveret

#: Where the mail server answers.
MAIL_URL = "SHOP_MAIL_URL"
#: The release of the shop. That of 7.2 takes each order for one in another currency.
RELEASE = "SHOP_RELEASE"
#: The file for which the long report waits.
GATE = "SHOP_GATE"


class MailServerError(Exception):
    """The mail server did not take a mail."""


def _send(what: str, number: int) -> None:
    try:
        with httpx.Client(timeout=5, trust_env=False, verify=False) as client:  # no TLS here
            client.post(os.environ[MAIL_URL], json={what: number}).raise_for_status()
    except httpx.HTTPError as error:
        raise MailServerError(f"the mail server does not take {what} {number}: {error}") from error


@leveret.actor(
    "invoice.send",
    max_retries=100,
    backoff=leveret.Backoff(base=timedelta(seconds=3), cap=timedelta(seconds=3), jitter=False),
)
def send_invoice(number: int) -> None:
    """Send an invoice by mail; there is time for that."""
    _send("invoice", number)


@leveret.actor("code.send", max_retries=0)
def send_code(number: int) -> None:
    """Send a code to log in with, at once or never."""
    _send("code", number)


@leveret.actor("order.price", max_retries=0)
def price(order: int, currency: str | None = None) -> float:
    """Say what an order costs."""
    rates = {"EUR": 1.0, "SEK": 0.087}
    if os.environ.get(RELEASE) == "7.2":
        return rates[currency]  # type: ignore[index]  # this is the bug
    if currency not in (None, *rates):
        raise leveret.Dead(f"order {order} is in {currency!r}, which is no currency")
    return rates[currency or "EUR"]


@leveret.actor("report.build", queue="bulk")
def build_report(month: int) -> int:
    """Build a report, which takes a moment; that of month 0 takes until it is let go."""
    if month == 0:
        while not Path(os.environ[GATE]).exists():
            time.sleep(0.02)
    time.sleep(0.1)
    return month


@leveret.actor("picture.shrink", queue="bulk")
def shrink(picture: str) -> str:
    """Make a picture smaller; one is too large for any worker's memory."""
    if picture == "poster.tiff":
        os.kill(os.getpid(), signal.SIGKILL)  # as the kernel does to who takes too much
    return picture


ACTORS = {
    "invoice.send": "default",
    "code.send": "default",
    "order.price": "default",
    "report.build": "bulk",
    "picture.shrink": "bulk",
}
