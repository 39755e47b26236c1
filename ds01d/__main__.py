"""`python -m ds01d`: the daemon, until it is told to stop."""

import sys

from ds01d.app.daemon import main

sys.exit(main())
