"""Whether a run that exists is the one that is asked for."""

from fmlm_cli import storage
from fmlm_cli.config import BudgetSettings, PretrainSettings, build, deciding, differing, saved_settings
from fmlm_cli.engine.checkpoint import complete_checkpoints, read_facts
from fmlm_cli.errors import OtherSettingError, UserError
from fmlm_cli.recipes.pretraining.planning.changes import changes_since, shown
from fmlm_cli.recipes.pretraining.planning.plan import RunPlan


def settings_to_resume(settings: PretrainSettings, run: storage.RunDirectory) -> PretrainSettings:
    """A run's own settings, with what `settings` sets explicitly laid over them.

    The same minutes as before are the tokens that they came to then.
    """
    saved = saved_settings(PretrainSettings, run.config)
    if settings.budget == BudgetSettings(minutes=saved.budget.minutes):
        settings = settings.model_copy(update={"budget": saved.budget})
    return build(PretrainSettings, saved.model_dump(), settings.model_dump(exclude_unset=True))


def check_changes(plan: RunPlan, run: storage.RunDirectory) -> None:
    """Refuse what cannot change in the middle of a run, before anything is written."""
    for _, checkpoint in reversed(complete_checkpoints(run.checkpoints)):
        try:
            step, facts = read_facts(checkpoint)
        except UserError:  # a damaged one, which is passed over, and told of, when the run goes on
            continue
        if "decided_by" in facts:
            changes_since(facts, plan, step)
        return


def check_same_run(settings: PretrainSettings, run: storage.RunDirectory) -> None:
    """Refuse to resume a run under settings that would have made it another one."""
    before, now = deciding(saved_settings(PretrainSettings, run.config)), deciding(settings)
    for name in differing(before, now):
        was, wanted = shown(before.get(name)), shown(now.get(name))
        remedy = "go back to that, pass --allow-changes, or choose another --out"
        raise OtherSettingError(f"{run.root} was started", name, was, wanted, remedy=remedy)
