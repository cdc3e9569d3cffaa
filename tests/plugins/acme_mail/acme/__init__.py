"""Mail, by Acme."""
