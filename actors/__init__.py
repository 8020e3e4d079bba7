"""The actors that come with Leveret, each for work that most services have.

Importing the package declares all of them. Modules named for a subject (`actors.email`,
`actors.webhook`, …) hold the actors; the others hold what these share. Another team's actors do
not belong here but in a package of their own, which ``LEVERET_ACTORS`` names.
"""

from actors.cleanup import cleanup
from actors.data import aggregate
from actors.email import send
from actors.image import resize
from actors.report import generate
from actors.webhook import deliver

__all__ = ["aggregate", "cleanup", "deliver", "generate", "resize", "send"]
