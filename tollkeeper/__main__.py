"""``python -m tollkeeper`` is the command ``tollkeeper``."""

import sys

if sys.version_info < (3, 11):  # noqa: UP036  an older Python must be told so before it stumbles over the syntax
    sys.exit("tollkeeper needs Python 3.11 or newer; this is %d.%d" % sys.version_info[:2])  # noqa: UP031  for them too

from tollkeeper.start import main

main()
