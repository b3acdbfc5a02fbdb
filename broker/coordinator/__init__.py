"""Consumer groups: pure state machines inside, `runtime.GroupCoordinator` around them (log, timers, answers)."""
