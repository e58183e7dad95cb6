"""The report of one explanation: its numbers, its account in words, its pictures and its page."""
