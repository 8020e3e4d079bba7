"""The actors of the invoicing team."""

from datetime import timedelta
from typing import Annotated

from pydantic import Field
from slugify import slugify

import leveret


@leveret.actor("invoice.file", queue="default", time_limit=timedelta(seconds=30))
def file_name(
    *,
    customer: Annotated[str, Field(min_length=1, max_length=200)],
    number: Annotated[int, Field(ge=1)],
) -> dict[str, str]:
    """Return the name of the file that an invoice is kept in."""
    return {"file": f"{slugify(customer)}-{number:06}.pdf"}
