"""The images of the components, one per role; the tag is the version of the project."""

VERSION = "0.1.0"
# kfp's subprocess runner ignores the image; on a cluster it is the whole environment of the step.
MINING = f"crops/mine:{VERSION}"
TRAINING = f"crops/train:{VERSION}"
