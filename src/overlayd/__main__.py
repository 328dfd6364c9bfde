"""`python -m overlayd`."""

from overlayd.cli.main import main

main()
