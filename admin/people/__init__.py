"""Who asks: logins, sessions, rights, and how often they may try."""
