"""Whose API a call speaks, and what the gateway says in another's words than OpenAI's."""
