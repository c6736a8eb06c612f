"""The states of a watch, and what leads from one to another, as one table.

docs/states.md is made from it.
"""

import enum


class WatchState(enum.StrEnum):
    """Where a watch stands."""

    DOWN = "down"
    PROBING = "probing"
    CANARY = "canary"
    RAMP = "ramp"
    CRUISE = "cruise"
    WAITING = "waiting"
    DONE = "done"
    ARMED = "armed"


class WatchEvent(enum.StrEnum):
    """What can happen to it."""

    UP = "a hook says that the primary is up"
    DOWN = "a hook says that the primary is down"
    MAIL = "new mail lies in a source"
    GOOD = "a check went well, and more have to"
    READY = "a check went well, as many as have to"
    BLOCKED = "the same, but paused, or not within its hours"
    BAD = "a check failed"
    FIRST = "the first message was delivered"
    FULL = "all connections may be used"
    BARRED = "the route's breaker is paused: the primary asks for a rest"
    FLOWS = "the route's breaker is closed: mail flows"
    SICK = "the primary failed again after that rest"
    RESTART = "the drain begins again, with another configuration"
    HELD = "somebody pauses it, or its hours end"
    FREED = "nobody pauses it any more, and its hours have begun"
    REFUSED = "the drain ended: the primary refuses us"
    FAILED = "the drain ended: it could not go on"
    LEFT = "the drain ended: something falls due later"
    FINISHED = "the drain ended: nothing is left that a drain works on"
    TIME = "its time has come"
    REST = "all that is told"


class WatchWait(enum.StrEnum):
    """What a watch waits for that is ``waiting``."""

    NOTHING = ""
    BREAKER = "breaker"  #: the drain goes on, and probes by itself
    HOLD = "hold"
    TIME = "time"


_S, _E = WatchState, WatchEvent
DRAINING = frozenset((_S.CANARY, _S.RAMP, _S.CRUISE))

MOVES: dict[tuple[WatchState, WatchEvent], WatchState] = {
    **{(s, _E.DOWN): _S.DOWN for s in WatchState if s is not _S.DOWN},
    **{(s, _E.UP): _S.PROBING for s in (_S.DOWN, _S.WAITING, _S.ARMED)},
    **{(s, _E.MAIL): _S.PROBING for s in (_S.WAITING, _S.ARMED)},
    **{(s, _E.GOOD): _S.PROBING for s in (_S.DOWN, _S.PROBING)},
    **{(s, _E.READY): _S.CANARY for s in (_S.DOWN, _S.PROBING)},
    **{(s, _E.BLOCKED): _S.WAITING for s in (_S.DOWN, _S.PROBING)},
    (_S.PROBING, _E.BAD): _S.PROBING,
    (_S.DOWN, _E.BAD): _S.DOWN,
    **{(s, _E.FIRST): _S.RAMP for s in (_S.CANARY,)},
    (_S.RAMP, _E.FULL): _S.CRUISE,
    **{
        (s, event): to
        for s in (_S.CANARY, _S.RAMP, _S.CRUISE)
        for event, to in ((_E.BARRED, _S.WAITING), (_E.RESTART, _S.CANARY))
    },
    (_S.WAITING, _E.RESTART): _S.CANARY,
    (_S.WAITING, _E.FLOWS): _S.RAMP,
    (_S.WAITING, _E.SICK): _S.PROBING,
    (_S.WAITING, _E.FREED): _S.PROBING,
    (_S.WAITING, _E.TIME): _S.PROBING,
    **{
        (s, event): to
        for s in (_S.CANARY, _S.RAMP, _S.CRUISE, _S.WAITING)
        for event, to in (
            (_E.HELD, _S.WAITING),
            (_E.REFUSED, _S.WAITING),
            (_E.FAILED, _S.WAITING),
            (_E.LEFT, _S.WAITING),
            (_E.FINISHED, _S.DONE),
        )
    },
    (_S.DONE, _E.REST): _S.ARMED,
}

#: Events that only some kinds of waiting heed.
HEEDED: dict[WatchEvent, tuple[WatchWait, ...]] = {
    _E.UP: (WatchWait.TIME,),
    _E.MAIL: (WatchWait.TIME,),
    _E.FLOWS: (WatchWait.BREAKER,),
    _E.SICK: (WatchWait.BREAKER,),
    _E.RESTART: (WatchWait.BREAKER,),
    _E.HELD: (WatchWait.BREAKER, WatchWait.HOLD),
    _E.REFUSED: (WatchWait.BREAKER,),
    _E.FAILED: (WatchWait.BREAKER,),
    _E.LEFT: (WatchWait.BREAKER,),
    _E.FINISHED: (WatchWait.BREAKER,),
    _E.FREED: (WatchWait.HOLD,),
    _E.TIME: (WatchWait.TIME,),
}
WAITS = {
    _E.BARRED: WatchWait.BREAKER,
    _E.HELD: WatchWait.HOLD,
    _E.BLOCKED: WatchWait.HOLD,
}
#: After these it has to prove itself again.
DISTRUSTS = frozenset((_E.DOWN, _E.REFUSED))
