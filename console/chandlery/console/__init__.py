"""What people look at: summaries and views of a running system."""
