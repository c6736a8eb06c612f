"""The states of a watch, and what leads from one to another, as one table.

docs/states.md is generated from it.
"""

import enum


class WatchState(enum.StrEnum):
    """The state of a watch."""

    DOWN = "down"
    PROBING = "probing"
    CANARY = "canary"
    RAMP = "ramp"
    CRUISE = "cruise"
    WAITING = "waiting"
    DONE = "done"
    ARMED = "armed"


class WatchEvent(enum.StrEnum):
    """What can happen to a watch."""

    UP = "a hook says that the primary is up"
    DOWN = "a hook says that the primary is down"
    MAIL = "a source has new mail"
    GOOD = "a check succeeded, and more are needed"
    READY = "a check succeeded, and no more are needed"
    BLOCKED = "no more checks are needed, but it is paused or outside its hours"
    BAD = "a check failed"
    FIRST = "the first message was delivered"
    FULL = "all connections may be used"
    BARRED = "the route's circuit breaker is paused: the primary needs a pause"
    FLOWS = "the route's circuit breaker is closed: mail flows"
    RELAPSED = "the primary failed again after that pause"
    RESTART = "the drain starts again, with another configuration"
    HELD = "an operator pauses it, or its hours end"
    FREED = "it is not paused any more, and its hours have started"
    REFUSED = "the drain ended: the primary refuses us"
    FAILED = "the drain ended: it could not continue"
    LEFT = "the drain ended: some mail is due later"
    FINISHED = "the drain ended: nothing is left that a drain can send"
    TIME = "the time for its next step has come"
    REST = "the end of the drain is recorded"


class WatchWait(enum.StrEnum):
    """What a watch in ``waiting`` waits for."""

    NOTHING = ""
    BREAKER = "breaker"  #: the drain continues, and probes by itself
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
    (_S.WAITING, _E.RELAPSED): _S.PROBING,
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

#: Events that only some kinds of waiting react to.
EVENT_WAITS: dict[WatchEvent, tuple[WatchWait, ...]] = {
    _E.UP: (WatchWait.TIME,),
    _E.MAIL: (WatchWait.TIME,),
    _E.FLOWS: (WatchWait.BREAKER,),
    _E.RELAPSED: (WatchWait.BREAKER,),
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
#: After these the primary must prove itself again.
DISTRUSTS = frozenset((_E.DOWN, _E.REFUSED))
