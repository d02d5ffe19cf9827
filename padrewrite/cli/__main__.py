"""``python -m padrewrite.cli``."""

from __future__ import annotations

import sys

from padrewrite.cli import main

sys.exit(main())
