"""Token budgets: what is reserved before a call, what is settled after it, and what is learnt from it."""
