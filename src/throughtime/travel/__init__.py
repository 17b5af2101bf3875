"""Time travel: a stream through a recurrent network that can go back, be changed, branch, and be compared with another."""

from throughtime.travel.difference import Difference
from throughtime.travel.engine import Engine, Moment
from throughtime.travel.session import Session

__all__ = ["Difference", "Engine", "Moment", "Session"]
