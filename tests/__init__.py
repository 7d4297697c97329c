"""Tests of keras_detect. `python tests/run_all.py` runs them all."""

#: how the reason of a skipped test starts that needs what is not in the repository; `conftest.py` counts them
NEEDS_SHARED = "needs ../shared/"
