"""The page, its pictures and its tables, made from results folders alone."""
