"""Why a classifier was fooled: a case, its explanation, and the report that shows it."""
