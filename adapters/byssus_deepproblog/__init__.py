"""byssus for DeepProbLog: `Engine` in the place of `ExactEngine`, and a batch is one circuit."""

import warnings

with warnings.catch_warnings():
    # DeepProbLog warns where PySwip is missing, which only its ApproximateEngine needs.
    warnings.simplefilter("ignore")
    import deepproblog.engines as _engines  # noqa: F401

from byssus_deepproblog.engine import Engine as Engine
