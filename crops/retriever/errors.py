"""What can go wrong in training through no fault of the program; each message says what to change."""


class TrainingError(ValueError):
    """Base of the errors that samples or settings cause in training."""


class NothingToTrainOn(TrainingError):
    """The samples hold no anchor that a batch could be built around."""


class NoNegatives(TrainingError):
    """A query of the batch has no document without a label of its own: the batch is too small."""


class Diverged(TrainingError):
    """Scores are no longer finite numbers: the learning rate is too high."""


class RanksDiffer(TrainingError):
    """The processes of one training were started with different inputs."""
