"""Make ``python -m whyfooled`` the command line."""

from whyfooled.cli import main

main()
