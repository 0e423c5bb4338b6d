"""DeepProbLog warns when it is imported without PySwip; byssus imports it without a warning."""

from importlib.util import find_spec

if find_spec("deepproblog") is None:
    collect_ignore_glob = ["test_*.py"]
else:
    import byssus_deepproblog  # noqa: F401
