"""What every command shares: progress, tables, how a mistake ends it."""
