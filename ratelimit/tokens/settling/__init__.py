"""How ended calls come to be settled: they wait, are worked out and settled by one thread, the overdue are swept."""
