"""What happens between the steps of the loop: log, validate, save, stop, roll back."""

from __future__ import annotations

import math
from dataclasses import dataclass

from sonde import evaluation, loop
from sonde.base import dist, signals
from sonde.base.errors import Interrupted
from sonde.base.progress import Progress
from sonde.contracts.columns import EvalColumns
from sonde.contracts.task import Task
from sonde.data.batches import Batches
from sonde.data.store import Encoded
from sonde.training import checkpoint
from sonde.training.ema import EMA
from sonde.training.run_folder import Log, RunFolder
from sonde.training.schedules import Schedule
from sonde.training.settings import TrainingConfig
from sonde.training.vitals import Vitals, looks_every

# Log lines of a whole run, unless the recipe says how often.
LINES = 500
# Validations of a whole run at most, unless the recipe says how often.
EVALUATIONS = 100
# Validations of a run that people are told of.
TOLD = 8
# Up to so many validation examples scores that differ by less than this share of their standard error are equal.
NOISY, NEAR = 5000, 0.5


@dataclass(frozen=True, kw_only=True)
class Trainer:
    """Runs the loop from where the state stands."""

    training: TrainingConfig
    task: Task
    sets: dict[str, Encoded]
    state: loop.State
    plan: loop.Plan
    batches: Batches
    folder: RunFolder
    log: Log
    progress: Progress

    def run(self) -> None:
        """Train to the end, or to where validation has stopped improving.

        Raises:
            Diverged: a loss or a gradient was not finite, more often than `training.rollback` allows.
            Interrupted: the user stopped the run; its state is saved.
        """
        self.progress.begin("train", self.plan.steps)
        if self.training.rollback and self.state.step == 0:
            self._save()
        with signals.stoppable() as stop:
            while not self._exhausted():
                try:
                    self._steps(stop)
                    return
                except loop.DivergedAtStep as error:
                    named = error.named(self.sets["train"].ids)
                    if not self._roll_back(named):
                        raise named from None
        self.progress.message(
            f"stopped early at step {self.state.step}: no better for {self.state.evals_since_best} validations"
        )

    def _steps(self, stop: signals.Stop) -> None:
        training, state, steps = self.training, self.state, self.plan.steps
        every = self._evaluate_every
        log_every = training.log_every or max(1, steps // LINES)
        micro_batch = state.micro_batch
        vitals = self._vitals(log_every)
        for step in loop.train(self.task, self.batches, state, self.plan):
            looked = vitals is not None and vitals.is_due(step.number)
            if vitals is not None and not looked:
                vitals.before(step.number + 1)
            due = step.number % every == 0 or step.number == steps
            logged = step.number % log_every == 0 or step.number == steps
            if not (due or logged or self.plan.read_every_step):
                continue
            if logged or due:
                loop.check(self.task, self.batches, state, self.plan)
            if logged:
                self.progress.at(step.number, self.log.step(step))
            if vitals is not None and looked:
                self.log.write(vitals.look())
                vitals.before(step.number + 1)
            if state.micro_batch < micro_batch:
                micro_batch = state.micro_batch
                self.log.write({"step": step.number, "micro_batch": micro_batch})
                self.progress.message(
                    f"step {step.number}: out of memory; going on with micro-batches of {micro_batch}"
                )
            if due and "validation" in self.sets:
                self._validate()
            stopping = dist.any_rank(bool(stop))
            if due or stopping:
                self._save()
            if stopping:
                raise Interrupted(
                    f"stopped at step {state.step} of {steps}; the state is saved in {self.folder.path}",
                    hint="the same command with --resume goes on",
                )
            if self._exhausted():
                return

    def _vitals(self, log_every: int) -> Vitals | None:
        """What follows units, gradients and updates, from the step that comes next on; in the main process."""
        # A share of sharded weights says nothing of the whole.
        if not dist.is_main() or (self.training.parallel == "fsdp" and dist.world_size() > 1):
            return None
        every = looks_every(self.plan.steps, log_every)
        vitals = Vitals(task=self.task, state=self.state, plan=self.plan, train=self.sets["train"], every=every)
        vitals.before(self.state.step + 1)
        return vitals

    def _exhausted(self) -> bool:
        """Whether validation has not improved for so long that training stops early."""
        patience = self.training.patience
        return patience is not None and self.state.evals_since_best >= patience

    def _save(self) -> None:
        checkpoint.save(self.folder.checkpoints, self.state, self.log.sync())

    def _roll_back(self, error: loop.DivergedAtStep) -> bool:
        """To the last checkpoint, to go on with a smaller rate; False if the recipe does not allow it (any more)."""
        rollback, state = self.training.rollback, self.state
        if rollback is None or state.rolled_back >= rollback.times:
            return False
        times = state.rolled_back + 1
        if checkpoint.restore(self.folder.checkpoints, state) is None:
            return False
        state.rolled_back, state.lr_scale = times, rollback.factor**times
        what = error.what.partition(";")[0]
        self.log.write({"step": state.step, "rolled_back": times, "from": error.step, "lr_scale": state.lr_scale})
        self.progress.message(f"{what}; back to step {state.step}, on with {state.lr_scale:g} times the learning rate")
        self._save()
        return True

    def _validate(self) -> None:
        """Score the validation split, and note whether it is the best so far."""
        state, held_out, target = self.state, self.sets["validation"], self.task.target
        ema = state.ema if isinstance(state.ema, EMA) else None
        if ema:
            ema.swap(state.network)
        columns = evaluation.eval_outputs(
            self.task, state.network, held_out.examples, precision=self.plan.precision, size=state.micro_batch
        )
        if ema:
            ema.swap(state.network)
        if not evaluation.all_finite(columns):
            raise loop.DivergedAtStep(
                step=state.step, what="answers for the validation split became NaN or infinite", records=[]
            )
        found = evaluation.values(self.task, columns, held_out.weight)
        self.log.write({"step": state.step, "validation": {name: evaluation.finite(x) for name, x in found.items()}})
        for warning in target.warnings(columns):
            self.log.write({"step": state.step, "warning": warning})
            self.progress.message(f"step {state.step}: warning: {warning}")
        monitor, better = target.monitor
        if self.training.monitor:
            monitor = self.training.monitor
            better = "min" if monitor.partition("/")[0] in target.lower_is_better else "max"
        value = found[monitor]
        # A score that is not defined (one class only) is no better than any.
        defined = math.isfinite(value)
        if defined and isinstance(state.schedule, Schedule):
            state.schedule.observe(value, better)
        state.evals_since_best += 1
        if defined and self._is_best(columns, found, monitor, better):
            checkpoint.save_best(self.folder.checkpoints, state)
        if self._is_told():
            best = ""
            if state.best is not None:
                kept = f"best {state.best:.4g} at step {state.best_step}"
                best = " (the best)" if state.best_step == state.step else f" ({kept})"
            self.progress.message(f"step {state.step}: validation {monitor} {value:.4g}{best}")

    def _is_best(self, columns: EvalColumns, found: dict[str, float], monitor: str, better: str) -> bool:
        """Note whether this state is the best so far; scores that a small split cannot tell apart go by the target's
        finer score (`Target.tie_break`): the first of equal accuracies is hardly trained."""
        state, sign = self.state, 1.0 if better == "max" else -1.0
        score, peak, kept = sign * found[monitor], state.best_peak, state.best
        improved = peak is None or score > sign * peak
        if improved:
            state.best_peak, state.evals_since_best = found[monitor], 0
        assert state.best_peak is not None
        tie = self.task.target.tie_break
        if (
            self.training.monitor is None
            and tie is not None
            and kept is not None
            and len(self.sets["validation"].examples) <= NOISY
        ):
            margin = NEAR * evaluation.standard_error(
                self.task, columns, monitor, seed=self.training.seed, groups=self.sets["validation"].groups
            )
            near = sign * state.best_peak - margin
            name, direction = tie
            finer = found[name] if direction == "max" else -found[name]
            kept_finer = state.best_tie if state.best_tie is not None else -math.inf
            improved = score >= near and (sign * kept < near or finer > kept_finer)
        if improved:
            state.best, state.best_step = found[monitor], state.step
            if tie is not None:
                state.best_tie = found[tie[0]] if tie[1] == "max" else -found[tie[0]]
        return improved

    @property
    def _evaluate_every(self) -> int:
        """Steps between validations: epochs of a few records are too short to validate and save after each."""
        return self.training.evaluate_every or max(self.batches.per_epoch, self.plan.steps // EVALUATIONS)

    def _is_told(self) -> bool:
        """Whether people are told of this validation: a few of a run are enough."""
        every = self._evaluate_every
        turns = max(1, -(-self.plan.steps // every) // TOLD)
        return (self.state.step // every) % turns == 0 or self.state.step == self.plan.steps
