"""The trader's loop: each closed candle gets its call, in order, once; forming ones see the newest.

``turn`` does all that is due and says how long to wait; it neither sleeps nor blocks, so tests drive it with
a clock of their own.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Final

from chandlery.core.assignment import SeriesRef, TraderAssignment, TraderState
from chandlery.core.intervals import Interval, parse_interval
from chandlery.core.signals import Signal
from chandlery.workers.candles import Candles, with_forming
from chandlery.workers.strategy import Decision, Strategy
from chandlery.workers.trader.caller import Caller, Outcome
from chandlery.workers.trader.informative import PATIENCE_NS, InformativePending, InformativeSet
from chandlery.workers.trader.market import Forming, MarketView, SeriesView, Window
from chandlery.workers.trader.messages import Live, StateReport
from chandlery.workers.trader.recall import recall_from_ms, signalled_from_ms
from chandlery.workers.trader.rehearsal import rehearse, try_out
from chandlery.workers.trader.signal_writer import Clock, Occasion, Ring, SignalWriter, build_signals, decided_on
from chandlery.workers.trader.symbol_run import Commit, SymbolRun, begins_at, newest_ms
from chandlery.workers.trader.telling import Telling
from chandlery.workers.windows import NO_STAMPS

#: Longest wait: the heartbeat must move, and the supervisor's word be heard, twice a second.
IDLE_S: Final = 0.5
#: While a series is not there nothing rings for it; while the ring is full neither.
ATTACH_RETRY_S: Final = 0.05
BLOCKED_RETRY_S: Final = 0.02
#: Runs of one call in a row before the loop looks up: revisions come in bursts, and a feed that was killed
#: while it revised leaves a series that never holds again, until its successor's segment is followed.
MOST_RUNS: Final = 8
#: Closed candles of one symbol decided in a row before the others get their turn.
BATCH: Final = 64
_FOREVER_MS: Final = 1 << 62


class TraderLoop:
    """One Trader's decisions over a market.

    Args:
        spec: the assignment. make: builds a configured strategy instance. code: digest of code and parameters.
        report: told of every change of state, again while it returns False. orders: number of what it has been told with ``spec``.
    """

    def __init__(
        self,
        spec: TraderAssignment,
        make: Callable[[], Strategy],
        code: str,
        market: MarketView,
        ring: Ring,
        writer: SignalWriter,
        clock: Clock,
        report: Callable[[StateReport], bool],
        orders: int = 0,
    ) -> None:
        self._spec = spec
        self._code = code
        self._market = market
        self._ring = ring
        self._writer = writer
        self._clock = clock
        self._telling = Telling(market, ring, clock, code, report)
        self._interval: Interval = parse_interval(spec.interval)
        first = make()
        self._strategy_name = first.name
        self._memory = first.memory
        need = max(1, first.warmup, spec.warmup or 0)
        self._runs = [
            SymbolRun(symbol, self._interval, make, need, spec.cooldown_ms, looks_on=spec.trigger == "EveryUpdate")
            for symbol in dict.fromkeys(spec.symbols)
        ]
        # An interval that was another one before begins like a new Trader, also when it changes back.
        ring.keep_positions({run.series for run in self._runs})
        self._informative = InformativeSet(spec.informative)
        self._caller = Caller(ring, clock, self._informative)
        self._commit: Commit | None = None
        self._orders = orders
        # What every decision counts. A tick every few ms finds its caches cold: each Python frame on its way
        # costs about a microsecond then.
        self._now_ns = clock.now_ns
        self._heartbeat = ring.setter("heartbeat_ns")
        self._last_open_time = ring.setter("last_open_time_ms")
        self._add_calls = ring.adder("calls")
        self._add_decided_ns = ring.adder("decided_ns_sum")
        self._newest_ms = ring.get("last_open_time_ms") if any(ring.position(run.series) for run in self._runs) else -1
        self._was_ready = False
        self._missing: SeriesRef | None = None
        self._anew = False
        self._from_ms = self._until_ms = 0
        self._retired = False
        self._bound(spec.from_ms, spec.until_ms)

    # -- what the supervisor may change while the process runs

    def apply(self, live: Live) -> None:
        """Take over what needs no other process."""
        self._telling.anew()  # each order is answered, whether or not it changes anything to tell
        activated = live.mode == "active" and self._spec.mode != "active"
        self._orders = live.orders
        self._spec.generation = live.generation
        self._spec.mode = live.mode
        self._market.redirect(live.segment, live.bell)
        self._bound(live.from_ms, live.until_ms)
        if activated:
            for run in self._runs:
                run.begun = False
                run.doubt()
            # What closed while another decided is not ours to decide. Where nobody says with which candle we begin,
            # it is the one after the newest there is.
            self._anew = not live.from_ms

    def _bound(self, from_ms: int, until_ms: int | None) -> None:
        self._spec.from_ms, self._spec.until_ms = from_ms, until_ms
        # Behind it with every symbol, it is of no more use, and of harm where a market's times begin again.
        self._from_ms = 0 if self._ring.get("begun_from_ms") == from_ms else from_ms
        self._until_ms = _FOREVER_MS if until_ms is None else until_ms
        self._retired = False
        for run in self._runs:
            run.past = False

    # -- one turn

    def turn(self, woken_ns: int) -> float:
        """Do all that is due.

        Args:
            woken_ns: when the process woke for this turn.

        Returns:
            Seconds to wait at most before the next turn.
        """
        timeout_s = self._work(woken_ns)
        if self._until_ms != _FOREVER_MS:
            timeout_s = min(timeout_s, self._retire())
        self._heartbeat(self._now_ns())
        self._tell_state()
        return timeout_s

    def _work(self, woken_ns: int) -> float:
        if self._market.refresh():
            self._informative.detach()
            for run in self._runs:
                run.reattach()
        if (self._writer.blocked or self._commit is not None) and not self._flush():
            return BLOCKED_RETRY_S
        if not self._attach() and not self._was_ready:
            return ATTACH_RETRY_S
        if self._spec.mode != "active":
            try_out(self._caller, self._runs, self._memory)
            return IDLE_S
        timeout_s = IDLE_S if self._missing is None else ATTACH_RETRY_S
        for run in self._runs:
            if run.view is not None and run.begun:
                timeout_s = min(timeout_s, self._decide(run, run.view, woken_ns))
            if self._writer.blocked:
                return BLOCKED_RETRY_S
        return timeout_s

    def _retire(self) -> float:
        """Note whether all is decided and acknowledged; seconds to wait at most before that is asked again."""
        unsent = self._commit is not None or self._writer.blocked
        if self._spec.mode != "active" or unsent or not all(run.past for run in self._runs):
            self._retired = False
            return IDLE_S
        # Nothing rings when the broker has acknowledged.
        self._retired = self._ring.depth == 0
        return IDLE_S if self._retired else BLOCKED_RETRY_S

    def _flush(self) -> bool:
        if self._writer.blocked and not self._writer.flush():
            return False
        if self._commit is not None:
            self._complete(self._commit)
            self._commit = None
        return True

    def _attach(self) -> bool:
        """Find every series; True when all are there."""
        missing = self._informative.attach(self._market) if self._spec.informative else None
        for run in self._runs:
            if run.view is not None and not run.view.alive:
                run.reattach()
            if run.view is None:
                run.view = self._market.series(run.symbol, self._spec.interval)
                if run.view is not None:
                    run.check_room(run.view, self._strategy_name)
            if run.view is None:
                missing = SeriesRef(run.symbol, self._spec.interval)
            elif not run.begun and self._spec.mode == "active":
                self._begin(run, run.view)
        self._missing = missing
        self._was_ready = self._was_ready or missing is None
        return missing is None

    def _begin(self, run: SymbolRun, view: SeriesView) -> None:
        position = None if self._anew else self._ring.position(run.series)
        if begins_at(self._from_ms, view.session, position):
            if run.begin_at(view, self._from_ms):
                self._store(run)
        elif position is None:
            run.begin(view, self._recall_ms(view))
            self._store(run)
        elif not run.is_past(view.session, position):
            self._enter(run, view, view.session, position)
        # Of one that begins at its bound everybody knows where, unless an earlier one's newest candle stands there.
        if run.begun and (run.after_ms != self._from_ms - 1 or self._ring.get("last_open_time_ms")):
            self._note_done(self._interval.floor_ms(run.after_ms))

    def _enter(self, run: SymbolRun, view: SeriesView, session: int, position: tuple[int, int] | None) -> None:
        run.enter_session(session, position, self._recall_ms(view))
        if run.came_over:  # to where times may have gone back; the newest of others may be of before
            self._newest_ms = newest_ms(self._runs, self._ring.position)

    def _recall_ms(self, view: SeriesView) -> int:
        if self._anew:
            return -1
        wall_ms = (self._clock.now_ns() + self._clock.wall_offset_ns()) // 1_000_000
        return recall_from_ms(self._spec, self._interval, view.last_open_time_ms, wall_ms)

    def _note_done(self, open_time_ms: int) -> None:
        if open_time_ms > self._newest_ms:
            self._newest_ms = open_time_ms
            self._last_open_time(open_time_ms)

    def _store(self, run: SymbolRun) -> None:
        self._ring.set_position(run.series, run.session, run.after_ms)
        if self._from_ms and all(each.after_ms >= self._from_ms for each in self._runs):
            self._ring.set("begun_from_ms", self._from_ms)
            self._from_ms = 0

    # -- closed candles

    def _decide(self, run: SymbolRun, view: SeriesView, woken_ns: int) -> float:
        for _ in range(BATCH):
            session = view.session
            if session != run.session:
                position = self._ring.position(run.series)
                if run.is_past(session, position):
                    return IDLE_S
                self._enter(run, view, session, position)
            if not (run.anchored or run.came_over):
                run.recall_ms = self._recall_ms(view)  # the ttl's end moves on with the clock
            ordinal, lapped = run.next_due(view)
            if lapped:
                self._ring.add("lapped", lapped)
            if ordinal is None:
                if self._until_ms != _FOREVER_MS:
                    run.look_past(view, self._until_ms)
                if self._spec.trigger == "EveryUpdate":
                    self._decide_forming(run, view, woken_ns)
                if run.next_ordinal is not None:
                    view.prepare(run.next_ordinal + 1, run.need)  # now, not between the wake-up and the decision
                    run.lay_by()
                return IDLE_S
            try:
                going = self._decide_closed(run, view, ordinal, woken_ns)
            except InformativePending as pending:
                return self._be_patient(run, pending)
            if not going:
                return IDLE_S if run.past else BLOCKED_RETRY_S
        return 0.0

    def _be_patient(self, run: SymbolRun, pending: InformativePending) -> float:
        self._ring.set("busy_since_ns", 0)
        now_ns = self._clock.now_ns()
        if not run.pending_since_ns:
            run.pending_since_ns = now_ns
        left_ns = run.pending_since_ns + PATIENCE_NS - now_ns
        if left_ns > 0:
            return min(IDLE_S, left_ns / 1e9)
        run.pending_since_ns = 0
        self._informative.give_up(pending.ref)
        return 0.0

    def _decide_closed(self, run: SymbolRun, view: SeriesView, ordinal: int, woken_ns: int) -> bool:
        """Decide on one closed row; False when that needs another turn: no room in the ring, or no peace."""
        for _ in range(MOST_RUNS):
            window = view.window(ordinal + 1, run.need)
            if window.session != run.session or view.lapped(ordinal) or not view.alive:
                return view.alive  # next_due sees what happened and counts it; one in another file is looked up again
            if not len(window.open_time):
                return False
            open_time_ms = int(window.open_time[-1])
            if open_time_ms >= self._until_ms or self._not_due(run, view, window, ordinal, open_time_ms):
                if not view.valid(window):
                    continue
                return self._pass_over(run, ordinal, open_time_ms)
            if not (run.rehearsed or self._rehearse(run, view, ordinal)):
                continue
            outcome = self._caller.call(run, Candles(window), forming=False, wait=True)
            price = float(window.close[-1]) if outcome.decisions else 0.0
            if view.valid(window) and (not outcome.glances or outcome.holds()):
                break
            self._ring.add("reruns")
        else:
            return False
        decided_ns = self._now_ns()
        self._add_calls(1)
        self._add_decided_ns(max(0, decided_ns - woken_ns))
        if outcome.glances and outcome.missing:
            self._ring.add("informative_missing", outcome.missing)
        # Before a signal can leave: whoever reads it after this process was killed knows the candle as begun.
        self._note_done(open_time_ms)
        commit = Commit(run, outcome.strategy, ordinal, open_time_ms)
        owes_word = open_time_ms <= run.unsure_to_ms or open_time_ms in run.forming_told  # without a frame
        if (outcome.decisions or owes_word) and not self._emit_closed(
            commit, view, price, outcome, woken_ns, decided_ns
        ):
            return False
        self._complete(commit)
        return True

    def _emit_closed(
        self, commit: Commit, view: SeriesView, price: float, outcome: Outcome, woken_ns: int, decided_ns: int
    ) -> bool:
        """Put a decision's signals into the ring; False when they wait for room, and the commit with them."""
        open_time_ms = commit.open_time_ms
        stamps = view.stamps(commit.ordinal) or NO_STAMPS
        occasion = self._occasion(
            commit.run, view, open_time_ms, price, stamps, outcome, woken_ns, decided_ns, forming=False
        )
        signals = [
            signal
            for signal in self._signals(outcome.decisions, occasion)
            if self._admit(commit.run, signal.rule, open_time_ms)
        ]
        known = commit.run.forming_told.get(open_time_ms, ())
        word = decided_on(occasion, self._spec, self._code) if commit.run.owes_word(open_time_ms) else None
        if (signals or word) and not self._writer.offer(signals, known=known, then=word):
            self._ring.add("blocked")
            self._commit = commit
            return False
        return True

    def _not_due(self, run: SymbolRun, view: SeriesView, window: Window, ordinal: int, open_time_ms: int) -> bool:
        """Whether the row gets no call: another incarnation's, not warm yet, its history overwritten, or stale."""
        if open_time_ms < self._from_ms:
            return True
        if len(window.open_time) < run.need:
            if ordinal + 1 >= run.need:
                self._ring.add("lapped")
            return True
        age_ms = view.last_open_time_ms - open_time_ms
        if self._spec.signal_ttl_ms and age_ms > self._spec.signal_ttl_ms:
            self._ring.add("stale")
            return True
        return False

    def _pass_over(self, run: SymbolRun, ordinal: int, open_time_ms: int) -> bool:
        """Leave a row without a call; False where it and all that come later are the next incarnation's."""
        if open_time_ms >= self._until_ms:
            run.past = True
            return False
        run.advance(ordinal, open_time_ms)
        self._store(run)
        return True

    def _complete(self, commit: Commit) -> None:
        """All signals are in the ring: only now the state and the position count."""
        run = commit.run
        run.strategy = commit.strategy
        run.advance(commit.ordinal, commit.open_time_ms)
        self._store(run)

    def _rehearse(self, run: SymbolRun, view: SeriesView, ordinal: int) -> bool:
        from_ms = signalled_from_ms(
            self._spec, self._interval, view, after_ms=run.after_ms, recalled=run.recall_ms >= 0
        )
        length = ordinal if run.resumed and self._spec.cooldown_ms else self._memory
        return rehearse(self._caller, run, view, ordinal, length=length, signalled_from_ms=from_ms)

    # -- forming candles

    def _decide_forming(self, run: SymbolRun, view: SeriesView, woken_ns: int) -> None:
        for _ in range(MOST_RUNS):
            forming = view.forming()
            if forming is None or forming.sequence == run.forming_sequence or run.saw_elsewhere(forming):
                return
            closed = view.window(view.count, run.need)
            warm = len(closed.open_time) >= run.need
            if closed.session != run.session or not warm or forming.open_time_ms <= int(closed.open_time[-1]):
                return
            if not view.alive or not self._from_ms <= forming.open_time_ms < self._until_ms:
                return
            if not (run.rehearsed or self._rehearse(run, view, view.count)):
                continue
            candles = with_forming(closed, forming, run.need)
            outcome = self._caller.call(run, candles, forming=True, wait=False)
            if view.valid(closed) and outcome.holds():
                break
            self._ring.add("reruns")
        else:
            return  # the next update of the candle brings the next chance
        run.forming_sequence, run.forming_seen = forming.sequence, forming
        if run.unsure_to_ms > forming.open_time_ms:
            run.unsure_to_ms = forming.open_time_ms
        self._ring.add("calls")
        self._emit_forming(run, view, forming, outcome, woken_ns)

    def _emit_forming(
        self, run: SymbolRun, view: SeriesView, forming: Forming, outcome: Outcome, woken_ns: int
    ) -> None:
        open_time_ms = forming.open_time_ms
        if run.forming_open_ms != open_time_ms:
            run.forming_open_ms = open_time_ms
            run.forming_done.clear()
        if not outcome.decisions:
            return
        decided_ns = self._now_ns()
        self._add_decided_ns(max(0, decided_ns - woken_ns))
        occasion = self._occasion(
            run, view, open_time_ms, forming.close, forming.stamps, outcome, woken_ns, decided_ns, forming=True
        )
        fresh: list[Signal] = []
        for signal in self._signals(outcome.decisions, occasion):
            if signal.id not in run.forming_done:
                run.forming_done.add(signal.id)
                if self._admit(run, signal.rule, open_time_ms):
                    fresh.append(signal)
        run.note_told(fresh)
        if fresh and not self._writer.offer(fresh):
            self._ring.add("blocked")

    # -- signals

    def _admit(self, run: SymbolRun, rule: str, open_time_ms: int) -> bool:
        """Whether the rule may signal on this candle; counts it where it may not."""
        if not self._spec.cooldown_ms:
            return True
        if run.cooldown.admits(rule, open_time_ms):
            run.cooldown.note(rule, open_time_ms)
            return True
        self._ring.add("cooled_down")
        return False

    def _occasion(
        self,
        run: SymbolRun,
        view: SeriesView,
        open_time_ms: int,
        price: float,
        stamps: tuple[int, ...],
        outcome: Outcome,
        woken_ns: int,
        decided_ns: int,
        *,
        forming: bool,
    ) -> Occasion:
        return Occasion(
            symbol=run.symbol,
            interval=run.interval.text,
            open_time_ms=open_time_ms,
            session=run.session,
            revision=view.revision,
            forming=forming,
            price=price,
            stamps=stamps,
            woken_ns=woken_ns,
            decided_ns=decided_ns,
            strategy_ns=outcome.strategy_ns,
        )

    def _signals(self, decisions: list[Decision], occasion: Occasion) -> list[Signal]:
        return build_signals(
            decisions, occasion, self._spec, self._strategy_name, self._code, self._clock.wall_offset_ns()
        )

    # -- state

    def _tell_state(self) -> None:
        have = need = self._runs[0].need if self._runs else 0
        for run in self._runs:
            have = 0 if run.view is None else min(have, run.view.count - run.view.first())
        state = self._state(have >= need)
        self._telling.tell(state, self._spec, have=have, need=need, missing=self._missing, orders=self._orders)

    def _state(self, warm: bool) -> TraderState:
        if self._writer.blocked:
            return "Blocked"
        if not self._was_ready:
            return "Init"
        if self._retired:
            return "Retired"
        if not warm:
            return "Ready"
        return "Active" if self._spec.mode == "active" else "Warm"
