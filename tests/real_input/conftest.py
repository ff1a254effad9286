"""Failed checks show what they compared, as asserts in tests do."""

import pytest

pytest.register_assert_rewrite("tests.real_input.real_checks", "tests.real_input.real_run")
