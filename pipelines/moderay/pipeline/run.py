"""A run, as far as it needs neither Ray nor an engine: most nights, nothing is left to do."""

from __future__ import annotations

from moderay.core.errors import UserError
from moderay.labels.lease import slots_of
from moderay.pipeline.check import Checked
from moderay.pipeline.control.progress import Progress
from moderay.pipeline.outcome import PLAIN, Outcome, RunOptions
from moderay.pipeline.plan import Plan, make_plan


def run(checked: Checked, options: RunOptions = PLAIN, progress: Progress | None = None) -> Outcome:
    """Label everything that is selected and not published yet.

    Args:
        checked: The job and its input.
        options: What else is done.
        progress: Shows how far the run is; by default nobody.

    Raises:
        ModerayError: What a person can mend.
    """
    plan = make_plan(checked, options.replace, options.retry_failed)
    if options.prune and plan.gone and not checked.scan.shards:
        raise UserError(
            f"--prune would remove all {len(plan.gone):,} label files, as the input is empty: "
            "remove the output's folder where that is meant"
        )
    if plan.manifest is not None and _is_finished(plan, bool(checked.scan.unreadable), options):
        # A shard that has become unreadable since is named again; nothing is written.
        unreadable = dict(checked.scan.unreadable)
        now = {
            "unreadable": unreadable,
            "failed": {},
            "gone": tuple(plan.gone),
            "complete": not unreadable,
        }
        manifest = plan.manifest.model_copy(update=now)
        unapplied = plan.people.digest != manifest.corrections
        missed = not manifest.complete
        return Outcome(manifest, False, 0, 0.0, {}, missed=missed, unapplied=unapplied)
    from moderay.pipeline.flow import label_rest  # noqa: PLC0415  late: Ray takes a second

    return label_rest(checked, options, plan, progress or Progress(None))


def _is_finished(plan: Plan, unreadable: bool, options: RunOptions) -> bool:
    """Whether earlier runs have left nothing to do, and say so.

    To judge in any part, to clean up in this one.
    """
    mine = plan.of(slots_of(options.part))
    is_left = plan.todo or mine.leftovers or mine.moved or (options.prune and mine.gone)
    return (
        not is_left
        and plan.manifest is not None
        and plan.manifest.status == "finished"
        and plan.manifest.cascade_key == plan.cascade
        and plan.manifest.shards == len(plan.done)
        and (plan.manifest.complete or unreadable)
    )
