"""How servers frame answers, and how far off estimates of such answers are."""
