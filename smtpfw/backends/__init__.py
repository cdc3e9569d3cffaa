"""Where mail can go. Each backend is one module; none is imported before it is asked for."""
