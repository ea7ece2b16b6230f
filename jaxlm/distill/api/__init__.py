"""The client of a teacher behind an API: the one place of this room that has a network, files and a clock.

No other module of the room imports it.
"""

from jaxlm.distill.api.cache import Cache
from jaxlm.distill.api.exchange import Send, Unreached, endpoint, secret_of, sender
from jaxlm.distill.api.pace import Limits
from jaxlm.distill.api.teacher import Stopped, Teacher, reasons
