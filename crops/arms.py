"""The arms of an experiment: one word each, from the manifest and the event log to metrics and readout."""

CONTROL, TREATMENT = "control", "treatment"
ARMS = (CONTROL, TREATMENT)
NONE = "none"  # the label, in metrics, of users outside every experiment; in tables their arm is null

# Which registered release an arm serves: MLflow's alias of it.
CHAMPION, CHALLENGER = "champion", "challenger"
ALIASES = {CONTROL: CHAMPION, TREATMENT: CHALLENGER}
