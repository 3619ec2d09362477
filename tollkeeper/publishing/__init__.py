"""Where publications are brought into force: settings, sinks, and the command `tollkeeper publish`."""
