"""The command line as a client of the admin API: sessions, nouns and verbs, and how answers are shown."""
