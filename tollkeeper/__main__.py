"""``python -m tollkeeper`` is the command ``tollkeeper``."""

from tollkeeper.cli import main

main(prog_name="tollkeeper")
