"""The client's side: where mail for a domain goes."""
