"""The answers to each call: read what is needed, let ``admin.acts`` say what changes, commit, show."""
