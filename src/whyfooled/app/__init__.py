"""The page in the browser: it makes a command line of what is dropped and chosen, runs it, and shows what it wrote.

Nothing is computed here: every job is a `whyfooled explain` in a process of its own, so the page's options, refusals,
limits and reports are the command line's.
"""
